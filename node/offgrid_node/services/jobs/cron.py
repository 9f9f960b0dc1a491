"""Cron expressions: five fields in a time zone, as Debian's cron reads them; by cronsim and zoneinfo.

A time that daylight saving leaves out is due at the first moment after, one that comes twice is due once. Expressions
with a star for minute or hour follow the clock as it goes. cronsim was taken rather than croniter: both are kept up
(2.8 and 7.0 came out within a week of each other), it is a quarter of the size, needs nothing else, and says that it
follows Debian's cron where a clock is changed.
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from offgrid_node.protocol.errors import InvalidRequest

CRON_CHARS_MAX, TIMEZONE_CHARS_MAX = 128, 64
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
NO_ZONE = (ZoneInfoNotFoundError, ValueError, OSError)
FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, or L for the last",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7, or SUN to SAT",
}
FORMS = "each is *, a value, a range a-b, a list a,b or a step */n"


class CronTimes:
    """The `Cron` of the schedules' machine. What it is asked about was checked. Where this machine has no such time
    zone any more, and beyond the calendar's end, nothing is due."""

    def next_us(self, cron: str, timezone: str, after_us: int) -> int | None:
        return _first(cron, timezone, after_us, reverse=False)

    def last_us(self, cron: str, timezone: str, at_us: int) -> int | None:
        """Backwards it begins before the whole second that it is given."""
        return _first(cron, timezone, at_us if at_us % 1_000_000 else at_us + 1, reverse=True)


def check_cron(field: str, cron: str) -> str:
    """The expression itself. Raises InvalidRequest that names the part which is wrong."""
    parts = cron.split()
    if len(cron) > CRON_CHARS_MAX or len(parts) != len(FIELDS) or not cron.isascii():
        names = ", ".join(FIELDS)
        text = f"{cron[:CRON_CHARS_MAX]!r} has {len(parts)} fields; {len(FIELDS)} are wanted: {names}; {FORMS}"
        raise InvalidRequest.field(field, text)
    try:
        CronSim(cron, EPOCH)
    except CronSimError as error:
        name = str(error).removeprefix("Bad ")
        value = dict(zip(FIELDS, parts, strict=True)).get(name, cron)
        raise InvalidRequest.field(field, f"{name} {value!r}; {FIELDS.get(name, '')} is allowed; {FORMS}") from error
    if CronTimes().next_us(cron, "UTC", 0) is None:
        raise InvalidRequest.field(field, f"{cron!r} never comes")
    return cron


def check_timezone(field: str, timezone: str) -> str:
    """The zone's name itself, UTC for none. Raises InvalidRequest."""
    if not timezone:
        return "UTC"
    try:
        if len(timezone) <= TIMEZONE_CHARS_MAX:
            ZoneInfo(timezone)
            return timezone
    except NO_ZONE:
        pass
    close = difflib.get_close_matches(timezone[:TIMEZONE_CHARS_MAX], available_timezones(), 1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    text = (
        f"{timezone[:TIMEZONE_CHARS_MAX]!r} is no time zone; a name such as 'Europe/Berlin' or 'UTC' is allowed{meant}"
    )
    raise InvalidRequest.field(field, text)


def _first(cron: str, timezone: str, since_us: int, *, reverse: bool) -> int | None:
    try:
        found = next(CronSim(cron, _local(since_us, timezone), reverse), None)
    except (*NO_ZONE, OverflowError):
        return None
    return None if found is None else (found.astimezone(UTC) - EPOCH) // MICROSECOND


def _local(at_us: int, timezone: str) -> datetime:
    return (EPOCH + timedelta(microseconds=at_us)).astimezone(_zone(timezone))


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)
