"""The host's part: it vouches for what it holds, under the highest epoch only, and for nothing else."""

from __future__ import annotations

import itertools
from random import Random

import msgspec
import pytest
from google.protobuf.message import Message

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Asked, DropBlob, Effect, Put, Record, Reply
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.commands import KeepReplica
from offgrid_node.protocol.objects.inventory import NOTHING_KEPT, Holding, counted, inventory_key, summary_of
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.manifest import COPY, REED_SOLOMON, STRIPE_BYTES, Manifest
from offgrid_node.protocol.objects.settings import ObjectsSettings
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.tables import (
    KEPT,
    KEPT_BYTES,
    REPLICAS,
    number_of,
    quorum_id_of,
    replica_key,
    replica_prefix,
)
from offgrid_node.protocol.quorum.records import Ack, Epoch, Member, sign_epoch, verify_ack
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import SimSigner, sim_verify

SALT = b"s" * 16
OWNER, OTHER, HOST = SimSigner("owner"), SimSigner("other"), SimSigner("host")
POSSESSION = b"p" * 32


def body_of(owner: SimSigner = OWNER, root: bytes = b"r" * 32) -> Manifest:
    return Manifest(owner.node_id, bytes(16), 10, STRIPE_BYTES, 1, COPY, (root,), 1)


def epoch_of(body: Manifest, number: int = 1, **change: object) -> Epoch:
    epoch = Epoch(
        body.owner, quorum_id_of(body.object_id), number, body.subject, body.sealed_bytes, 1_000,
        (Member(HOST.node_id, 1_000),),
    )  # fmt: skip
    return msgspec.structs.replace(epoch, **change)  # type: ignore[arg-type]


class Keeper:
    """A host's machine over its store."""

    def __init__(self) -> None:
        self.store, self.now_us = MemoryStore(), 5
        self.effects: list[Effect] = []
        self.restart()

    def restart(self) -> None:
        self.machine = ObjectsMachine(ObjectsSettings(HOST, SALT))
        self.machine.load(self.store, Now(0, 0))

    def keep(self, body: Manifest, epoch: Epoch, owner: SimSigner = OWNER) -> Message | Fault:
        manifest = objects_pb2.Manifest(signed=common_pb2.Signed(body=body.encode()))
        command = KeepReplica(manifest, body, sign_epoch(epoch, owner, SALT), epoch, POSSESSION)
        self.now_us += 1
        effects = self.machine.step([Asked(1, owner.node_id, command)], Now(self.now_us, self.now_us), Random(1))
        self.effects += effects
        rows: dict[tuple[str, bytes], bytes | None] = {(e.table, e.key): e.value for e in effects if isinstance(e, Put)}
        self.store.commit(Batch(writes=rows))
        return next(effect.outcome for effect in effects if isinstance(effect, Reply))

    def row(self, body: Manifest) -> objects_pb2.ReplicaRow | None:
        value = self.store.get(REPLICAS, replica_key(body.object_id, body.owner))
        return objects_pb2.ReplicaRow.FromString(value) if value is not None else None


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


def ack_in(outcome: Message | Fault) -> Ack:
    assert isinstance(outcome, objects_pb2.CommitReplicaResponse), outcome
    return verify_ack(outcome.ack, [HOST.public_key], sim_verify, SALT)


def reason(outcome: Message | Fault) -> str:
    assert isinstance(outcome, Fault)
    return outcome.reason


def test_it_vouches_for_what_it_holds_and_keeps_what_it_said(keeper: Keeper) -> None:
    body = body_of()
    ack = ack_in(keeper.keep(body, epoch_of(body)))
    assert ack == Ack(
        HOST.node_id, OWNER.node_id, quorum_id_of(body.object_id), 1, body.subject, body.sealed_bytes, POSSESSION
    )
    row = keeper.row(body)
    assert row is not None
    assert Ack.decode(row.ack.body) == ack
    assert Epoch.decode(row.epoch.body) == epoch_of(body)
    assert row.stored_us == 6


@pytest.mark.parametrize("numbers", list(itertools.product([1, 2, 3], repeat=3)))
def test_an_epoch_once_passed_is_never_signed_again(keeper: Keeper, numbers: tuple[int, ...]) -> None:
    body, highest, said = body_of(), 0, {}
    for number in numbers:
        outcome = keeper.keep(body, epoch_of(body, number))
        keeper.restart()
        if number < highest:
            assert reason(outcome) == "EpochOver"
        else:
            assert ack_in(outcome).epoch == number
            assert said.setdefault(number, outcome) == outcome, "the same ack each time"
            highest = number
    row = keeper.row(body)
    assert row is not None
    assert Ack.decode(row.ack.body).epoch == highest
    assert row.stored_us == 6, "it has been here since the first"


