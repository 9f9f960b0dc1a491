"""How long a datagram may be: found, confirmed, found narrower again, and never raised by strangers."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.mtu_search import BASE, ECHO, LEAST, PROBE, RAISE_MS, USED_MS, MtuSearch, echo_of


class Path:
    """A search and a path that swallows what is longer than `width`, and some of the rest."""

    def __init__(self, width: int, most: int = 65_507, *, loss: float = 0.0, seed: int = 1) -> None:
        self.rng = Random(seed)
        self.search = MtuSearch(self.rng, most)
        self.width, self.loss, self.now_ms, self.probes = width, loss, 0.0, 0
        self.longest = 0

    def run(self, until_ms: float, *, send: int = 100, rtt_ms: float = 20) -> Path:
        while self.now_ms < until_ms:
            self.search.on_used(self.now_ms, min(send, self.search.mtu_bytes))
            probe = self.search.take_probe(self.now_ms)
            if probe is None:
                self.now_ms = min(until_ms, max(self.now_ms + 1, min(self.search.wakes_ms(), self.now_ms + 1000)))
                continue
            self.probes += 1
            self.longest = max(self.longest, len(probe))
            self.now_ms += rtt_ms
            echo = echo_of(probe)
            assert echo is not None
            if len(probe) <= self.width and self.rng.random() > self.loss:
                self.search.on_echo(self.now_ms, echo)
        return self


@pytest.mark.parametrize(("width", "found"), [(1199, BASE), (1200, 1200), (1473, 1472), (9000, 8952), (10**6, 65_507)])
def test_the_longest_length_is_found(width: int, found: int) -> None:
    assert Path(width).run(10_000).search.mtu_bytes == found


@pytest.mark.parametrize(("most", "found"), [(1300, 1300), (600, 600), (1200, 1200)])
def test_no_more_than_it_is_told_is_tried(most: int, found: int) -> None:
    path = Path(10**6, most).run(10_000)
    assert path.search.mtu_bytes == found == path.longest


def test_loss_does_not_end_the_search_and_what_was_found_costs_little() -> None:
    path = Path(1500, loss=0.36).run(60_000)
    assert path.search.mtu_bytes == 1472
    path.loss, before = 0.0, path.probes
    path.run(120_000)
    assert path.probes == before, "short frames alone: nothing to confirm"
    path.run(180_000, send=1472)
    assert before + 15 < path.probes < before + 25


def test_a_path_that_became_narrower_is_found_out_while_long_frames_are_sent() -> None:
    path = Path(1500).run(5000, send=1472)
    path.width = 1300
    path.run(12_000, send=1472)
    assert path.search.mtu_bytes == 1280
    path.width = 10_000
    assert path.run(100_000, send=1472).search.mtu_bytes == 1280
    assert path.run(RAISE_MS + 20_000, send=1472).search.mtu_bytes == 8952


def test_nobody_there_is_asked_seldom_and_found_when_he_comes() -> None:
    path = Path(0).run(60_000)
    assert path.search.mtu_bytes == BASE
    assert path.probes < 60
    path.width = 1500
    assert path.run(80_000).search.mtu_bytes == 1472


def test_who_is_not_sent_to_is_not_probed() -> None:
    search = MtuSearch(Random(1), 9000)
    assert (search.take_probe(0), search.wakes_ms()) == (None, math.inf)
    search.on_used(0, 10)
    assert search.take_probe(0)
    assert search.unused(USED_MS + 1)
    assert search.take_probe(USED_MS + 1) is None


def test_what_this_machine_refuses_is_learned_at_once() -> None:
    path = Path(10**6, 1400)
    search = path.search
    search.on_used(0, 10)
    assert len(search.take_probe(0) or b"") == BASE
    assert not search.on_too_long(0, 1472)
    path.run(5000)
    assert search.mtu_bytes == 1400
    assert not search.on_too_long(5000, 1401)
    assert search.on_too_long(5000, 1400)
    assert search.mtu_bytes == BASE


def test_a_forged_or_late_echo_changes_nothing() -> None:
    search = MtuSearch(Random(1), 9000)
    search.on_used(0, 10)
    base = search.take_probe(0)
    assert base
    good = echo_of(base)
    assert good
    for forged in (b"", good[:-1], good + b"x", good[:-2] + b"\x20\x00", bytes((ECHO,)) + bytes(8) + good[-2:]):
        assert not search.on_echo(1, forged)
        assert search.take_probe(1) is None, "the probe is under way still"
    assert not search.on_echo(20, good)
    longer = search.take_probe(20)
    assert longer
    assert len(longer) > BASE
    assert not search.on_echo(20, good)
    assert search.on_echo(40, echo_of(longer) or b"")
    assert search.mtu_bytes == len(longer)


def test_an_echo_is_shorter_than_any_probe_and_only_for_one() -> None:
    probe = bytes((PROBE,)) + bytes(LEAST - 1)
    assert len(echo_of(probe) or bytes(LEAST)) < 12
    assert echo_of(probe[:-1]) is None
    assert echo_of(b"\0" + probe) is None
    assert echo_of(b"") is None


@given(
    st.integers(512, 65_507),
    st.lists(
        st.tuples(st.sampled_from(["use", "probe", "echo", "garbage", "long"]), st.integers(0, 70_000)), max_size=60
    ),
)
def test_no_order_of_events_brings_it_out_of_bounds(most: int, steps: list[tuple[str, int]]) -> None:
    search, now_ms, last = MtuSearch(Random(1), most), 0.0, b""
    for kind, number in steps:
        now_ms += number / 10
        if kind == "use":
            search.on_used(now_ms, min(number, search.mtu_bytes))
        elif kind == "probe":
            last = search.take_probe(now_ms) or last
        elif kind == "echo":
            search.on_echo(now_ms, echo_of(last) or b"")
        elif kind == "garbage":
            search.on_echo(now_ms, Random(number).randbytes(number % 20))
        else:
            search.on_too_long(now_ms, number)
        assert min(BASE, most) <= search.mtu_bytes <= most
        assert len(last) <= most
