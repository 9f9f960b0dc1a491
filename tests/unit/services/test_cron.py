"""Cron expressions in time zones: what they mean, where clocks are changed, and how a wrong one is told of."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.services.jobs.cron import CRON_CHARS_MAX, CronTimes, check_cron, check_timezone

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
SECOND = 1_000_000


def us(text: str, timezone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone)).timestamp() * SECOND)


def told(at_us: int | None, timezone: str = "UTC") -> str:
    assert at_us is not None
    return datetime.fromtimestamp(at_us / SECOND, UTC).astimezone(ZoneInfo(timezone)).isoformat()


@pytest.mark.parametrize(
    ("cron", "timezone", "after", "due"),
    [
        ("*/15 * * * *", "UTC", "2026-03-01T12:00:00", "2026-03-01T12:15:00+00:00"),
        ("0 9-17/2 * * MON-FRI", "UTC", "2026-03-06T17:00:00", "2026-03-09T09:00:00+00:00"),
        ("30 6 1,15 jan *", "UTC", "2026-01-01T06:30:00", "2026-01-15T06:30:00+00:00"),
        ("0 0 29 2 *", "UTC", "2026-03-01T00:00:00", "2028-02-29T00:00:00+00:00"),
        ("0 12 * * 7", BERLIN, "2026-07-01T00:00:00", "2026-07-05T12:00:00+02:00"),
        ("30 2 * * *", BERLIN, "2026-03-28T12:00:00", "2026-03-29T03:00:00+02:00"),  # there is no 02:30 on that day
        ("30 2 * * *", BERLIN, "2026-10-24T12:00:00", "2026-10-25T02:30:00+02:00"),  # there are two: the first
        ("30 2 * * *", BERLIN, "2026-10-25T02:30:00", "2026-10-26T02:30:00+01:00"),
        ("0 * * * *", NEW_YORK, "2026-11-01T01:00:00", "2026-11-01T01:00:00-05:00"),  # each hour, both of them
        ("0 2 * * *", LORD_HOWE, "2026-10-03T12:00:00", "2026-10-04T02:30:00+11:00"),  # half an hour is left out
    ],
)
def test_the_next_due_time(cron: str, timezone: str, after: str, due: str) -> None:
    assert told(CronTimes().next_us(cron, timezone, us(after, timezone)), timezone) == due


CRONS = st.sampled_from(
    ["* * * * *", "*/7 * * * *", "30 2 * * *", "15 1-3 * * *", "0 */2 * * *", "0 0 1 * *", "0 3 * * MON", "0 0 L * *"]
)
ZONES = st.sampled_from(["UTC", BERLIN, NEW_YORK, LORD_HOWE, "Africa/Casablanca", "Asia/Kathmandu"])
INSTANTS = st.integers(us("2015-01-01T00:00:00"), us("2035-01-01T00:00:00"))


@given(CRONS, ZONES, INSTANTS)
def test_the_last_due_time_is_the_next_one_seen_from_behind(cron: str, timezone: str, at_us: int) -> None:
    times = CronTimes()
    due_us = times.next_us(cron, timezone, at_us)
    assert due_us is not None
    assert due_us > at_us
    assert times.last_us(cron, timezone, due_us) == due_us
    before_us = times.last_us(cron, timezone, due_us - 1)
    assert before_us is not None
    assert before_us <= at_us
    assert times.next_us(cron, timezone, before_us) == due_us


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("", "has 0 fields; 5 are wanted: minute, hour"),
        ("@hourly", "has 1 fields"),
        ("0 0 * * * *", "has 6 fields"),
        ("61 * * * *", "minute '61'; 0 to 59"),
        ("* 24 * * *", "hour '24'; 0 to 23"),
        ("* * 0 * *", "day-of-month '0'; 1 to 31"),
        ("* * * MAI *", "month 'MAI'; 1 to 12, or JAN"),
        ("* * * * monday", "day-of-week 'monday'; 0 to 7, or SUN"),
        ("*/0 * * * *", "minute '*/0'"),
        ("5-1 * * * *", "minute '5-1'"),
        ("0 0 31 2 *", "day-of-month '31'"),
        ("* * * * " + "1," * CRON_CHARS_MAX, "fields"),
        ("\u0661 * * * *", "fields"),
    ],
)
def test_a_wrong_expression_is_told_of_by_its_part(cron: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_cron("schedule.cron", cron)
    assert words in refused.value.message
    assert refused.value.message.startswith("schedule.cron")


@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert check_cron("cron", text) == text


@pytest.mark.parametrize("timezone", ["Berlin", "Europe", "/etc/passwd", "../../etc/passwd", "x" * 999, "\0"])
def test_what_is_no_time_zone_is_refused(timezone: str) -> None:
    with pytest.raises(InvalidRequest, match=r"schedule\.timezone"):
        check_timezone("schedule.timezone", timezone)


@pytest.mark.parametrize(
    ("timezone", "at_us"),
    [("Gone/Away", 0), ("Europe", 0), ("UTC", 62 * 10**16), ("Europe/Berlin", 253402300799 * 10**6)],
)
def test_what_a_machine_cannot_tell_is_never_due(timezone: str, at_us: int) -> None:
    """A store may come to another machine, and a machine's zones may go: no reason for a node not to start."""
    assert CronTimes().next_us("0 0 29 2 *", timezone, at_us) is None
    assert CronTimes().last_us("0 0 29 2 *", timezone, at_us) is None


def test_a_misspelt_time_zone_is_answered_with_the_one_that_is_meant() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'Europe/Berlin'"):
        check_timezone("schedule.timezone", "Europe/Berlim")


def test_no_time_zone_is_utc() -> None:
    assert check_timezone("schedule.timezone", "") == "UTC"
    assert check_timezone("schedule.timezone", BERLIN) == BERLIN
