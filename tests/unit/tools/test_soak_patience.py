"""A soak waits for as long as something ends now and then."""

from __future__ import annotations

import time

import pytest

from offgrid_tools.soak.patience import Patience


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_each_end_gives_the_others_as_long_again(clock: list[float]) -> None:
    waiting = Patience(still_s=10)
    for left in (["a", "b", "c"], ["a", "b"], ["b"]):
        clock[0] += 9
        assert waiting.waits_for(left)
    clock[0] += 10
    assert not waiting.waits_for(["b"])


def test_nothing_that_ends_is_the_end(clock: list[float]) -> None:
    waiting = Patience(still_s=10)
    assert waiting.waits_for(["a"])
    clock[0] = 10
    assert not waiting.waits_for(["a"])


def test_what_ends_again_and_again_is_no_progress(clock: list[float]) -> None:
    waiting = Patience(still_s=10)
    for left, second in ((["a"], 0), ([], 5), (["a"], 10), ([], 14)):
        clock[0] = second
        assert waiting.waits_for(["b", *left])
    clock[0] = 15
    assert not waiting.waits_for(["b"])
