"""An object that rots at its owner before enough have acked: found as it is brought to hosts, made anew or said."""

from __future__ import annotations

import pytest
from bulk_world import Letter, Node, World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.protocol.objects.outbox import ACCEPTED, DAMAGED, DURABLE
from offgrid_node.services.stream import Stream

DATA = bytes(range(256)) * 4
CODES = pytest.mark.parametrize("code", [None, (2, 4)])
COMING = frozenset({"OpenReplica", "PutReplica"})


class Putting:
    """DATA, of which only the first hosts take anything, as copies or as 2 of 4 shards; 3.0 are required."""

    def __init__(self, willing: int, code: tuple[int, int] | None) -> None:
        self.world = World(4)
        self.owner, self.willing = self.world.owner, self.world.hosts[:willing]
        self.world.bend = self._refuse
        self.object_id = self.owner.put(DATA, name="data", required_milli=3_000, code=code).object_id
        self.pass_ms(3_000)
        assert self.info.state == ACCEPTED

    def _refuse(self, letter: Letter) -> Fault | None:
        willing = {host.node_id for host in self.willing}
        return Unavailable("not now") if letter.short in COMING and letter.target not in willing else None

    @property
    def info(self) -> objects_pb2.Object:
        return self.owner.info(self.object_id)

    def pass_ms(self, span_ms: int) -> None:
        for _ in range(0, span_ms, 1_000):
            self.world.pass_ms(1_000)

    def rot(self) -> None:
        kept = self.owner.blobs._kept[self.object_id].data
        kept[:] = bytes(byte ^ 0x10 for byte in kept)

    def take_all(self) -> None:
        self.willing = self.world.hosts
        for host in self.world.hosts:
            self._comes_back(host)

    def _comes_back(self, host: Node) -> None:
        """What failed there before is forgiven."""
        host.restart()
        self.world.settle()


@CODES
def test_who_has_acked_gives_it_back_and_it_becomes_durable(code: tuple[int, int] | None) -> None:
    putting = Putting(2, code)
    assert putting.info.acks
    putting.rot()
    putting.take_all()
    putting.pass_ms(120_000)
    assert putting.info.state == DURABLE
    assert putting.owner.read("data") == DATA


@CODES
def test_where_nobody_has_it_is_said_and_brought_to_nobody(code: tuple[int, int] | None) -> None:
    putting = Putting(0, code)
    putting.rot()
    stream = putting.owner.begin("WatchObject", objects_pb2.WatchObjectRequest(object=putting.object_id))
    assert isinstance(stream, Stream)
    putting.take_all()
    putting.pass_ms(5_000)
    made = putting.info
    assert made.state == DAMAGED
    assert "this node's copy is damaged" in made.trouble
    assert stream.ended, "nobody waits for it any longer"
    assert [message.object.state for message in stream.take()][-1] == DAMAGED
    putting.world.log.clear()
    putting.pass_ms(120_000)
    assert COMING.isdisjoint(putting.world.log)
    putting.owner.restart()
    putting.pass_ms(10_000)
    assert putting.info.state == DAMAGED
    assert all(not list(host.blobs.names()) for host in putting.world.hosts)
