"""What an owner put after its journal's last safe segment: hosts keep it, and the restored owner takes it back."""

from __future__ import annotations

import pytest
from bulk_world import STRIPE, Letter, Node, World
from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.keys.stripes import OBJECT_KEY_BYTES, seal_stripe
from offgrid_node.protocol.errors import Fault, InvalidRequest, NotFound, Unavailable
from offgrid_node.protocol.objects.comparing import AGAIN_MS
from offgrid_node.protocol.objects.manifest import TAG_BYTES, Manifest
from offgrid_node.protocol.objects.tables import DELETED, KEPT, META, OBJECTS, REPLICAS, replica_key
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.quorum.succession import EPOCHS_OF_LIFE
from offgrid_node.protocol.quorum.tables import LIFE, number_key
from offgrid_node.services.objects.sealing import ENTROPY_BYTES
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import SimWraps

DATA = bytes(range(256)) * 3
K, N = 3, 5
CODES = pytest.mark.parametrize("code", [None, (K, N)], ids=["copies", "shards"])
Show = objects_pb2.ShowReplicaRequest


def forgetful(
    code: tuple[int, int] | None, *, life: int = 2, required_milli: int = 0, also: bytes = b""
) -> tuple[World, objects_pb2.Object]:
    """An owner whose disk is lost behind its last segment: nothing is left but the life that it begins."""
    world = World(N)
    made = world.owner.put(DATA, name="data", code=code, required_milli=required_milli)
    if also:
        world.owner.put(also)
    seconds(world, 5)
    made = world.owner.info(made.object_id)
    assert made.state == objects_pb2.OBJECT_STATE_DURABLE
    world.owner.up = False
    world.owner.store, world.owner.blobs = MemoryStore(), MemoryBlobs()
    if life:
        world.owner.store.commit(Batch(writes={(META, LIFE): number_key(life)}))
    return world, made


def seconds(world: World, count: int) -> None:
    for _ in range(count):
        world.pass_ms(1_000)


def begin(world: World) -> None:
    world.owner.up = True
    world.owner.restart()
    world.settle()
    seconds(world, 30)


def row(world: World, object_id: str) -> objects_pb2.ObjectRow | None:
    value = world.owner.store.get(OBJECTS, object_id.encode())
    return objects_pb2.ObjectRow.FromString(value) if value is not None else None


def keepers(world: World) -> list[Node]:
    return [host for host in world.hosts if list(host.blobs.names())]


def kept_ids(world: World) -> set[str]:
    return {key.decode().partition("/")[0] for host in world.hosts for key, _ in host.store.scan(REPLICAS)}


class TestARestoredOwner:
    @CODES
    def test_takes_it_back_as_it_was_but_for_its_name(self, code: tuple[int, int] | None) -> None:
        world, made = forgetful(code, required_milli=1_000)
        begin(world)
        back = world.owner.info(made.object_id)
        assert world.owner.read(made.object_id) == DATA
        assert (back.state, back.required_milli, back.size_bytes) == (made.state, made.required_milli, len(DATA))
        assert (back.shards_needed, back.shards_total, back.name) == (made.shards_needed, made.shards_total, "")
        assert not back.local, "all that is wanted was acked anew"

    @CODES
    def test_numbers_its_epochs_above_those_of_its_former_life(self, code: tuple[int, int] | None) -> None:
        world, made = forgetful(code)
        begin(world)
        back = row(world, made.object_id)
        assert back is not None
        assert Epoch.decode(back.epoch.body).epoch > 2 * EPOCHS_OF_LIFE

    @CODES
    def test_and_its_hosts_agree_at_last_and_may_be_drained(self, code: tuple[int, int] | None) -> None:
        world, made = forgetful(code)
        begin(world)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=made.object_id))
        seconds(world, 5)
        assert not any(list(host.store.scan(table)) for host in world.hosts for table in (REPLICAS, KEPT))
        assert not keepers(world)

    def test_does_so_from_whoever_is_up(self) -> None:
        world, made = forgetful((K, N))
        for host in world.hosts[: N - K]:
            host.up = False
        begin(world)
        assert row(world, made.object_id) is not None
        assert world.owner.read(made.object_id) == DATA


class TestNobodyElse:
    def test_takes_back_what_it_knows_nothing_of(self) -> None:
        """An old store that has not begun a life anew, say."""
        world, made = forgetful(None, life=0)
        begin(world)
        assert row(world, made.object_id) is None
        assert keepers(world)

    def test_is_shown_it(self) -> None:
        world, made = forgetful(None)
        begin(world)
        host, other = keepers(world)[0], world.hosts[-1]
        shown = host.ask_as(world.owner, "ShowReplica", Show(object_id=made.object_id))
        assert list(shown.shards) == [0]
        assert Manifest.decode(shown.manifest.signed.body).object_id == made.object_id
        with pytest.raises(NotFound) as error:
            host.ask_as(other, "ShowReplica", Show(object_id=made.object_id))
        assert error.value.reason == "ReplicaNotFound"
        with pytest.raises(InvalidRequest) as refused:
            host.ask_as(world.owner, "ShowReplica", Show(object_id="o-x"))
        assert [each.field for each in refused.value.violations] == ["object_id"]


