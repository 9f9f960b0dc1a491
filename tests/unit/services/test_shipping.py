"""Bringing an object to a host: lost calls, lost answers, early pieces, restarts at any moment, acks that are none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bulk_world import SALT, STRIPE, Letter, World
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.effects import DropBlob
from offgrid_node.protocol.errors import Fault, OutcomeUnknown, Unavailable
from offgrid_node.protocol.objects.errands import Ship
from offgrid_node.protocol.objects.hashing import Possession
from offgrid_node.protocol.objects.manifest import TAG_BYTES, Manifest
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.protocol.quorum.records import ACK_KIND, Ack, Epoch
from offgrid_node.protocol.signing import digest_of
from offgrid_node.services.objects import shipping
from offgrid_node.services.objects.shipping import WINDOW

DATA = bytes(range(256)) * 3
SEALED = len(DATA) + 12 * TAG_BYTES
DURABLE = objects_pb2.OBJECT_STATE_DURABLE
Commit = objects_pb2.CommitReplicaResponse


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object of a few hundred bytes then takes ten of them."""
    monkeypatch.setattr(shipping, "PIECE_BYTES_MAX", 100)


def opened(offset: int) -> objects_pb2.OpenReplicaResponse:
    progress = objects_pb2.ShardProgress(shard=0, offset=offset)
    return objects_pb2.OpenReplicaResponse(shards=[progress], piece_bytes_max=100)


def put(world: World, required_milli: int = 1_000) -> objects_pb2.Object:
    made = world.owner.put(DATA, required_milli=required_milli)
    world.pass_ms(2_000)
    return world.owner.info(made.object_id)


