"""A lost shard is made anew by the host that is to hold it, from the others': one shard's worth comes into each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from bulk_world import Letter, Node, World
from msgspec.structs import replace

from offgrid.pieces import as_a
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, Fault, InvalidRequest, NotFound, Unavailable
from offgrid_node.protocol.events import CORE, PeerDown
from offgrid_node.protocol.objects.code import added, combination
from offgrid_node.protocol.objects.comparing import RETRY_MS as COMPARED_AGAIN_MS
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.parcels import RETRY_MAX_MS, RETRY_MS, UNFIT_MS
from offgrid_node.protocol.objects.settings import REPAIR_AFTER_MS
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.tables import OBJECTS, UNPROVED
from offgrid_node.protocol.objects.walks import WALK_PAUSE_MS
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.objects import combining, pulling
from offgrid_node.services.objects.headway import PAUSE_MS_MIN
from offgrid_node.storage.store import Batch

K, N = 3, 5
DATA = bytes(range(256)) * 5 + b"and a little more"
Sum, Part = objects_pb2.ShardSum, objects_pb2.SumPart
Combine, Combined = objects_pb2.CombineRowsRequest, objects_pb2.CombineRowsResponse


class Stored:
    """DATA as 3 of 5 at five of six hosts; the owner's copy is dropped, and one of them dies for good."""

    def __init__(self, hosts: int = N + 1, copies: int = 0) -> None:
        self.world = World(hosts)
        self.owner, self.hosts = self.world.owner, self.world.hosts
        code = None if copies else objects_pb2.Code(needed=K, total=N)
        opened = self.owner.ask("OpenUpload", objects_pb2.OpenUploadRequest(name="data", code=code, copies=copies))
        self.owner.ask("WriteUpload", objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, data=DATA))
        commit = objects_pb2.CommitUploadRequest(upload_id=opened.upload_id, size_bytes=len(DATA))
        self.made: objects_pb2.Object = self.owner.ask("CommitUpload", commit).object
        self.body = Manifest.decode(self.made.manifest.signed.body)
        self.world.pass_ms(1)
        assert not self.owner.blobs.size(self.body.object_id), "all is acked: the owner has nothing of it"
        self.before = {host.node_id: list(host.blobs.names()) for host in self.hosts}
        self.taken: Counter[str] = Counter()  # bytes of sums that came in, by node
        self.world.log.clear()

    @property
    def victim(self) -> Node:
        return next(host for host in self.hosts if self.before[host.node_id])

    @property
    def fresh(self) -> Node:
        """The one that holds nothing yet."""
        return next(host for host in self.hosts if not self.before[host.node_id])

    def lose(self, *hosts: Node) -> Stored:
        """They are dead for as long as it takes; the victim, where none is named."""
        for host in hosts or [self.victim]:
            host.up = False
            self.owner.runtime.deliver("objects", PeerDown(host.node_id))
        self.world.settle()
        self.world.pass_ms(REPAIR_AFTER_MS)
        self.pass_ms(5 * WALK_PAUSE_MS, WALK_PAUSE_MS)
        return self

    def pass_ms(self, span_ms: int, step_ms: int = 1_000) -> None:
        for _ in range(0, span_ms, step_ms):
            self.world.pass_ms(step_ms)

    def bend(self, change: Callable[[Letter], Any]) -> None:
        def bent(letter: Letter) -> Any:
            if letter.short == "CombineRows":
                self.taken[letter.source] += letter.request.length
            return change(letter)

        self.world.bend = bent

    def whole(self) -> bool:
        """Whether every shard lies at a living host, byte for byte what the code says, and is acked."""
        row = self.owner.info(self.body.object_id)
        living = {host.node_id: host for host in self.hosts if host.up}
        found = {shard: living[ack.node_id] for ack in row.acks for shard in ack.shards if ack.node_id in living}
        return sorted(found) == [*range(N)] and all(
            node.blobs.size(blob_name(self.body, shard)) == self.body.shard_bytes for shard, node in found.items()
        )


