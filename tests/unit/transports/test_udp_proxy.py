"""The proxy that loses, delays, doubles and reorders as it is told; and UDP links through it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from offgrid_tools.emulators.udp_proxy import Conditions, UdpProxy, Way, main, parse_conditions
from offgrid_transports import mtu_search, udp
from offgrid_transports.conformance.live import End, Live
from offgrid_transports.registry import TransportRegistry


def fates(conditions: Conditions, count: int = 2000, seed: int = 1, length: int = 1000) -> list[tuple[float, ...]]:
    way = Way(conditions, Random(seed))
    return [way.take(float(now_ms), length) for now_ms in range(count)]


def test_faults_are_seeded_and_as_frequent_as_asked() -> None:
    bad = Conditions(loss=0.2, duplicate=0.1, reorder=0.05, delay_ms=10, jitter_ms=3)
    got = fates(bad)
    assert got == fates(bad)
    assert got != fates(bad, seed=2)
    assert 0.17 < sum(not due for due in got) / 2000 < 0.23
    assert 0.07 < sum(len(due) == 2 for due in got) / sum(bool(due) for due in got) < 0.13


def test_jitter_keeps_the_order_and_reordering_does_not() -> None:
    def dues(conditions: Conditions) -> list[float]:
        return [due for fate in fates(conditions) for due in fate]

    jittered = dues(Conditions(delay_ms=10, jitter_ms=20))
    assert jittered == sorted(jittered)
    assert all(10 <= due - now_ms <= 30 for now_ms, due in enumerate(jittered))
    reordered = dues(Conditions(delay_ms=10, reorder=0.1))
    late = [due - now_ms for now_ms, due in enumerate(reordered) if due - now_ms > 10]
    assert set(late) == {15}
    assert 150 < len(late) < 250


def test_a_rate_spreads_and_a_full_buffer_drops() -> None:
    way = Way(Conditions(rate=100, buffer=5000, delay_ms=1), Random(1))
    assert [way.take(0, 1000) for _ in range(7)] == [(11,), (21,), (31,), (41,), (51,), (), ()]
    assert way.take(30, 1000) == (61,)
    assert (way.lost, Way(Conditions(mtu=900), Random(1)).take(0, 901)) == (2, ())


@pytest.mark.parametrize("word", ["loss", "loss=", "loss=2", "lost=0.1", "delay_ms=-1", "delay_ms=nan", "rate=inf"])
def test_a_bad_condition_says_what_is_allowed(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        parse_conditions([word])
    assert main(["127.0.0.1:0", "127.0.0.1:9", word]) == 2
    assert "allowed" in capsys.readouterr().err


def test_conditions_are_read_as_they_are_written() -> None:
    assert parse_conditions(["loss=0.05", "delay_ms=10", "seed=7"]) == (Conditions(loss=0.05, delay_ms=10), 7)


@pytest.fixture
def live() -> Iterator[Live]:
    lives = Live(TransportRegistry({"udp": udp.open_transport}))
    yield lives
    lives.close()
    assert lives.faults == []


def through(live: Live, conditions: Conditions) -> tuple[UdpProxy, End, End, str]:
    """A proxy, an end before it and one behind it, and where the first one sends."""
    behind, before = live.open("udp:127.0.0.1:0"), live.open("udp:127.0.0.1:0")
    target = str(behind.transport.figures()["listens"])
    proxy = live.call(lambda: UdpProxy("127.0.0.1:0", target, conditions))
    return proxy, before, behind, proxy.address


def test_datagrams_go_there_and_back_for_each_client_apart(live: Live) -> None:
    proxy, one, behind, to = through(live, Conditions(delay_ms=1))
    two = live.open("udp:127.0.0.1:0")
    one.send(to, b"one")
    two.send(to, b"two")
    assert live.waits(lambda: len(behind.heard) == 2)
    for address, frame in behind.heard:
        behind.send(address, b"back " + frame)
    assert live.waits(lambda: one.heard and two.heard)
    assert (one.heard, two.heard) == ([(to, b"back one")], [(to, b"back two")])
    live.call(proxy.close)


def test_a_link_finds_what_the_path_takes_and_when_it_takes_less(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtu_search, "CONFIRM_MS", 10.0)
    monkeypatch.setattr(mtu_search, "TIMEOUT_MS_MIN", 5.0)
    monkeypatch.setattr(mtu_search, "TIMEOUT_MS_FIRST", 5.0)
    proxy, one, _, to = through(live, Conditions(mtu=1460))
    one.send(to, b"x")
    assert live.waits(lambda: one.transport.mtu_bytes(to) == 1452)
    proxy.set(Conditions(mtu=1300))

    def narrower() -> bool:
        one.transport.send(to, bytes(one.transport.mtu_bytes(to)))
        return one.transport.mtu_bytes(to) == 1280

    assert live.waits(narrower)
    assert int(one.transport.figures()["mtu_fallen"]) >= 1
    live.call(proxy.close)
