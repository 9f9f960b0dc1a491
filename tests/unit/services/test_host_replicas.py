"""What a host keeps: only what its owner signed, all of it, and only bytes that are the manifest's.

Long, since it is the whole specification of one machine part, case by case, over one bench.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bulk_world import SALT, STRIPE, Node, World
from msgspec.structs import replace

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.keys.stripes import StripeSealer
from offgrid_node.protocol.errors import (
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    NotFound,
    PeerFault,
    Unavailable,
)
from offgrid_node.protocol.objects.hashing import Possession
from offgrid_node.protocol.objects.manifest import (
    MANIFEST_KIND,
    REED_SOLOMON,
    TAG_BYTES,
    Manifest,
    object_id_of,
    shard_root,
    stripe_digest,
)
from offgrid_node.protocol.objects.small import SMALL, SMALL_BYTES_MAX, small_key
from offgrid_node.protocol.objects.tables import REPLICAS, quorum_id_of, replica_key
from offgrid_node.protocol.quorum.records import ACK_KIND, EPOCH_KIND, Ack, Epoch, Member
from offgrid_node.protocol.signing import digest_of
from offgrid_node.services.objects.bounds import ROW_BYTES_MIN, SMALL_ROWS_MAX, WRAPS_MAX
from offgrid_node.services.objects.incoming import IDLE_MS_MAX, OPEN_PER_OWNER_MAX, STAGED_BYTES_PER_OWNER_MAX, Claim
from offgrid_node.services.objects.replicas import PIECE_BYTES_MAX, Replicas
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import SimSigner, sim_verify

Open, Write, Commit, Read, Put = (
    objects_pb2.OpenReplicaRequest,
    objects_pb2.WriteReplicaRequest,
    objects_pb2.CommitReplicaRequest,
    objects_pb2.ReadReplicaRequest,
    objects_pb2.PutReplicaRequest,
)


class Parcel:
    """A sealed object of the owner's, with everything a host wants to see; `changes` make it another one."""

    def __init__(self, world: World, data: bytes = b"x" * 150, *, nonce: bytes = bytes(16), **changes: Any) -> None:
        self.world, self.owner, self.host = world, world.owner, world.hosts[0]
        sealer = StripeSealer(b"k" * 32, nonce, STRIPE)
        stripes = [*sealer.feed(data), sealer.finish()]
        self.sealed = b"".join(stripes)
        root = shard_root([stripe_digest(SALT, stripe) for stripe in stripes])
        body = Manifest(self.owner.node_id, nonce, len(data), STRIPE, 1, 0, (root,), 7)
        self.body = replace(body, **changes)
        self.object_id = object_id_of(self.body.roots)
        self.epoch_body = Epoch(
            self.owner.node_id,
            quorum_id_of(self.object_id),
            1,
            self.body.subject,
            self.body.sealed_bytes,
            2_000,
            tuple(Member(host.node_id, 1_000) for host in world.hosts),
        )
        self.manifest = objects_pb2.Manifest(signed=signed(MANIFEST_KIND, self.body.encode(), self.owner.signer))
        self.epoch = signed(EPOCH_KIND, self.epoch_body.encode(), self.owner.signer)

    def in_epoch(self, **changes: Any) -> common_pb2.Signed:
        return signed(EPOCH_KIND, replace(self.epoch_body, **changes).encode(), self.owner.signer)

    def open(self) -> int:
        """How much of the copy is here."""
        request = Open(manifest=self.manifest, epoch=self.epoch)
        self.opened: objects_pb2.OpenReplicaResponse = self.ask("OpenReplica", request)
        (told,) = self.opened.shards
        assert told.shard == 0
        return int(told.offset)

    def write(self, offset: int, data: bytes) -> int:
        answer = self.ask("WriteReplica", Write(object_id=self.object_id, offset=offset, data=data))
        return int(answer.offset)

    def commit(self) -> Ack:
        request = Commit(object_id=self.object_id, manifest=self.manifest, epoch=self.epoch)
        ack = self.ask("CommitReplica", request).ack
        assert sim_verify(self.host.signer.public_key, digest_of(ACK_KIND, SALT, ack.body), ack.signature)
        return Ack.decode(ack.body)

    def ask(self, method: str, request: Any) -> Any:
        return self.host.ask_as(self.owner, method, request)


