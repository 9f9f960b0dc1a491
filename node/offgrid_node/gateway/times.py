"""Times as people's programs read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc(timestamp_us: int) -> str:
    """ "2026-11-23T02:40:22.123456Z"."""
    return (_EPOCH + timedelta(microseconds=timestamp_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")
