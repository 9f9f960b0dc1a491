"""On a radio channel bodies travel packed, as far as both sides are known to understand it; elsewhere as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lora_world import World
from test_packing import ANSWER, with_dictionary
from virtual_link import Node, VirtualTime, network

from offgrid_tools.emulators.clock import VirtualClock, after_ms, now_ms
from offgrid_transports import peers
from offgrid_transports.calls import End
from offgrid_transports.folding import fold
from offgrid_transports.handshake import HELLO_BYTES, WELCOME_BYTES
from offgrid_transports.session import Session

SETTLED_S = 1.0


class Air:
    """The channel's time, as nodes are given it."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    @property
    def now_ms(self) -> int:
        return now_ms(self._clock)

    def schedule(self, delay_ms: int, fn: Callable[[], object]) -> None:
        after_ms(self._clock, delay_ms, fn)


def on_air() -> tuple[World, Node, Node]:
    """Two nodes on a LoRa channel; the second answers with what it was asked, and `ANSWER`."""
    world = World()
    links = [world.rnode(name) for name in ("a", "b")]
    world.run(SETTLED_S)
    air = Air(world.clock)
    asking = Node(air, links[0], "a")
    answering = Node(air, links[1], "b", handle=lambda request: ANSWER + request.body)
    asking.knows("b")
    answering.knows("a")
    return world, asking, answering


def bytes_on_air(world: World, asking: Node, body: bytes) -> int:
    """Of all frames that one call takes."""
    before = world.channel.counts.bytes
    asking.call("b", body)
    world.run(10)
    assert (asking.replies[-1].end, asking.replies[-1].body) == (End.OK, ANSWER + body)
    return world.channel.counts.bytes - before


@with_dictionary
def test_calls_take_less_air_once_both_have_shown_the_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    world, asking, _ = on_air()
    first = bytes_on_air(world, asking, ANSWER)
    second = bytes_on_air(world, asking, ANSWER)
    monkeypatch.setattr(Session, "shorten", lambda self, body: (body, False))
    plain = bytes_on_air(world, asking, ANSWER)
    assert second < 0.75 * plain
    assert first - second > HELLO_BYTES + WELCOME_BYTES, "the first request was folded, no more"


def test_who_has_no_dictionary_is_told_nothing_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    world, asking, answering = on_air()
    monkeypatch.setattr(peers, "NEWEST", 0)
    for _ in range(3):
        bytes_on_air(world, asking, ANSWER)
    session = answering.endpoint.session_of("a")
    assert session is not None
    assert session.shorten(ANSWER) == (bytes(1) + fold(ANSWER), True)


def test_what_cannot_be_read_is_refused_and_its_call_not_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    world, asking, answering = on_air()
    bytes_on_air(world, asking, b"")
    monkeypatch.setattr(Session, "shorten", lambda self, body: (b"\xff" + body, True))
    asking.call("b", ANSWER)
    world.run(10)
    assert asking.replies[-1].end is End.REFUSED
    assert asking.replies[-1].detail == "the peer says: malformed"
    assert len(answering.requests) == 1


def test_links_that_have_time_carry_bodies_as_they_are() -> None:
    time = VirtualTime()
    net = network(time)
    asking, answering = Node(time, net.attach("a"), "a"), Node(time, net.attach("b"), "b", handle=lambda _: ANSWER)
    asking.knows("b")
    asking.call("b", ANSWER)
    time.run(1_000)
    assert asking.replies[0].body == ANSWER
    session = answering.endpoint.session_of("a")
    assert session is not None
    assert session.shorten(ANSWER) == (ANSWER, False)