def signed(kind: bytes, body: bytes, signer: SimSigner) -> common_pb2.Signed:
    return common_pb2.Signed(body=body, signature=signer.sign(digest_of(kind, SALT, body)))


def lost_at(host: Node) -> set[str]:
    """Of whom a scrub finds something lost there."""
    walk, lost = host.checking.walk(), set[str]()
    while not (turn := walk.read_on()).ended:
        if turn.lost is not None:
            lost.add(turn.lost.owner)
    return lost


def _unreadable(name: str, offset: int, length: int) -> bytes:
    raise AssertionError("what came is read again")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def parcel(world: World) -> Parcel:
    return Parcel(world)


class TestAReplica:
    def test_is_acked_once_all_of_it_is_durable(self, parcel: Parcel) -> None:
        assert parcel.open() == 0
        assert parcel.write(0, parcel.sealed) == len(parcel.sealed)
        ack = parcel.commit()
        assert ack.is_for(parcel.epoch_body)
        assert ack.node == parcel.host.node_id
        possession = Possession(parcel.body, (0,), SALT, parcel.host.node_id, 1)
        possession.add(0, parcel.sealed)
        assert ack.possession == possession.digest()
        parcel.host.blobs.crash(parcel.world.rng)
        assert parcel.host.blobs.read(parcel.object_id, 0, len(parcel.sealed)) == parcel.sealed

    def test_takes_pieces_in_any_order_and_says_where_to_go_on(self, parcel: Parcel) -> None:
        parcel.open()
        assert parcel.write(100, parcel.sealed[100:]) == 0, "a piece that came too early is not taken"
        assert parcel.write(0, parcel.sealed[:100]) == 100
        assert parcel.write(0, parcel.sealed[:50]) == 100
        assert parcel.write(50, parcel.sealed[50:]) == len(parcel.sealed)
        parcel.commit()

    def test_goes_on_after_the_host_restarted(self, parcel: Parcel) -> None:
        parcel.open()
        parcel.write(0, parcel.sealed[:100])
        parcel.host.restart()
        with pytest.raises(FailedPrecondition) as caught:
            parcel.write(100, parcel.sealed[100:])
        assert caught.value.reason == "NotOpened"
        assert parcel.open() == 100
        parcel.write(100, parcel.sealed[100:])
        parcel.commit()

    def test_is_hashed_as_it_comes_and_not_read_again(self, parcel: Parcel, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parcel.host.blobs, "read_staged", _unreadable)
        parcel.open()
        parcel.write(0, parcel.sealed[:100])
        assert parcel.open() == 100, "the owner's connection broke"
        parcel.write(50, parcel.sealed[50:])
        parcel.commit()

    def test_whose_first_bytes_were_of_an_earlier_life_is_read(self, parcel: Parcel) -> None:
        parcel.open()
        parcel.write(0, b"y" + parcel.sealed[1:100])
        parcel.host.restart()
        assert parcel.open() == 100
        parcel.write(0, parcel.sealed)
        with pytest.raises(FailedPrecondition) as caught:
            parcel.commit()
        assert caught.value.reason == "WrongRoot", "what is on the disk counts, not what came last"
        assert parcel.write(0, parcel.sealed) == len(parcel.sealed)
        parcel.commit()

    def test_is_acked_the_same_again_without_being_read_again(self, parcel: Parcel) -> None:
        parcel.open()
        parcel.write(0, parcel.sealed)
        first = parcel.commit()
        parcel.host.restart()
        parcel.host.blobs.flip(parcel.object_id, 0)
        assert parcel.commit() == first, "what was said stays said"
        assert parcel.open() == len(parcel.sealed)

    def test_is_not_acked_again_once_a_later_epoch_was(self, parcel: Parcel, monkeypatch: pytest.MonkeyPatch) -> None:
        """Though it was not when its disk was asked whether the bytes are there."""
        parcel.open()
        parcel.write(0, parcel.sealed)
        store, key = parcel.host.store, replica_key(parcel.object_id, parcel.owner.node_id)
        later = replace(parcel.commit(), epoch=2).encode()
        parcel.world.pass_ms(1)
        row = objects_pb2.ReplicaRow.FromString(store.get(REPLICAS, key) or b"")
        row.epoch.CopyFrom(parcel.in_epoch(epoch=2))
        row.ack.CopyFrom(signed(ACK_KIND, later, parcel.host.signer))
        is_here = Replicas._is_here

        def meanwhile(self: Replicas, claim: Claim, name: str) -> bool:
            store.commit(Batch(writes={(REPLICAS, key): row.SerializeToString()}))
            return is_here(self, claim, name)

        monkeypatch.setattr(Replicas, "_is_here", meanwhile)
        with pytest.raises(FailedPrecondition) as caught:
            parcel.commit()
        assert caught.value.reason == "EpochOver"
        assert parcel.host.blobs.is_durable(parcel.object_id)

    def test_that_was_lost_is_brought_again_under_the_epoch_that_was_acked(self, parcel: Parcel) -> None:
        parcel.open()
        parcel.write(0, parcel.sealed)
        first = parcel.commit()
        parcel.host.blobs.lose(parcel.object_id)
        with pytest.raises(FailedPrecondition) as caught:
            parcel.commit()
        assert caught.value.reason == "ReplicaIncomplete", "an ack says that the bytes are here"
        assert parcel.open() == 0
        parcel.write(0, parcel.sealed)
        assert parcel.commit() == first
        assert parcel.host.blobs.size(parcel.object_id) == len(parcel.sealed)
        assert parcel.host.blobs.all_staged() == []

    @pytest.mark.parametrize("nth", range(3))
    def test_whose_sync_failed_is_not_acked_by_a_retry(self, parcel: Parcel, nth: int) -> None:
        parcel.open()
        parcel.write(0, parcel.sealed)
        parcel.host.blobs.fail_sync(nth)
        with pytest.raises(Unavailable):
            parcel.commit()
        with pytest.raises(FailedPrecondition) as caught:
            parcel.commit()
        assert caught.value.reason == "ReplicaIncomplete"
        parcel.open()
        parcel.write(0, parcel.sealed)
        parcel.commit()
        assert parcel.host.blobs.is_durable(parcel.object_id)

    def test_that_was_here_already_is_synced_before_it_is_vouched_for(self, parcel: Parcel) -> None:
        parcel.open()
        parcel.write(0, parcel.sealed)
        parcel.commit()
        parcel.epoch = parcel.in_epoch(epoch=2)
        parcel.host.blobs.fail_sync(0)
        with pytest.raises(Unavailable):
            parcel.commit()
        assert parcel.commit().epoch == 2

    def test_is_read_again_for_the_next_epoch(self, parcel: Parcel) -> None:
        parcel.open()
        parcel.write(0, parcel.sealed)
        first = parcel.commit()
        parcel.epoch = parcel.in_epoch(epoch=2)
        second = parcel.commit()
        assert (second.epoch, second.possession != first.possession) == (2, True)

    def test_that_has_rotted_is_not_acked_for_the_next_epoch_but_brought_again(self, parcel: Parcel) -> None:
        parcel.open()
        parcel.write(0, parcel.sealed)
        parcel.commit()
        parcel.host.blobs.flip(parcel.object_id, 3)
        parcel.epoch = parcel.in_epoch(epoch=2)
        with pytest.raises(FailedPrecondition) as caught:
            parcel.commit()
        assert caught.value.reason == "ReplicaDamaged"
        assert parcel.open() == 0
        parcel.write(0, parcel.sealed)
        assert parcel.commit().epoch == 2
        assert parcel.host.blobs.read(parcel.object_id, 0, len(parcel.sealed)) == parcel.sealed

    def test_that_was_cut_short_is_brought_again(self, parcel: Parcel) -> None:
        parcel.open()
        parcel.write(0, parcel.sealed)
        parcel.commit()
        parcel.host.blobs.append("u-cut", 0, parcel.sealed[:50])
        parcel.host.blobs.finish("u-cut", parcel.object_id)
        parcel.epoch = parcel.in_epoch(epoch=2)
        assert parcel.open() == 0
        parcel.write(0, parcel.sealed)
        assert parcel.commit().epoch == 2

    def test_can_be_read_in_parts_by_any_member(self, parcel: Parcel) -> None:
        parcel.open()
        parcel.write(0, parcel.sealed)
        parcel.commit()
        reader = parcel.world.hosts[1]
        answer = parcel.host.ask_as(reader, "ReadReplica", Read(object_id=parcel.object_id, offset=10, length=20))
        assert (answer.data, answer.size_bytes) == (parcel.sealed[10:30], len(parcel.sealed))
        tail = parcel.host.ask_as(reader, "ReadReplica", Read(object_id=parcel.object_id, offset=100, length=1_000))
        assert tail.data == parcel.sealed[100:]


