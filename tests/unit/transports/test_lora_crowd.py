"""How long a frame waits on a channel that others use."""

from __future__ import annotations

import itertools

import pytest

from offgrid_transports.lora.crowd import LOAD_MAX, SPAN_MS, Crowd


def test_on_an_empty_channel_it_does_not_wait() -> None:
    assert Crowd().wait_ms(0) == 0


def test_it_waits_longer_the_busier_the_channel_is_but_not_for_ever() -> None:
    crowd, waits = Crowd(), list[float]()
    for now_ms in range(0, SPAN_MS, 200):
        crowd.hear(now_ms, 200.0)
        waits.append(crowd.wait_ms(now_ms))
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(waits))
    assert waits[SPAN_MS // 400 - 1] == pytest.approx(200, abs=10), "half of the time: one frame is before it"
    assert waits[-1] == pytest.approx(LOAD_MAX / (1 - LOAD_MAX) * 200)


def test_what_was_heard_long_ago_counts_no_more() -> None:
    crowd = Crowd()
    crowd.hear(0, 200.0)
    assert crowd.wait_ms(SPAN_MS) == 0