class TestWhatIsShownFalsely:
    @pytest.mark.parametrize("what", ["manifest", "epoch", "wrap", "another"])
    def test_is_not_believed(self, what: str) -> None:
        world, made = forgetful(None, also=b"another")
        other = next(object_id for object_id in kept_ids(world) if object_id != made.object_id)

        def bend(letter: Letter) -> objects_pb2.ShowReplicaResponse | None:
            if letter.short != "ShowReplica" or letter.request.object_id != made.object_id:
                return None
            wanted = other if what == "another" else made.object_id
            key = replica_key(wanted, world.owner.node_id)
            value = next(filter(None, (host.store.get(REPLICAS, key) for host in world.hosts)))
            kept = objects_pb2.ReplicaRow.FromString(value)
            shown = objects_pb2.ShowReplicaResponse(manifest=kept.manifest, epoch=kept.epoch, shards=[0])
            match what:
                case "manifest":
                    shown.manifest.signed.signature = bytes(64)
                case "epoch":
                    shown.epoch.signature = bytes(64)
                case "wrap":
                    shown.manifest.wraps[0].sealed_key = b"another's"
            return shown

        world.bend = bend
        begin(world)
        assert row(world, made.object_id) is None
        assert made.object_id in kept_ids(world), "and nobody is told to drop it for that"
        world.bend = lambda letter: None
        world.pass_ms(AGAIN_MS)
        seconds(world, 30)
        assert row(world, made.object_id) is not None, "asked for again, and shown as it is"

    def test_other_bytes_under_a_key_of_the_hosts_become_nothing_of_this_nodes(self) -> None:
        world, made = forgetful(None)
        body, secret = Manifest.decode(made.manifest.signed.body), bytes(range(OBJECT_KEY_BYTES))
        target, use = world.members.wrapping_key(world.owner.node_id), made.object_id.encode()
        assert target is not None
        (forged,) = SimWraps(world.hosts[0].signer).wrap(target, [(secret, use)], bytes(ENTROPY_BYTES))

        def bend(letter: Letter) -> Message | None:
            if letter.short == "ShowReplica":
                value = world.by_id[letter.target].store.get(REPLICAS, replica_key(made.object_id, letter.source))
                if value is None:
                    return None
                kept = objects_pb2.ReplicaRow.FromString(value)
                kept.manifest.wraps[0].sealed_key = forged
                return objects_pb2.ShowReplicaResponse(manifest=kept.manifest, epoch=kept.epoch, shards=[0])
            if letter.short == "ReadReplica":
                index = letter.request.offset // (STRIPE + TAG_BYTES)
                last = index == body.stripes - 1
                plain = bytes(letter.request.length - TAG_BYTES)
                sealed = seal_stripe(secret, body.nonce, index, last, plain)
                return objects_pb2.ReadReplicaResponse(data=sealed, size_bytes=body.sealed_bytes)
            return None

        world.bend = bend
        begin(world)
        assert "ReadReplica" in world.log
        assert row(world, made.object_id) is None
        assert list(world.owner.blobs.names()) == []


class TestTooLittleThatIsLeft:
    def lost(self, world: World) -> None:
        """All but two shards of the three that it takes."""
        for host in keepers(world)[2:]:
            host.store, host.blobs = MemoryStore(), MemoryBlobs()
            host.restart(seen=False)

    def test_is_dropped_once_every_member_has_said_so(self) -> None:
        world, made = forgetful((K, N))
        self.lost(world)
        begin(world)
        assert not keepers(world)
        mark = objects_pb2.Deletion.FromString(world.owner.store.get(DELETED, made.object_id.encode()) or b"")
        assert (mark.object_id, list(mark.untold)) == (made.object_id, [])

    def test_stays_while_one_is_silent(self) -> None:
        world, made = forgetful((K, N))
        self.lost(world)
        silent = next(host for host in world.hosts if host not in keepers(world))

        def bend(letter: Letter) -> Fault | None:
            mute = letter.short == "ShowReplica" and letter.target == silent.node_id
            return Unavailable("no word", reason="NotConnected") if mute else None

        world.bend = bend
        begin(world)
        assert len(keepers(world)) == 2
        assert world.owner.store.get(DELETED, made.object_id.encode()) is None