def test_a_host_gets_each_byte_once() -> None:
    world = World(1)
    made = put(world)
    assert made.state == DURABLE
    sent = [method for method in world.log if method not in ("GetCapacity", "CompareInventory")]
    assert sent == ["OpenReplica", *["WriteReplica"] * -(-SEALED // 100), "CommitReplica"]
    assert world.hosts[0].blobs.size(made.object_id) == SEALED


def test_no_more_pieces_are_under_way_than_the_window_has() -> None:
    world, most = World(1), 0

    def bend(letter: Letter) -> None:
        nonlocal most
        most = max(most, 1 + sum(other.short == "WriteReplica" for other in world.letters))

    world.bend = bend
    put(world)
    assert most == WINDOW


def test_pieces_of_many_objects_share_a_hosts_room() -> None:
    world, most = World(1), 0
    world.hosts[0].up = False
    for _ in range(8):
        world.owner.put(DATA, required_milli=1_000)

    def bend(letter: Letter) -> None:
        nonlocal most
        most = max(most, 1 + sum(other.short == "WriteReplica" for other in world.letters))

    world.bend, world.hosts[0].up = bend, True
    world.pass_ms(60_000)
    assert WINDOW < most <= shipping.PIECES_PER_HOST_MAX + 8


class TestWhateverGetsLost:
    @given(fates=st.lists(st.sampled_from(["", "", "", "call", "answer", "late"]), max_size=40), seed=st.integers(0, 9))
    def test_the_object_gets_there(self, fates: list[str], seed: int) -> None:
        world, left = World(2), iter(fates)

        def bend(letter: Letter) -> Fault | None:
            fate = next(left, "")
            if fate == "call":
                return OutcomeUnknown("lost on its way", reason="NoAnswer")
            if fate == "late" and world.letters:
                # Others overtake it, and nobody waits for its answer any more.
                world.letters.append(replace(letter, done=lambda end: None))
                return OutcomeUnknown("too late", reason="NoAnswer")
            letter.lose_answer = fate == "answer"
            return None

        world.bend = bend
        made = put(world, 2_000)
        for _ in range(20):
            world.pass_ms(10_000)
        made = world.owner.info(made.object_id)
        assert made.state == DURABLE
        for host in world.hosts:
            assert host.blobs.size(made.object_id) == SEALED

    def test_a_ship_goes_on_where_the_last_one_stopped(self) -> None:
        world = World(1)
        taken = 0

        def bend(letter: Letter) -> Fault | None:
            nonlocal taken
            taken += letter.short == "WriteReplica"
            return Unavailable("the link is gone", reason="NotConnected") if taken > 4 else None

        world.bend = bend
        made = put(world)
        assert made.state != DURABLE
        world.bend = lambda letter: None
        world.log.clear()
        world.pass_ms(60_000)
        assert world.owner.info(made.object_id).state == DURABLE
        assert world.log.count("WriteReplica") <= -(-SEALED // 100) - 3, "what was there was not sent again"


class TestRestarts:
    @pytest.mark.parametrize("at", range(1, 14))
    @pytest.mark.parametrize("who", ["host", "owner"])
    def test_of_either_side_at_any_call_cost_nothing(self, who: str, at: int) -> None:
        world, calls = World(1), 0
        node = world.hosts[0] if who == "host" else world.owner

        def bend(letter: Letter) -> Fault | None:
            nonlocal calls
            calls += 1
            if calls != at:
                return None
            node.blobs.crash(world.rng)
            node.restart()
            return OutcomeUnknown("the connection broke", reason="NoAnswer")

        world.bend = bend
        made = put(world)
        world.pass_ms(120_000)
        made = world.owner.info(made.object_id)
        assert made.state == DURABLE
        assert world.owner.read(made.object_id) == DATA


def _ack_by(world: World, change: Callable[[Ack], Ack], signer: int = 0) -> Callable[[Letter], object]:
    """What the host says is changed and signed anew."""

    def bend(letter: Letter) -> object:
        if letter.short != "CommitReplica":
            return None
        asked = Epoch.decode(letter.request.epoch.body)
        true = Ack(letter.target, asked.owner, asked.quorum_id, asked.epoch, asked.subject, asked.size_bytes, bytes(32))
        body = change(true).encode()
        key = world.hosts[signer].signer
        return Commit(ack=common_pb2.Signed(body=body, signature=key.sign(digest_of(ACK_KIND, SALT, body))))

    return bend


def test_an_ack_that_got_lost_counts_when_it_is_given_again_by_a_host_with_another_key_by_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(1)
    (host,) = world.hosts

    def bend(letter: Letter) -> None:
        if letter.short == "CommitReplica" and not letter.lose_answer:
            letter.lose_answer, world.bend = True, lambda letter: None

    world.bend = bend
    made = world.owner.put(DATA, required_milli=1_000)
    assert world.owner.info(made.object_id).state != DURABLE
    monkeypatch.setattr(world.members, "current_key", lambda node: b"next" * 8)
    monkeypatch.setattr(world.members, "keys", lambda node: [b"next" * 8, world.by_id[node].signer.public_key])
    world.pass_ms(60_000)
    assert world.owner.info(made.object_id).state == DURABLE
    assert host.blobs.size(made.object_id) == SEALED


class TestAnAckThatIsNone:
    @pytest.mark.parametrize(
        "change",
        [
            {"epoch": 2},
            {"epoch": 0},
            {"subject": bytes(32)},
            {"size_bytes": 1},
            {"quorum_id": "object:o-other"},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_is_not_counted(self, change: dict[str, object]) -> None:
        world = World(1)
        world.bend = _ack_by(world, lambda ack: replace(ack, **change))  # type: ignore[assignment,arg-type]
        made = put(world)
        assert (made.state == DURABLE, made.acked_milli) == (False, 0)
        (entry,) = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest()).entries
        assert "acked something else" in entry.trouble
        world.bend = lambda letter: None
        world.pass_ms(120_000)
        assert world.owner.info(made.object_id).state == DURABLE, "an honest one is, later"

    @pytest.mark.parametrize("epoch", [0, 1, 2])
    @pytest.mark.parametrize("what", ["nothing", "a part", "another host's", "all of it"])
    def test_is_one_of_a_host_that_has_not_read_every_byte(self, what: str, epoch: int) -> None:
        """It took nothing, says at once that it has all of it, and vouches for that in the right words."""
        world = World(2)
        world.hosts[1].up = False
        host = world.hosts[0].node_id

        def possession(object_id: str) -> bytes:
            if what == "nothing":
                return bytes(32)
            row = objects_pb2.ObjectRow.FromString(world.owner.store.get(OBJECTS, object_id.encode()) or b"")
            manifest = Manifest.decode(row.object.manifest.signed.body)
            node_id = world.hosts[1].node_id if what == "another host's" else host
            said = Possession(manifest, (0,), SALT, node_id, epoch)
            said.add(0, world.owner.blobs.read(object_id, 0, SEALED - (what == "a part")))
            return said.digest()

        def bend(letter: Letter) -> object:
            if letter.short == "OpenReplica":
                return opened(SEALED)
            if letter.short == "CompareInventory":
                return Unavailable("it would be found out", reason="NotConnected")
            if letter.short != "CommitReplica":
                return None
            claimed = possession(letter.request.object_id)
            return _ack_by(world, lambda ack: replace(ack, possession=claimed))(letter)

        world.bend = bend  # type: ignore[assignment]
        made = put(world)
        told = what == "all of it" and epoch == 1
        assert (made.state == DURABLE, made.acked_milli) == (told, 1_000 * told)
        if not told:
            (entry,) = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest()).entries
            assert "acked other bytes" in entry.trouble

    def test_is_one_by_another_key(self) -> None:
        world = World(2)
        world.bend = _ack_by(world, lambda ack: ack, signer=1)  # type: ignore[assignment]
        made = put(world, 2_000)
        assert {ack.node_id for ack in made.acks} <= {world.hosts[1].node_id}

    @pytest.mark.parametrize("body", [b"", b"x" * 100])
    def test_is_no_ack_at_all(self, body: bytes) -> None:
        world = World(1)
        world.bend = lambda letter: (  # type: ignore[assignment,return-value]
            Commit(ack=common_pb2.Signed(body=body)) if letter.short == "CommitReplica" else None
        )
        assert put(world).acked_milli == 0


@pytest.mark.parametrize("offset", [SEALED + 1, 2**63])
def test_a_host_that_claims_more_than_there_is_is_no_host_for_it(offset: int) -> None:
    world = World(1)
    world.bend = lambda letter: (  # type: ignore[assignment,return-value]
        opened(offset) if letter.short == "OpenReplica" else None
    )
    assert put(world).acked_milli == 0


def test_a_host_that_takes_nothing_is_given_up_after_a_few_tries() -> None:
    world = World(1)
    world.bend = lambda letter: (  # type: ignore[assignment,return-value]
        objects_pb2.WriteReplicaResponse(offset=0) if letter.short == "WriteReplica" else None
    )
    made = world.owner.put(DATA, required_milli=1_000)
    assert world.log.count("WriteReplica") <= WINDOW * (shipping.STUMBLES_MAX + 1)
    assert world.owner.shipping.under_way == 0
    assert world.owner.info(made.object_id).state != DURABLE


@pytest.mark.parametrize("further", [1, 150])
def test_a_host_that_takes_a_little_of_each_piece_is_given_up_after_a_few_tries(further: int) -> None:
    """A byte at a time, or forth and back."""
    world, reached = World(1), 0

    def bend(letter: Letter) -> Message | None:
        nonlocal reached
        if letter.short == "OpenReplica":
            return opened(0)
        if letter.short != "WriteReplica":
            return None
        reached = letter.request.offset + further if letter.request.offset < 400 else 0
        return objects_pb2.WriteReplicaResponse(offset=reached)

    world.bend = bend
    made = world.owner.put(DATA, required_milli=1_000)
    assert world.owner.shipping.under_way == 0
    assert world.log.count("WriteReplica") <= 100
    assert world.owner.info(made.object_id).state != DURABLE


def test_an_object_says_what_it_waits_for_as_long_as_it_does() -> None:
    world = World(2)
    world.hosts[1].up = False
    made = world.owner.put(DATA, required_milli=3_000)
    world.pass_ms(60_000)
    (entry,) = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest()).entries
    (listed,) = world.owner.ask("ListObjects", objects_pb2.ListObjectsRequest()).objects
    assert entry.trouble
    assert world.owner.info(made.object_id).trouble == listed.trouble == entry.trouble
    durable = put(world)
    assert (durable.state, durable.trouble) == (DURABLE, "")


def test_a_lost_copy_of_ones_own_is_said_plainly() -> None:
    world = World(1)
    world.hosts[0].up = False
    made = world.owner.put(DATA, required_milli=1_000)
    world.owner.blobs.delete(made.object_id)
    world.hosts[0].up = True
    world.pass_ms(60_000)
    (entry,) = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest()).entries
    assert "this node's copy" in entry.trouble


def test_the_same_ship_twice_is_one() -> None:
    """Machines that are loaded anew say what is to be shipped again."""
    world = World(1)
    held: list[Letter] = []

    def bend(letter: Letter) -> None:
        held.append(letter)

    world.bend = bend
    made = world.owner.put(DATA, required_milli=1_000)
    first = held[0].request
    world.log.clear()
    ship = Ship(made.object_id, world.hosts[0].node_id, first.manifest, first.epoch)
    world.owner.ship(ship)
    assert world.owner.shipping.under_way == 1
    world.owner.ship(ship)
    assert world.owner.shipping.under_way == 1
    world.settle()
    assert world.log.count("OpenReplica") == 1


def test_a_dropped_blob_stays_where_it_is_kept_for_somebody_else() -> None:
    """An object id is a hash over roots, which whoever saw the manifest may put into his own."""
    world = World(1)
    made, host = put(world), world.hosts[0]
    host.drop_blob(DropBlob(made.object_id))
    assert host.blobs.size(made.object_id) == SEALED
    assert STRIPE == 64


def test_a_dropped_blob_stays_while_it_is_an_object_of_ones_own() -> None:
    world = World(1)
    made = put(world)
    assert made.local, "three copies are wanted, one is there"
    world.owner.drop_blob(DropBlob(made.object_id))
    assert world.owner.blobs.size(made.object_id) == SEALED


def test_who_watches_hears_how_much_the_hosts_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.services.objects.watching.SENT_EVERY_MS", 0)
    world, told = World(1), list[tuple[int, int]]()
    world.hosts[0].up = False
    made = world.owner.put(DATA, required_milli=1_000)
    stream = world.owner.ask("WatchObject", objects_pb2.WatchObjectRequest(object=made.object_id))

    def bend(letter: Letter) -> None:
        told.extend((seen.sent_bytes, seen.sending_bytes) for seen in stream.take())

    world.bend, world.hosts[0].up = bend, True
    world.pass_ms(60_000)
    told.extend((seen.sent_bytes, seen.sending_bytes) for seen in stream.take())
    sending = [(have, of) for have, of in told if of]
    assert {of for _, of in sending} == {SEALED}
    assert sending == sorted(sending)
    assert len({have for have, _ in sending}) > 3
    assert told[-1] == (0, 0), "it is over"