class TestACommitIsRefused:
    def test_while_bytes_are_missing(self, parcel: Parcel) -> None:
        parcel.open()
        parcel.write(0, parcel.sealed[:-1])
        with pytest.raises(FailedPrecondition) as caught:
            parcel.commit()
        assert (caught.value.reason, caught.value.metadata["offset"]) == (
            "ReplicaIncomplete",
            str(len(parcel.sealed) - 1),
        )
        parcel.write(len(parcel.sealed) - 1, parcel.sealed[-1:])
        parcel.commit()

    @pytest.mark.parametrize("at", [0, STRIPE, STRIPE + TAG_BYTES, -1])
    def test_when_a_bit_is_another_and_the_bytes_go(self, parcel: Parcel, at: int) -> None:
        wrong = bytearray(parcel.sealed)
        wrong[at] ^= 1
        parcel.open()
        parcel.write(0, bytes(wrong))
        with pytest.raises(FailedPrecondition) as caught:
            parcel.commit()
        assert caught.value.reason == "WrongRoot"
        assert parcel.host.blobs.size(parcel.object_id) is None
        assert parcel.open() == 0, "nothing of it is gone on with"
        parcel.write(0, parcel.sealed)
        parcel.commit()

    def test_when_stripes_are_swapped(self, parcel: Parcel) -> None:
        length = STRIPE + TAG_BYTES
        swapped = parcel.sealed[length : 2 * length] + parcel.sealed[:length] + parcel.sealed[2 * length :]
        parcel.open()
        parcel.write(0, swapped)
        with pytest.raises(FailedPrecondition, match="not those of"):
            parcel.commit()

    def test_for_an_epoch_lower_than_one_that_was_acked(self, parcel: Parcel) -> None:
        parcel.epoch = parcel.in_epoch(epoch=2)
        parcel.open()
        parcel.write(0, parcel.sealed)
        parcel.commit()
        parcel.epoch = parcel.in_epoch(epoch=1)
        with pytest.raises(Fault) as caught:
            parcel.commit()
        assert caught.value.reason == "EpochOver"