class TestALostShard:
    def test_is_made_by_its_new_host_and_no_byte_passes_the_owner(self) -> None:
        stored = Stored()
        stored.bend(lambda letter: None)
        stored.lose()
        assert stored.whole()
        assert stored.owner.read("data") == DATA
        assert {"ReadReplica", "WriteReplica"}.isdisjoint(stored.world.log[: stored.world.log.index("CommitReplica")])
        assert stored.taken[stored.fresh.node_id] == stored.body.shard_bytes
        assert stored.taken[stored.owner.node_id] == 0
        assert max(stored.taken.values()) == stored.body.shard_bytes, "nobody takes in more than one shard's worth"

    def test_is_the_very_shard_that_was_lost(self) -> None:
        stored = Stored()
        (name,) = stored.before[stored.victim.node_id]
        bytes_before = stored.victim.blobs.read(name, 0, stored.body.shard_bytes)
        stored.lose()
        assert stored.fresh.blobs.read(name, 0, stored.body.shard_bytes) == bytes_before

    def test_goes_on_where_it_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pulling, "SUM_BYTES_MAX", 50)
        stored, asked = Stored(), Counter[int]()

        def change(letter: Letter) -> Fault | None:
            if letter.short == "CombineRows" and letter.source == stored.fresh.node_id:
                asked[letter.request.offset] += 1
                if sum(asked.values()) == 4:
                    return Unavailable("the link is gone")
            return None

        stored.bend(change)
        stored.lose()
        assert stored.whole()
        assert {times for offset, times in asked.items() if offset < 150} == {1}, "what was there is not pulled again"
        assert max(asked.values()) <= 2

    def test_at_a_host_that_keeps_another_begins_with_that(self) -> None:
        stored = Stored(hosts=N)
        stored.bend(lambda letter: None)
        stored.lose()
        assert stored.whole()
        assert max(stored.taken.values()) == stored.body.shard_bytes

    def test_that_its_host_says_is_gone_is_made_there_again(self) -> None:
        stored = Stored()
        host = stored.victim
        for name in list(host.blobs.names()):
            host.blobs.delete(name)
        host.restart()
        stored.world.settle()
        stored.pass_ms(10_000)
        assert stored.whole()
        assert "WriteReplica" not in stored.world.log

    def test_at_a_host_that_has_lost_another_is_made_with_that(self) -> None:
        taker = next(host.name for host in Stored(N).lose().hosts if len(list(host.blobs.names())) > 1)
        stored = Stored(N)
        host = next(host for host in stored.hosts if host.name == taker)
        for name in stored.before[host.node_id]:
            host.blobs.delete(name)
        stored.lose()
        stored.pass_ms(RETRY_MAX_MS)
        assert stored.whole(), "what it lacks does not count as kept until somebody audits it"

    def test_of_full_copies_comes_from_another_host(self) -> None:
        stored = Stored(hosts=4, copies=3)
        stored.bend(lambda letter: None)
        stored.lose()
        assert list(stored.fresh.blobs.names()) == [stored.body.object_id]
        assert stored.taken == {stored.fresh.node_id: stored.body.sealed_bytes}
        assert {"ReadReplica", "WriteReplica"}.isdisjoint(stored.world.log)
        assert stored.owner.read("data") == DATA


class TestItsProof:
    def test_nobody_drops_what_it_stands_for_before_an_audit_has_shown_it(self) -> None:
        stored = Stored()
        stored.world.bend = lambda letter: Unavailable("later") if letter.short == "AuditReplicas" else None
        stored.lose()
        old, (name,) = stored.victim, stored.before[stored.victim.node_id]
        assert stored.owner.store.get(UNPROVED, stored.body.object_id.encode()) is not None
        old.up = True
        old.restart()
        stored.world.settle()
        stored.pass_ms(2 * COMPARED_AGAIN_MS)
        assert old.blobs.size(name), "its new host may be lying"
        stored.world.bend = lambda letter: None
        stored.pass_ms(10 * COMPARED_AGAIN_MS, 10_000)
        assert stored.owner.info(stored.body.object_id).verified_us
        assert stored.owner.store.get(UNPROVED, stored.body.object_id.encode()) is None
        assert not old.blobs.size(name)

    def test_is_asked_for_though_the_owner_began_anew_meanwhile(self) -> None:
        """Machines that are loaded anew know nothing of what is under way; what carries it goes on."""
        stored = Stored()

        def change(letter: Letter) -> None:
            if letter.short == "CommitReplica":
                stored.owner.runtime.machine("objects", ObjectsMachine)._delivery._parcels.clear()

        stored.bend(change)
        stored.lose()
        assert stored.owner.store.get(UNPROVED, stored.body.object_id.encode()) is not None


