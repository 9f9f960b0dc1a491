"""The door on links: who was invited is told how to say hello; others learn nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from random import Random

import pytest

from offgrid_node.keys import NodeKey, open_sealed, seal
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.mesh.token import InviteToken
from offgrid_node.services.knocking import APART_MS, APART_MS_MAX, CALM_MS, DOOR_SHARE, Door, open_door
from offgrid_node.services.packet_links import static_of
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.knocks import read_door, read_knock, write_knock
from offgrid_transports.memory import MemoryNetwork
from offgrid_transports.transport import BROADCAST, Priority

TOKEN = InviteToken(b"mesh tag", b"sixteen bytes...")
KNOCK = write_knock(TOKEN.invite_id, TOKEN.secret)
MESH_ID, PUBLIC = base32(bytes(range(20))), bytes(range(32))


class World:
    """An inviter with a door, and somebody on the same link."""

    def __init__(self, invites: Mapping[bytes, bytes] = {TOKEN.invite_id: TOKEN.secret}, bps: int = 0) -> None:
        self.now_ms, self.heard = 0, list[bytes]()
        todo = self._todo = list[object]()
        net = MemoryNetwork(Random(1), lambda delay_ms, fn: todo.append(fn), bitrate_bps=bps)
        stamps = itertools.count()
        own = Own(static_of(NodeKey(bytes(32)).exchange_secret()), bytes(32))
        self.endpoint = Endpoint(
            own, lambda public: None, lambda: self.now_ms, net.schedule, Random(1), lambda: next(stamps)
        )
        self.link = net.attach("inviter")
        self.endpoint.attach(self.link)
        Door(self.endpoint, lambda: MESH_ID, PUBLIC, invites.get, seal)
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
    (frame,) = World().say(KNOCK)
    sealed = read_door(TOKEN.invite_id, frame)
    assert sealed is not None
    assert open_door(TOKEN.secret, TOKEN.invite_id, sealed, open_sealed) == (MESH_ID, PUBLIC)
    assert read_door(b"another!", frame) is None
    with pytest.raises(PeerFault, match="secret"):
        open_door(b"another secret..", TOKEN.invite_id, sealed, open_sealed)


def test_who_knocks_with_anything_else_hears_nothing() -> None:
    world = World()
    unknown, forged = write_knock(b"another!", TOKEN.secret), write_knock(TOKEN.invite_id, b"another secret..")
    for frame in (unknown, forged, KNOCK[:-1], KNOCK + b"x", KNOCK[:9]):
        assert world.say(frame) == []
    assert read_knock(b"") is None


def test_a_knock_is_answered_now_and_then_however_often_it_comes() -> None:
    world, answered = World(), list[int]()
    for _ in range(1_000):
        if world.say(KNOCK):
            answered.append(world.now_ms)
        world.now_ms += 1_000
    apart = [later - earlier for earlier, later in itertools.pairwise(answered)]
    doubling = [min(APART_MS_MAX, APART_MS << place) for place in range(len(apart))]
    assert apart == doubling
    assert APART_MS_MAX in apart
    world.now_ms += CALM_MS
    assert world.say(KNOCK)
    world.now_ms += APART_MS
    assert world.say(KNOCK), "who comes back later is no nuisance"


def test_all_answers_together_take_a_part_of_a_slow_links_time_and_nothing_of_its_reserve() -> None:
    secrets = {bytes([number]) * 8: bytes([number]) * 16 for number in range(100)}
    world, knocks = World(secrets, bps=5_000), [write_knock(*each) for each in secrets.items()]
    for _ in range(200):
        for knock in knocks:
            world.say(knock)
        world.now_ms += 1_000
    spent = world.endpoint.spending(world.link).last_hour(world.now_ms)
    assert {priority for _, priority in spent} == {Priority.JOB}
    assert 200_000 / DOOR_SHARE / 2 < sum(spent.values()) <= 200_000 / DOOR_SHARE + world.link.airtime_ms(100)