class TestTwoOwnersOfOneObjectId:
    """Whoever has seen a manifest can sign another one over the same root."""

    def thief(self, world: World, **changes: Any) -> Parcel:
        """Claims the same root as the honest owner does."""
        thief = Parcel(world, owner=world.hosts[1].node_id, **changes)
        thief.owner = world.hosts[1]
        thief.manifest = objects_pb2.Manifest(signed=signed(MANIFEST_KIND, thief.body.encode(), thief.owner.signer))
        thief.epoch_body = replace(thief.epoch_body, owner=thief.owner.node_id)
        thief.epoch = thief.in_epoch()
        return thief

    def test_do_not_disturb_each_others_pieces(self, world: World) -> None:
        honest, thief = Parcel(world), self.thief(world)
        honest.open()
        honest.write(0, honest.sealed[:100])
        assert thief.object_id == honest.object_id
        assert thief.open() == 0
        thief.write(0, b"rubbish" * 20)
        honest.write(100, honest.sealed[100:])
        honest.commit()
        assert honest.host.blobs.read(honest.object_id, 0, len(honest.sealed)) == honest.sealed

    @pytest.mark.parametrize("damaged", [0, 1])
    def test_each_have_rows_of_their_own_and_one_stands_for_no_other(self, world: World, damaged: int) -> None:
        claims = Parcel(world), self.thief(world)
        host, object_id = world.hosts[0], claims[0].object_id
        host.small_bytes = SMALL_BYTES_MAX
        host.restart()
        for claim in claims:
            claim.ask("PutReplica", Put(manifest=claim.manifest, epoch=claim.epoch, shards=[claim.sealed]))
        owner = claims[damaged].owner.node_id
        host.store.damage(SMALL, small_key(object_id, owner))
        assert lost_at(host) == {owner}, "the other's row shows nothing of it, and has lost nothing"
        read = claims[0].ask("ReadReplica", Read(object_id=object_id, length=len(claims[0].sealed)))
        assert read.data == claims[0].sealed

    @pytest.mark.parametrize("changes", [{"size_bytes": 5}, {"size_bytes": 2**20}, {"stripe_bytes": 70}])
    def test_nobody_makes_a_host_drop_what_another_brought(self, world: World, changes: dict[str, int]) -> None:
        honest, thief = Parcel(world), self.thief(world, **changes)
        honest.open()
        honest.write(0, honest.sealed)
        honest.commit()
        for _ in range(2):
            with pytest.raises(FailedPrecondition):
                thief.commit()
            thief.open()
            thief.write(0, b"x" * thief.body.sealed_bytes if thief.body.sealed_bytes < 10_000 else b"x")
        assert honest.host.blobs.read(honest.object_id, 0, len(honest.sealed)) == honest.sealed


