"""Which of the backups that a node makes by itself stay: the newest 24, the last of each of 7 days, of each of 4 weeks
(grandfather, father, son), as long as all of them take no more than they may. Pure.

A name says when it was made, and of which event: `backup-20261122T130551Z-4711.zip`; one of a store with damaged rows
ends in `-damaged.zip`. The newest always stays, and so does the newest of a whole store. So does the one that was just
made: by a clock that was ahead, older ones may be said to be newer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import msgspec

NEWEST, DAYS, WEEKS = 24, 7, 4
_NAME = re.compile(r"backup-(\d{8}T\d{6}Z)-(\d+)(-damaged)?\.(zip|sealed)\Z")
_TIME = "%Y%m%dT%H%M%SZ"


class Kept(msgspec.Struct, frozen=True):
    """One that lies there."""

    name: str
    bytes: int
    made: datetime
    journal_seq: int
    whole: bool
    sealed: bool


def name_of(made_us: int, journal_seq: int, *, damaged: bool, sealed: bool) -> str:
    made = datetime.fromtimestamp(made_us // 1_000_000, UTC).strftime(_TIME)
    return f"backup-{made}-{journal_seq}{'-damaged' if damaged else ''}.{'sealed' if sealed else 'zip'}"


def kept_of(name: str, size_bytes: int) -> Kept | None:
    """None for what is no such name."""
    found = _NAME.match(name)
    if found is None:
        return None
    try:
        made = datetime.strptime(found[1], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return Kept(name, size_bytes, made, int(found[2]), not found[3], found[4] == "sealed")


def going(there: Collection[Kept], bytes_max: int, made: str = "") -> list[Kept]:
    """Those that go, the oldest first. `made`: the name of the one that was just made."""
    newest_first = sorted(there, key=lambda each: (each.made, each.journal_seq), reverse=True)
    always = {*newest_first[:1], *[each for each in newest_first if each.whole][:1]}
    always |= {each for each in newest_first if each.name == made}
    stays = {*newest_first[:NEWEST], *_last_of(newest_first, "%Y%m%d", DAYS), *_last_of(newest_first, "%G%V", WEEKS)}
    room, kept = bytes_max - sum(each.bytes for each in always), {*always}
    for each in newest_first:
        if each in always or each not in stays:
            continue
        if each.bytes > room:
            break
        kept.add(each)
        room -= each.bytes
    return [each for each in reversed(newest_first) if each not in kept]


def _last_of(newest_first: Sequence[Kept], period: str, most: int) -> list[Kept]:
    last: dict[str, Kept] = {}
    for each in newest_first:
        last.setdefault(each.made.strftime(period), each)
    return [*last.values()][:most]
