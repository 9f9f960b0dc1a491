"""The machine's clock, against what certainly lies behind: this program's files, and the node's newest event."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import offgrid_node
from offgrid_node.doctor.findings import Check, Said, warning
from offgrid_node.doctor.subject import Subject

NOTABLE_US = 60_000_000
DAY_US = 86_400_000_000
SET = "sudo timedatectl set-ntp true   # without an internet: sudo date -s 'YYYY-MM-DD hh:mm:ss'"


def off_by(us: int) -> str:
    """A difference for people."""
    seconds = abs(us) / 1_000_000
    for unit_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 1.9 * unit_s:
            return f"{round(seconds / unit_s)} {unit}"
    return f"{round(seconds)} s"


def shown(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _clock(subject: Subject) -> Iterator[Said]:
    now_us = subject.utc_us()
    program_us = Path(offgrid_node.__file__).stat().st_mtime_ns // 1_000
    if now_us < program_us - DAY_US:
        yield warning(f"the clock shows {shown(now_us)}, before this program was installed", SET)
        return
    if subject.status is None:
        return
    for event in subject.asked.events.list(since_us=now_us + NOTABLE_US, limit=1):
        ahead = off_by(event.timestamp_us - now_us)
        yield warning(f"the clock shows {shown(now_us)}, {ahead} before an event of this node's journal", SET)
        return
    for event in subject.asked.events.list(types=["NODE_STARTED"], newest_first=True, limit=1):
        back_us = event.timestamp_us + subject.status.uptime_ms * 1_000 - now_us
        if back_us > NOTABLE_US:  # forwards it goes in a machine's sleep, too
            yield warning(f"the clock was set back by {off_by(back_us)} since the node was started", SET)


CHECKS = (Check("clock", "the clock is not behind what has happened", _clock),)
