"""The door on links: who was invited is told how to say hello; others learn nothing."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from offgrid_node.keys import NodeKey, open_sealed, seal
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.mesh.token import InviteToken
from offgrid_node.services.knocking import APART_MS, Door, open_door
from offgrid_node.services.packet_links import static_of
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.knocks import read_door, read_knock, write_knock
from offgrid_transports.memory import MemoryNetwork
from offgrid_transports.transport import BROADCAST

TOKEN = InviteToken(b"mesh tag", b"sixteen bytes...")
MESH_ID, PUBLIC = base32(bytes(range(20))), bytes(range(32))


class World:
    """An inviter with a door, and somebody on the same link."""

    def __init__(self) -> None:
        self.now_ms, self.heard = 0, list[bytes]()
        todo = self._todo = list[object]()
        net = MemoryNetwork(Random(1), lambda delay_ms, fn: todo.append(fn))
        stamps = itertools.count()
        own = Own(static_of(NodeKey(bytes(32)).exchange_secret()), bytes(32))
        self.endpoint = Endpoint(
            own, lambda public: None, lambda: self.now_ms, net.schedule, Random(1), lambda: next(stamps)
        )
        self.endpoint.attach(net.attach("inviter"))
        Door(self.endpoint, lambda: MESH_ID, PUBLIC, {TOKEN.invite_id: TOKEN.secret}.get, seal)
        self.guest = net.attach("guest")
        self.guest.on_frame = lambda address, frame: self.heard.append(frame)

    def say(self, frame: bytes) -> list[bytes]:
        """What the guest hears then."""
        self.heard.clear()
        self.guest.send(BROADCAST, frame)
        while self._todo:
            self._todo.pop(0)()  # type: ignore[operator]
        return list(self.heard)


def test_who_knocks_with_an_invite_is_told_the_mesh_and_the_inviters_key() -> None:
    (frame,) = World().say(write_knock(TOKEN.invite_id))
    sealed = read_door(TOKEN.invite_id, frame)
    assert sealed is not None
    assert open_door(TOKEN.secret, TOKEN.invite_id, sealed, open_sealed) == (MESH_ID, PUBLIC)
    assert read_door(b"another!", frame) is None
    with pytest.raises(PeerFault, match="secret"):
        open_door(b"another secret..", TOKEN.invite_id, sealed, open_sealed)


def test_who_knocks_with_anything_else_hears_nothing() -> None:
    world = World()
    for frame in (write_knock(b"another!"), write_knock(TOKEN.invite_id)[:-1], write_knock(TOKEN.invite_id) + b"x"):
        assert world.say(frame) == []
    assert read_knock(b"") is None


def test_a_knock_is_answered_now_and_then_however_often_it_comes() -> None:
    world, knock = World(), write_knock(TOKEN.invite_id)
    assert len(world.say(knock)) == 1
    assert world.say(knock) == []
    world.now_ms += APART_MS
    assert len(world.say(knock)) == 1