def test_the_journal_says_once_that_it_is_kept(keeper: Keeper) -> None:
    body = body_of()
    for number in (1, 1, 2):
        keeper.keep(body, epoch_of(body, number))
    events = [effect.event.object for effect in keeper.effects if isinstance(effect, Record)]
    assert [(e.outcome, e.object_id, e.owner, e.key) for e in events] == [
        ("replica kept", body.object_id, OWNER.node_id, "")
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"owner": OTHER.node_id},
        {"quorum_id": "object:o-other"},
        {"subject": bytes(32)},
        {"size_bytes": 1},
    ],
)
def test_an_epoch_of_something_else_is_refused(keeper: Keeper, change: dict[str, object]) -> None:
    body = body_of()
    assert reason(keeper.keep(body, epoch_of(body, **change))) == "WrongEpoch"
    assert keeper.row(body) is None


def coded_of(shards: int = 3) -> Manifest:
    return msgspec.structs.replace(
        body_of(), k=2, codec=REED_SOLOMON, roots=tuple(bytes([n]) * 32 for n in range(shards))
    )


def laid(body: Manifest, number: int, *mine: int, needed: int = 2, n: int = 3) -> Epoch:
    members = (Member(OTHER.node_id, 1_000), Member(HOST.node_id, 1_000))
    layout = tuple(int(shard in mine) for shard in range(n))
    return epoch_of(body, number, members=members, needed=needed, layout=layout, sinces=(0,) * n)


def test_shards_come_and_go_with_the_epochs(keeper: Keeper) -> None:
    body = coded_of()
    for number, mine in ((1, (0, 1)), (2, (1, 2)), (3, (2,)), (3, (2,))):
        assert ack_in(keeper.keep(body, laid(body, number, *mine))).epoch == number
        kept = number_of(keeper.store.get(KEPT_BYTES, OWNER.node_id.encode()) or b"")
        assert kept == len(mine) * body.shard_bytes
    dropped = [effect.name for effect in keeper.effects if isinstance(effect, DropBlob)]
    assert dropped == [blob_name(body, 0), blob_name(body, 1)]


@pytest.mark.parametrize(
    ("body", "epoch"),
    [
        (coded_of(), {"needed": 3}),
        (coded_of(), {"n": 4}),
        (body_of(), {"needed": 1, "n": 1}),
        (body_of(), {"needed": 2}),
    ],
)
def test_an_epoch_of_another_code_is_refused(keeper: Keeper, body: Manifest, epoch: dict[str, int]) -> None:
    assert reason(keeper.keep(body, laid(body, 1, 0, **epoch))) == "WrongEpoch"
    assert reason(keeper.keep(coded_of(), epoch_of(coded_of()))) == "WrongEpoch", "a copy of what is coded"


def test_an_epoch_is_acked_though_the_inventorys_row_is_damaged(keeper: Keeper) -> None:
    body = coded_of()
    ack_in(keeper.keep(body, laid(body, 1, 0, 1)))
    keeper.store.damage(KEPT, inventory_key(body.owner, body.object_id))
    ack_in(keeper.keep(body, laid(body, 2, 1, 2)))
    assert keeper.store.get(KEPT, inventory_key(body.owner, body.object_id)) == bytes((1, 2))
    assert summary_of(keeper.store, KEPT, body.owner) == counted(NOTHING_KEPT, Holding(body.object_id, (1, 2)), 1)


def test_who_is_to_hold_no_shard_vouches_for_none(keeper: Keeper) -> None:
    body = coded_of()
    assert reason(keeper.keep(body, laid(body, 1))) == "NoMember"
    assert keeper.row(body) is None


def test_an_epoch_that_does_not_name_it_is_refused(keeper: Keeper) -> None:
    body = body_of()
    assert reason(keeper.keep(body, epoch_of(body, members=(Member(OTHER.node_id, 1),)))) == "NoMember"


def test_owners_of_the_same_bytes_have_rows_and_fences_of_their_own(keeper: Keeper) -> None:
    mine, theirs = body_of(), body_of(OTHER)
    assert mine.object_id == theirs.object_id
    keeper.keep(mine, epoch_of(mine, 5))
    assert ack_in(keeper.keep(theirs, epoch_of(theirs, 1), OTHER)).epoch == 1
    found = list(keeper.store.scan(REPLICAS, prefix=replica_prefix(mine.object_id)))
    assert len(found) == 2
