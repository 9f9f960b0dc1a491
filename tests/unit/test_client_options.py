"""What is asked of a job, as the wire has it; what it cannot carry is refused by name, with what is allowed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from offgrid.client import payloads
from offgrid.client.options import spec_of

ECHO = payloads.builtin("echo")


def test_each_option_is_in_its_place() -> None:
    due = datetime(2030, 1, 2, tzinfo=UTC)
    spec = spec_of(ECHO, {"priority": -5, "timeout_s": 1.5, "deadline": due, "after": ["j-1"], "input_from": "j-2"})
    assert (spec.priority, spec.timeout_ms, spec.deadline_us) == (-5, 1_500, round(due.timestamp() * 1e6))
    assert (list(spec.after), spec.payload.input_job) == (["j-1", "j-2"], "j-2")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("deadline", 10.0, "a datetime with its time zone, a timedelta from now"),
        ("deadline", "10m", "a datetime with its time zone, a timedelta from now"),
        ("deadline", datetime(2030, 1, 2), "datetime.now(UTC)"),  # noqa: DTZ001 - that is what is wrong with it
        ("priority", "high", "-100 to 100"),
        ("price_max_micro", -5, "a whole number from 0"),
        ("size_tokens", 1 << 64, "a whole number from 0"),
        ("replicas", 2.5, "a whole number from 1"),
        ("requirements", 7, "text"),
        ("timeout_s", -1, "0.1 to 86400 seconds"),
        ("timeout_s", float("nan"), "0.1 to 86400 seconds"),
        ("timeout_s", timedelta(seconds=5), "0.1 to 86400 seconds"),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_what_is_allowed(name: str, value: object, allowed: str) -> None:
    options: Any = {name: value}
    with pytest.raises((TypeError, ValueError)) as caught:
        spec_of(ECHO, options)
    assert str(caught.value).startswith(name)
    assert allowed in str(caught.value)


def test_an_unknown_option_is_told_with_those_there_are_and_where_a_functions_own_arguments_go() -> None:
    options: Any = {"timeout": 5}
    with pytest.raises(TypeError, match=r"timeout: no such option of a job; there are .*timeout_s.*functools.partial"):
        spec_of(ECHO, options)
