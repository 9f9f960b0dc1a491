"""Which backups stay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from offgrid_node.backups.rotation import DAYS, NEWEST, WEEKS, Kept, going, kept_of, name_of

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MUCH = 1 << 60


def made(ago: timedelta, *, size: int = 100, whole: bool = True, seq: int = 1) -> Kept:
    at = NOON - ago
    name = name_of(int(at.timestamp()) * 1_000_000, seq, damaged=not whole, sealed=False)
    found = kept_of(name, size)
    assert found is not None
    assert (found.made, found.whole, found.journal_seq) == (at, whole, seq)
    return found


def stays(there: list[Kept], bytes_max: int = MUCH) -> set[Kept]:
    return {*there} - {*going(there, bytes_max)}


def test_hourly_ones_thin_out_to_days_and_weeks() -> None:
    hourly = [made(timedelta(hours=hour)) for hour in range(24 * 60)]
    kept = stays(hourly)
    assert kept >= {*hourly[:NEWEST]}
    assert len({each.made.date() for each in kept}) >= DAYS
    assert len(kept) <= NEWEST + DAYS + WEEKS
    assert NOON - min(each.made for each in kept) > timedelta(weeks=WEEKS - 2)
    assert stays(sorted(kept, key=lambda each: each.made)) == kept


def test_as_time_goes_on_there_are_always_old_ones() -> None:
    there: list[Kept] = []
    for hour in range(24 * 40, -1, -1):
        there = [*stays([*there, made(timedelta(hours=hour))])]
    assert NOON - min(each.made for each in there) > timedelta(weeks=WEEKS - 2)
    assert len(there) <= NEWEST + DAYS + WEEKS


def test_the_oldest_go_when_all_take_too_much() -> None:
    hourly = [made(timedelta(hours=hour), size=100) for hour in range(10)]
    assert stays(hourly, 350) == {*hourly[:3]}


@pytest.mark.parametrize("bytes_max", [0, 50])
def test_the_newest_stays_however_large_it_is(bytes_max: int) -> None:
    hourly = [made(timedelta(hours=hour)) for hour in range(5)]
    assert stays(hourly, bytes_max) == {hourly[0]}


def test_the_newest_of_a_whole_store_stays_behind_those_of_a_damaged_one() -> None:
    damaged = [made(timedelta(hours=hour), whole=False) for hour in range(40)]
    whole = [made(timedelta(hours=hour)) for hour in range(40, 42)]
    assert stays([*whole, *damaged], 0) == {damaged[0], whole[0]}


def test_the_one_just_made_stays_behind_those_of_a_clock_that_was_ahead() -> None:
    ahead, new = [made(timedelta(days=-2, hours=-hour)) for hour in range(NEWEST)], made(timedelta(), seq=2)
    assert new in going([*ahead, new], 250)
    assert new not in going([*ahead, new], 250, new.name)
    assert len(going([*ahead, new], 250, new.name)) == NEWEST - 1


def test_what_is_no_backup_of_ours_is_none() -> None:
    good = name_of(0, 7, damaged=True, sealed=True)
    assert good == "backup-19700101T000000Z-7-damaged.sealed"
    rng = Random(7)
    for name in ("keys.wrapped", "backup.new", "backup-20261399T000000Z-1.zip", good + "x", "x" + good, ""):
        assert kept_of(name, rng.randrange(100)) is None
