"""A session goes to where its peer speaks from, once an echo has come back from there (RFC 9000, 9.3)."""

from __future__ import annotations

from random import Random

import pytest
from virtual_link import Node, VirtualTime

from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.steering import FOLLOWED_MAX

AMPLIFIED_MAX = 3


class Street:
    """A client and a server on one link; somebody on it hears all that the client says, sooner than the server does."""

    def __init__(self, *, loss: float = 0.0, seed: int = 1) -> None:
        self.world = VirtualTime()
        self.net = MemoryNetwork(Random(seed), self.world.schedule, faults=Faults(delay_ms=20))
        self.client = Node(self.world, self.net.attach("client"), "client")
        self.server = Node(
            self.world, self.net.attach("server"), "server", handle=lambda request: b"re:" + request.body
        )
        self.client.knows("server")
        self.forwarded_bytes = self.to_mallory_bytes = 0
        self.forwards = False
        self.net.attach("mallory").on_frame = self._on_mallory
        carry = self.net.carry

        def overheard(source: str, target: str, frame: bytes) -> None:
            if self.forwards and source == "client":
                self.forwarded_bytes += len(frame)
                self.world.schedule(1, lambda: self.server.end.on_frame("mallory", frame))
            carry(source, target, frame)

        self.net.carry = overheard  # type: ignore[method-assign]
        self.call(b"warm")
        self.net.faults = Faults(loss=loss, delay_ms=20)

    def _on_mallory(self, address: str, frame: bytes) -> None:
        self.to_mallory_bytes += len(frame)

    def call(self, body: bytes, ms: int = 2_000) -> list[bytes]:
        before = len(self.client.replies)
        self.client.call("server", body)
        self.world.run(self.world.now_ms + ms)
        return [reply.body for reply in self.client.replies[before:]]

    def moves_to(self, address: str) -> None:
        """As behind a translator of addresses that was started anew."""
        end = self.client.end
        self.net.detach("client")
        self.net._ends[address] = end  # type: ignore[assignment]
        end.address = address  # type: ignore[attr-defined]

    @property
    def client_is_at(self) -> str:
        session = self.server.endpoint.session_of("client")
        assert session is not None
        return session.path.address


def test_a_copy_that_somebody_forwards_sooner_takes_no_session_along() -> None:
    street = Street()
    street.forwards = True
    for number in range(20):
        body = b"%d" % number
        assert street.call(body, ms=50) == [b"re:" + body]
        assert street.client_is_at == "client"
    street.world.run(street.world.now_ms + 20_000)
    assert 0 < street.to_mallory_bytes <= AMPLIFIED_MAX * street.forwarded_bytes


def test_what_came_over_a_path_that_nothing_has_proved_proves_no_road() -> None:
    street = Street()
    street.forwards = True
    street.call(b"x")
    proved = {road.path.address for road in street.server.endpoint.roads("client") if road.proved}
    assert proved == {"client"}


def test_copies_from_many_places_have_only_so_many_asked_at_once() -> None:
    street, places = Street(), set[str]()
    carry = street.net.carry

    def copied(source: str, target: str, frame: bytes) -> None:
        if source == "client":
            place = f"place {len(places_seen)}"
            places_seen.append(place)
            street.server.end.on_frame(place, frame)
        elif target.startswith("place"):
            places.add(target)
        carry(source, target, frame)

    places_seen: list[str] = []
    street.net.carry = copied  # type: ignore[method-assign]
    for number in range(12):
        street.call(b"%d" % number, ms=50)
    assert len(places_seen) > FOLLOWED_MAX
    assert len(places) == FOLLOWED_MAX
    assert street.client_is_at == "client"


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_one_who_has_moved_is_answered_there(loss: float) -> None:
    for seed in range(5):
        street = Street(loss=loss, seed=seed)
        street.moves_to("elsewhere")
        assert street.call(b"from there", ms=20_000) == [b"re:from there"]
        assert street.client_is_at == "elsewhere"


def test_one_who_moves_on_and_on_is_found_again_each_time() -> None:
    street = Street()
    for number in range(12):
        street.moves_to(place := f"place {number}")
        assert street.call(b"%d" % number, ms=5_000) == [b"re:%d" % number]
        assert street.client_is_at == place


def test_a_welcome_that_comes_from_elsewhere_binds_nobody_to_there() -> None:
    world = VirtualTime()
    net = MemoryNetwork(Random(1), world.schedule, faults=Faults(delay_ms=20))
    client = Node(world, net.attach("client"), "client")
    server = Node(world, net.attach("server"), "server", handle=lambda request: b"re:" + request.body)
    client.knows("server")
    carry = net.carry

    def overheard(source: str, target: str, frame: bytes) -> None:
        if source == "server":
            world.schedule(1, lambda: client.end.on_frame("mallory", frame))
        carry(source, target, frame)

    net.carry = overheard  # type: ignore[method-assign]
    client.call("server", b"hello")
    world.run(5_000)
    session = client.endpoint.session_of("server")
    assert session is not None
    assert session.path.address == "server"
    assert [reply.body for reply in client.replies] == [b"re:hello"]
    assert server.requests