class TestWhenSomebodyFails:
    def test_who_does_not_give_his_part_is_left_out_at_once(self) -> None:
        stored = Stored()
        mute = next(host for host in stored.hosts if stored.before[host.node_id] and host is not stored.victim)

        def change(letter: Letter) -> Fault | None:
            return Unavailable("frozen") if (letter.short, letter.target) == ("CombineRows", mute.node_id) else None

        stored.bend(change)
        stored.lose()
        assert stored.whole(), "without waiting: three others are enough"
        assert "ReadReplica" not in stored.world.log

    def test_a_host_that_could_not_take_it_is_asked_again_in_a_moment(self) -> None:
        """What is nearest to loss does not wait for a walk over all that is short."""
        stored, left = Stored(), 1

        def change(letter: Letter) -> Fault | None:
            nonlocal left
            left -= (asked := letter.short == "RebuildReplica")
            return Unavailable("not now") if asked and left >= 0 else None

        stored.bend(change)
        stored.lose()
        assert not stored.whole()
        stored.pass_ms(2 * RETRY_MS)
        assert stored.whole()

    def test_a_sum_that_came_out_wrong_is_made_of_others(self) -> None:
        stored = Stored()
        liar = next(
            host for host in reversed(stored.hosts) if stored.before[host.node_id] and host is not stored.victim
        )
        (name,) = stored.before[liar.node_id]
        liar.blobs.flip(name, 7)
        stored.lose()
        stored.pass_ms(RETRY_MAX_MS)
        assert stored.whole()
        for host in stored.hosts:
            if host.up and host is not liar:
                for blob in list(host.blobs.names()):
                    assert host.blobs.read(blob, 0, 1)

    def test_at_last_the_owner_fetches_it_which_finds_the_liar(self) -> None:
        stored = Stored()
        wrong = Combined(data=bytes(stored.body.shard_bytes))
        stored.bend(lambda letter: wrong if letter.short == "CombineRows" else None)
        stored.lose()
        stored.pass_ms(2 * RETRY_MAX_MS)
        assert stored.whole()
        assert {"ReadReplica", "WriteReplica"} <= {*stored.world.log}

    def test_a_lying_host_keeps_nobody_at_work(self) -> None:
        """It blames those whom it was told to ask, one after another, and then it is brought the bytes."""
        stored = Stored()

        def change(letter: Letter) -> Fault | None:
            if letter.short != "RebuildReplica":
                return None
            blamed = letter.request.sums[0].parts[0].node_id
            return Unavailable("he did not give it", metadata={combining.UNFIT: blamed})

        stored.bend(change)
        stored.lose()
        stored.pass_ms(UNFIT_MS)
        assert stored.whole()
        assert stored.world.log.count("RebuildReplica") <= N

    def test_too_few_left_wait_for_one_that_comes_back(self) -> None:
        stored = Stored()
        gone = [host for host in stored.hosts if stored.before[host.node_id]][:3]
        stored.lose(*gone)
        stored.pass_ms(RETRY_MAX_MS)
        assert not stored.whole()
        gone[1].up = True
        gone[1].restart()
        stored.world.settle()
        stored.pass_ms(3 * RETRY_MAX_MS)
        assert stored.owner.read("data") == DATA
        assert stored.whole()


