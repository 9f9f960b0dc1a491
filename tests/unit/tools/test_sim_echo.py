"""The simulator's road that brings transfers once more: each whole, and in its order."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf.message import Message

from offgrid.pieces import Piece
from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.protocol.objects.manifest import COPY, STRIPE_BYTES, Manifest
from offgrid_tools.sim import echo
from offgrid_tools.sim.crypto import SimSigner
from offgrid_tools.sim.echo import Echo
from offgrid_tools.sim.engine import SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.network import Network

OWNER, HOST = SimSigner("owner").node_id, SimSigner("host").node_id
BODIES = [Manifest(OWNER, bytes(16), 10, STRIPE_BYTES, 1, COPY, (bytes([root]) * 32,), 1) for root in (1, 2)]
MANIFESTS = [objects_pb2.Manifest(signed=common_pb2.Signed(body=body.encode())) for body in BODIES]


class Road:
    """Notes what is said again, and answers all of it as the host would."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.ears: dict[type[Message], Callable[[str, str, Message], None]] = {}
        self.answer: Message | Fault = objects_pb2.CommitReplicaResponse()

    def overhear(self, kind: type[Message], ear: Callable[[str, str, Message], None]) -> None:
        self.ears[kind] = ear

    def hear(self, *requests: Message) -> None:
        for request in requests:
            self.ears[type(request)](OWNER, HOST, request)

    def call(self, owner: str, host: str, method: str, request: Message, *rest: Any, honest: bool) -> None:
        assert not honest
        self.said.append(request)
        rest[-1](self.answer)


class Late:
    """An echo of everything, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(echo, "AGAIN_CHANCE", 1.0)
        monkeypatch.setattr(echo, "LATE_US", echo.LATE_US[:1])
        self.engine, self.road = Engine(1), Road()
        self.met = {"late transfers refused": 0}
        monitor = SimpleNamespace(met=SimpleNamespace(counts=self.met))
        Echo(cast(Any, SimpleNamespace(engine=self.engine, network=self.road, monitor=monitor)))


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Late:
    return Late(monkeypatch)


def transfer(number: int) -> list[Message]:
    manifest, object_id = MANIFESTS[number], BODIES[number].object_id
    return [
        objects_pb2.OpenReplicaRequest(manifest=manifest),
        objects_pb2.WriteReplicaRequest(object_id=object_id, data=bytes([number])),
        objects_pb2.CommitReplicaRequest(object_id=object_id, manifest=manifest),
    ]


def test_two_transfers_that_mingle_come_again_each_whole(late: Late) -> None:
    first, second = transfer(0), transfer(1)
    late.road.hear(first[0], second[0], first[1], second[1], first[2], second[2])
    assert late.road.said == []
    late.engine.run_until(1_000 * SECOND)
    assert late.road.said in ([*first, *second], [*second, *first])


def test_what_came_in_one_call_comes_again_in_one(late: Late) -> None:
    put = objects_pb2.PutReplicaRequest(manifest=MANIFESTS[0], shards=[b"all"])
    late.road.hear(put)
    late.engine.run_until(1_000 * SECOND)
    assert late.road.said == [put]


@pytest.mark.parametrize(("reason", "counted"), [("EpochOver", 1), ("ReplicaDropped", 1), ("StorageOff", 0)])
def test_what_is_over_by_then_is_counted(late: Late, reason: str, counted: int) -> None:
    late.road.answer = FailedPrecondition("no", reason=reason)
    late.road.hear(objects_pb2.PutReplicaRequest(manifest=MANIFESTS[0]))
    late.engine.run_until(1_000 * SECOND)
    assert late.met["late transfers refused"] == counted


def test_who_listens_hears_what_goes_in_parts_as_any_message() -> None:
    network, heard = Network(Engine(1), Monitor(str), str), list[Message]()
    network.overhear(objects_pb2.WriteReplicaRequest, lambda owner, host, request: heard.append(request))
    piece = Piece(objects_pb2.WriteReplicaRequest(object_id=BODIES[0].object_id, offset=7), b"bytes")
    network.call(OWNER, HOST, "offgrid.v1.ObjectService/WriteReplica", piece, 1_000, lambda outcome: None)
    assert heard == [objects_pb2.WriteReplicaRequest(object_id=BODIES[0].object_id, offset=7, data=b"bytes")]