def _stranger() -> SimSigner:
    return SimSigner("stranger")


FORGED: dict[str, tuple[Callable[[Parcel], objects_pb2.OpenReplicaRequest], type[Fault], str]] = {
    "no manifest": (lambda p: Open(epoch=p.epoch), PeerFault, "MalformedBody"),
    "no epoch": (lambda p: Open(manifest=p.manifest), PeerFault, "MalformedBody"),
    "a manifest signed by a stranger": (
        lambda p: Open(
            manifest=objects_pb2.Manifest(signed=signed(MANIFEST_KIND, p.body.encode(), _stranger())), epoch=p.epoch),
        PeerFault, "BadSignature"),
    "an epoch signed by a stranger": (
        lambda p: Open(manifest=p.manifest, epoch=signed(EPOCH_KIND, p.epoch_body.encode(), _stranger())),
        PeerFault, "BadSignature"),
    "an epoch's signature over a manifest": (
        lambda p: Open(
            manifest=objects_pb2.Manifest(signed=signed(EPOCH_KIND, p.body.encode(), p.owner.signer)), epoch=p.epoch),
        PeerFault, "BadSignature"),
    "another's manifest": (
        lambda p: Open(
            manifest=objects_pb2.Manifest(
                signed=signed(
                    MANIFEST_KIND, replace(p.body, owner=p.host.node_id).encode(), p.host.signer)), epoch=p.epoch),
        PeerFault, "BadSignature"),
    "a manifest in another's name": (
        lambda p: Open(
            manifest=objects_pb2.Manifest(
                signed=signed(
                    MANIFEST_KIND, replace(p.body, owner=p.host.node_id).encode(), p.owner.signer)), epoch=p.epoch),
        PeerFault, "ForgedManifest"),
    "an epoch in another's name": (
        lambda p: Open(manifest=p.manifest, epoch=p.in_epoch(owner=p.host.node_id)), PeerFault, "ForgedEpoch"),
    "the epoch of another quorum": (
        lambda p: Open(manifest=p.manifest, epoch=p.in_epoch(quorum_id="mission:1")), PeerFault, "WrongEpoch"),
    "the epoch of another thing": (
        lambda p: Open(manifest=p.manifest, epoch=p.in_epoch(subject=bytes(32))), PeerFault, "WrongEpoch"),
    "an epoch without this node": (
        lambda p: Open(manifest=p.manifest, epoch=p.in_epoch(members=p.epoch_body.members[1:])),
        FailedPrecondition, "NoMember"),
    "too many wraps": (
        lambda p: Open(
            manifest=objects_pb2.Manifest(
                signed=p.manifest.signed, wraps=[objects_pb2.KeyWrap()] * (WRAPS_MAX + 1)), epoch=p.epoch),
        InvalidRequest, "InvalidRequest"),
    "a wrap too large": (
        lambda p: Open(
            manifest=objects_pb2.Manifest(
                signed=p.manifest.signed, wraps=[objects_pb2.KeyWrap(sealed_key=bytes(257))]), epoch=p.epoch),
        InvalidRequest, "InvalidRequest"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED)
def test_what_is_forged_or_ill_matched_is_refused(parcel: Parcel, case: str) -> None:
    build, kind, reason = FORGED[case]
    request = build(parcel)
    for method, message in (
        ("OpenReplica", request),
        ("CommitReplica", Commit(object_id=parcel.object_id, manifest=request.manifest, epoch=request.epoch)),
    ):
        with pytest.raises(kind) as caught:
            parcel.ask(method, message)
        assert caught.value.reason == reason
    assert parcel.host.blobs.all_staged() == []


class TestBounds:
    def test_pieces(self, parcel: Parcel) -> None:
        parcel.open()
        with pytest.raises(InvalidRequest, match="data"):
            parcel.write(0, bytes(PIECE_BYTES_MAX + 1))
        with pytest.raises(InvalidRequest, match="ends at"):
            parcel.write(len(parcel.sealed) - 1, b"xx")

    def test_pieces_are_as_large_as_the_host_says(self, world: World) -> None:
        parcel, host = Parcel(world), world.hosts[0]
        host.piece_bytes = 100
        host.restart()
        parcel.open()
        assert parcel.opened.piece_bytes_max == 100
        with pytest.raises(InvalidRequest, match="101 bytes; at most 100"):
            parcel.write(0, parcel.sealed[:101])
        assert parcel.write(0, parcel.sealed[:100]) == 100
        world.log.clear()
        world.owner.put(b"x" * 500, required_milli=3_000)
        assert world.log.count("WriteReplica") == 2 * 1 + -(-(500 + 8 * TAG_BYTES) // 100), "of three hosts one is so"

    def test_an_object_of_too_many_stripes(self, world: World) -> None:
        with pytest.raises(InvalidRequest, match="stripes"):
            Parcel(world, size_bytes=2**40, stripe_bytes=1).open()

    def test_an_object_of_many_tiny_rows(self, world: World) -> None:
        """126 MB of rows of a byte would be 126 million digests."""
        roots = tuple(bytes([shard]) * 32 for shard in range(120))
        with pytest.raises(InvalidRequest, match=f"at most {SMALL_ROWS_MAX} rows"):
            Parcel(world, size_bytes=2**20, stripe_bytes=1, k=119, codec=REED_SOLOMON, roots=roots).open()
        with pytest.raises(InvalidRequest, match=f"fewer than {ROW_BYTES_MIN} bytes"):
            Parcel(world, size_bytes=64 * SMALL_ROWS_MAX + 1, stripe_bytes=64).open()
        Parcel(world, size_bytes=64 * SMALL_ROWS_MAX, stripe_bytes=64).open()

    def test_an_object_that_the_disk_cannot_hold(self, world: World) -> None:
        world.hosts[0].blobs = MemoryBlobs(limit_bytes=100)
        world.hosts[0].restart()
        with pytest.raises(Exhausted, match="disk"):
            Parcel(world).open()

    def test_replicas_coming_in_at_once_for_one_owner(self, world: World) -> None:
        for index in range(OPEN_PER_OWNER_MAX):
            parcel = Parcel(world, nonce=index.to_bytes(16, "big"))
            parcel.open()
            parcel.write(0, parcel.sealed[:10])
        more = Parcel(world, nonce=b"m" * 16)
        with pytest.raises(Exhausted, match="coming in here") as caught:
            more.open()
        assert caught.value.retry_ms
        parcel.open()  # one that is open already may be opened again
        world.pass_ms(IDLE_MS_MAX)
        more.open()
        assert len(more.host.blobs.all_staged()) == OPEN_PER_OWNER_MAX - 1, "the one that made room is gone"

    def test_bytes_coming_in_at_once_for_one_owner(self, world: World) -> None:
        half = STAGED_BYTES_PER_OWNER_MAX // 2 + 1
        Parcel(world, size_bytes=half, stripe_bytes=2**24).open()
        with pytest.raises(Exhausted, match="coming in here"):
            Parcel(world, nonce=b"m" * 16, size_bytes=half, stripe_bytes=2**24).open()

    def test_the_share_of_one_owner(self, world: World) -> None:
        """Two of three objects fit half of the room, whether they are here or coming in, after a restart as well."""
        host = world.hosts[0]
        first, second, third = (Parcel(world, nonce=bytes([n] * 16)) for n in range(3))
        size = first.body.sealed_bytes
        host.owner_share_percent, host.blobs = 50, MemoryBlobs(limit_bytes=5 * size)
        host.restart()
        first.open()
        first.write(0, first.sealed)
        first.commit()
        second.open()
        for _ in range(2):
            with pytest.raises(Exhausted, match=r"owner_share_percent is 50") as caught:
                third.open()
            assert caught.value.reason == "OwnerShareFull"
            assert f"keeps {size} bytes for {world.owner.node_id}, and {2 * size} more" in caught.value.message
        host.restart()
        second.open()
        second.write(0, second.sealed)
        second.commit()
        with pytest.raises(Exhausted, match=f"keeps {2 * size} bytes"):
            third.open()
        assert second.open() == size, "what is kept already is not refused"

    def test_a_share_of_all_is_bounded_by_the_disk_alone(self, world: World) -> None:
        host = world.hosts[0]
        first, second = (Parcel(world, nonce=bytes([n] * 16)) for n in range(2))
        host.owner_share_percent, host.blobs = 100, MemoryBlobs(limit_bytes=2 * first.body.sealed_bytes)
        host.restart()
        first.open()
        first.write(0, first.sealed[:100])
        second.open()

    def test_the_share_of_one_owner_leaves_the_others_theirs(self, world: World) -> None:
        host = world.hosts[0]
        mine, yours = Parcel(world), Parcel(world, nonce=b"y" * 16)
        yours.owner = world.hosts[1]
        yours.body = replace(yours.body, owner=yours.owner.node_id)
        yours.manifest = objects_pb2.Manifest(signed=signed(MANIFEST_KIND, yours.body.encode(), yours.owner.signer))
        yours.epoch_body = replace(yours.epoch_body, owner=yours.owner.node_id)
        yours.epoch = signed(EPOCH_KIND, yours.epoch_body.encode(), yours.owner.signer)
        host.owner_share_percent, host.blobs = 50, MemoryBlobs(limit_bytes=2 * mine.body.sealed_bytes)
        host.restart()
        mine.open()
        mine.write(0, mine.sealed)
        mine.commit()
        yours.open()

    def test_a_read(self, parcel: Parcel) -> None:
        for request, kind in (
            (Read(object_id="../../etc/passwd", length=1), InvalidRequest),
            (Read(object_id=parcel.object_id, length=1), NotFound),
            (Read(object_id=parcel.object_id), InvalidRequest),
            (Read(object_id=parcel.object_id, length=PIECE_BYTES_MAX + 1), InvalidRequest),
        ):
            with pytest.raises(kind):
                parcel.ask("ReadReplica", request)
        parcel.open()
        parcel.write(0, parcel.sealed)
        parcel.commit()
        with pytest.raises(InvalidRequest, match="offset"):
            parcel.ask("ReadReplica", Read(object_id=parcel.object_id, offset=len(parcel.sealed), length=1))


class TestWhatAnOwnerMayStillBring:
    """What GetCapacity answers is what OpenReplica would let in."""

    def asked(self, host: Node, owner: Node) -> objects_pb2.GetCapacityResponse:
        return host.ask_as(owner, "GetCapacity", objects_pb2.GetCapacityRequest())

    @pytest.mark.parametrize("percent", [30, 50, 100])
    def test_is_what_is_free_within_its_share(self, world: World, percent: int) -> None:
        host, parcel = world.hosts[0], Parcel(world)
        size = parcel.body.sealed_bytes
        host.owner_share_percent, host.blobs = percent, MemoryBlobs(limit_bytes=5 * size)
        host.restart()
        share = 5 * size * percent // 100
        assert self.asked(host, world.owner).owner_free_bytes == share
        parcel.open()
        assert self.asked(host, world.owner).owner_free_bytes == share - size
        parcel.write(0, parcel.sealed)
        parcel.commit()
        assert self.asked(host, world.owner).owner_free_bytes == share - size
        assert self.asked(host, world.hosts[1]).owner_free_bytes == min(4 * size, share)

    def test_is_never_less_than_nothing(self, world: World) -> None:
        host, parcel = world.hosts[0], Parcel(world)
        parcel.open()
        parcel.write(0, parcel.sealed)
        parcel.commit()
        host.owner_share_percent = 1
        host.restart()
        host.blobs._limit = 0
        assert self.asked(host, world.owner).owner_free_bytes == 0

    def test_says_whether_anything_is_taken_at_all(self, world: World) -> None:
        host = world.hosts[0]
        said = self.asked(host, world.owner)
        assert (said.keeps_replicas, said.drained) == (True, False)
        host.enabled, host.drains = False, True
        host.restart()
        said = self.asked(host, world.owner)
        assert (said.keeps_replicas, said.drained) == (False, True)

    def test_disk_and_store_are_for_the_nodes_own_admin(self, world: World) -> None:
        host = world.hosts[0]
        told, own = self.asked(host, world.owner), host.ask("GetCapacity", objects_pb2.GetCapacityRequest())
        assert (told.disk_total_bytes, told.store_limit_bytes) == (0, 0)
        assert own.disk_total_bytes
        assert own.store_limit_bytes
        assert own.owner_free_bytes == host.blobs.free_bytes()


def test_a_node_that_keeps_nothing_for_others_says_so(world: World) -> None:
    host = world.hosts[0]
    host.enabled = False
    host.restart()
    parcel = Parcel(world)
    for call in (parcel.open, parcel.commit, lambda: parcel.write(0, b"x")):
        with pytest.raises(FailedPrecondition, match=r"storage\.enabled") as caught:
            call()
        assert caught.value.reason == "StorageOff"


def test_the_object_is_durable_by_others_when_one_keeps_nothing(world: World) -> None:
    host: Node = world.hosts[0]
    host.enabled = False
    host.restart()
    made = world.owner.put(b"x" * 100, required_milli=2_000)
    made = world.owner.info(made.object_id)
    assert made.state == objects_pb2.OBJECT_STATE_DURABLE
    assert host.node_id not in {ack.node_id for ack in made.acks}


def test_nothing_is_written_for_a_claim_in_whose_place_another_was_opened() -> None:
    """A slow rebuild would write beside what the other has hashed."""
    world = World()
    parcel, host, ends = Parcel(world), world.hosts[0], list[object]()
    parcel.open()
    old = host.replicas.coming(world.owner.node_id, parcel.object_id)
    newer = parcel.in_epoch(epoch=2)
    host.ask_as(world.owner, "OpenReplica", Open(manifest=parcel.manifest, epoch=newer))
    host.replicas.append(old, 0, 0, parcel.sealed)(ends.append)
    world.settle()
    (end,) = ends
    assert isinstance(end, FailedPrecondition)
    assert end.reason == "NotOpened"
    assert not host.blobs.all_staged()