class TestItsBounds:
    def test_a_paced_host_takes_its_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pulling, "SUM_BYTES_MAX", 50)
        stored = Stored()
        stored.fresh.pace.bytes_per_s = 100
        stored.lose()
        took_ms = 0
        while not stored.whole():
            stored.world.pass_ms(100)
            took_ms += 100
        assert stored.fresh.pace.pulled_bytes == stored.body.shard_bytes
        assert took_ms >= (stored.body.shard_bytes - 150) * 1_000 // 100

    def test_each_in_a_row_has_less_time_than_who_asks_him(self) -> None:
        stored, given = Stored(), dict[int, int]()

        def change(letter: Letter) -> None:
            if letter.short == "CombineRows":
                given[len(letter.request.parts)] = letter.request.timeout_ms

        stored.bend(change)
        stored.lose()
        assert [*given] == [3, 2, 1]
        assert given[3] > given[2] > given[1] > 0

    def test_he_who_has_no_time_left_asks_nobody(self) -> None:
        stored = Stored()
        first, second = [host for host in stored.hosts if stored.before[host.node_id]][:2]
        with pytest.raises(Unavailable, match="waited"):
            first.ask_as(second, "CombineRows", combine(stored, (first, second), timeout_ms=1))
        assert stored.world.log.count("CombineRows") == 0

    def test_it_is_the_sum_of_what_is_asked_for(self) -> None:
        stored = Stored()
        first, second = [host for host in stored.hosts if stored.before[host.node_id]][:2]
        answer = first.ask_as(stored.owner, "CombineRows", combine(stored, (first, second)))
        rows = [host.blobs.read(stored.before[host.node_id][0], 3, 20) for host in (first, second)]
        assert answer.data == added(combination(b"\5", rows[:1]), combination(b"\6", rows[1:]))

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda r: r.ClearField("parts"), "parts: 0 of them"),
            (lambda r: r.parts.append(r.parts[0]), "twice"),
            (
                lambda r: r.parts[1].MergeFrom(Part(shards=r.parts[0].shards, coefficients=b"\1")),
                "a shard stands in it",
            ),
            (lambda r: setattr(r.parts[1], "coefficients", b""), "0 coefficients for 1 shards"),
            (lambda r: r.parts.sort(key=lambda part: part.coefficients, reverse=True), "not this node's"),
            (lambda r: setattr(r, "length", combining.SUM_BYTES_MAX + 1), "length: 524289"),
            (lambda r: setattr(r, "length", 0), "length: 0"),
            (lambda r: setattr(r, "offset", 1 << 40), "offset: 20 bytes at"),
            (lambda r: setattr(r, "object_id", "../x"), "no object id"),
        ],
    )
    def test_what_cannot_be_is_refused(self, change: Callable[[Any], object], match: str) -> None:
        stored = Stored()
        first, second = [host for host in stored.hosts if stored.before[host.node_id]][:2]
        request = combine(stored, (first, second))
        change(request)
        with pytest.raises(InvalidRequest, match=match):
            first.ask_as(stored.owner, "CombineRows", request)
        assert stored.world.log.count("CombineRows") == 0

    def test_nobody_asks_on_for_what_he_has_no_part_of(self) -> None:
        stored = Stored()
        keeper = stored.victim
        with pytest.raises(NotFound):
            stored.fresh.ask_as(stored.owner, "CombineRows", combine(stored, (stored.fresh, keeper), shards=b"\0\1"))
        assert stored.world.log.count("CombineRows") == 0

    def test_no_caller_has_more_than_so_many_under_way(self) -> None:
        stored = Stored()
        first, second = [host for host in stored.hosts if stored.before[host.node_id]][:2]
        request, waiting = combine(stored, (first, second)), combining.SUMS_PER_CALLER_MAX
        caller = Caller(Kind.MEMBER, stored.owner.node_id, frozenset({CORE}))
        begun = [first.begin("CombineRows", request, caller) for _ in range(waiting + 1)]
        assert isinstance(begun[-1].outcome, Exhausted)
        assert all(ticket.outcome is None for ticket in begun[:-1])
        stored.world.settle()
        assert all(as_a(Combined, ticket.outcome) for ticket in begun[:-1])

    def test_only_what_the_owner_has_opened_is_rebuilt(self) -> None:
        stored = Stored()
        request = objects_pb2.RebuildReplicaRequest(object_id=stored.body.object_id, sums=[Sum(shard=0)])
        with pytest.raises(FailedPrecondition) as told:
            stored.fresh.ask_as(stored.owner, "RebuildReplica", request)
        assert told.value.reason == "NotOpened"


def combine(
    stored: Stored, hosts: tuple[Node, Node], *, shards: bytes = b"", timeout_ms: int = 10_000
) -> objects_pb2.CombineRowsRequest:
    held = [shards[at : at + 1] or bytes([held_by(stored, host)]) for at, host in enumerate(hosts)]
    parts = [Part(node_id=host.node_id, shards=mine, coefficients=bytes([5 + at])) for at, (host, mine) in
             enumerate(zip(hosts, held, strict=True))]  # fmt: skip
    return Combine(object_id=stored.body.object_id, offset=3, length=20, parts=parts, timeout_ms=timeout_ms)


def held_by(stored: Stored, host: Node) -> int:
    return int(stored.before[host.node_id][0].partition(".")[2])


def test_what_is_to_lie_elsewhere_by_now_is_not_made_twice() -> None:
    stored, told = Stored(), list[str]()

    def change(letter: Letter) -> Fault | None:
        if letter.short == "RebuildReplica":
            told.append(letter.target)
            if len(told) == 1:  # its owner moves the shard while the host is at work
                row = stored.owner.store.get(OBJECTS, stored.body.object_id.encode())
                moved = objects_pb2.ObjectRow.FromString(row or b"")
                epoch = Epoch.decode(moved.epoch.body)
                moved.epoch.body = replace(epoch, layout=epoch.layout[::-1]).encode()
                key = OBJECTS, stored.body.object_id.encode()
                stored.owner.store.commit(Batch(writes={key: moved.SerializeToString()}))
                return objects_pb2.RebuildReplicaResponse(
                    shards=[objects_pb2.ShardProgress(shard=each.shard) for each in letter.request.sums], retry_ms=1
                )
        return None

    stored.bend(change)
    stored.lose()
    stored.world.pass_ms(PAUSE_MS_MIN)
    assert told == [stored.fresh.node_id]
    assert not list(stored.fresh.blobs.names())
