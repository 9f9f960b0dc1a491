"""A coded object on its way to hosts and back: any k of n shards give it back, whoever lies, sleeps or is gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest
from bulk_world import Letter, Node, World
from coded_world import DATA, Coded, K, N

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import (
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from offgrid_node.protocol.events import CORE
from offgrid_node.protocol.objects.errands import Shipped
from offgrid_node.protocol.objects.manifest import Code
from offgrid_node.protocol.objects.shards import blob_name, row_span
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.flow import run
from offgrid_node.services.objects import shipping, windows
from offgrid_node.services.objects.codes import CodePolicy
from offgrid_node.services.objects.gathering import HEDGE_MS
from offgrid_node.services.objects.holders import LYING_MS, Holders, holders_of
from offgrid_node.services.objects.serving import PROOFS_PER_CALLER_MAX

Read, Reply = objects_pb2.ReadReplicaRequest, objects_pb2.ReadReplicaResponse


@pytest.fixture
def coded() -> Coded:
    return Coded().spread()


class TestItsWayOut:
    def test_each_host_gets_its_shards_and_nothing_else(self) -> None:
        coded = Coded()
        coded.layout = (0, 1, 2, 1, 0)
        coded.spread()
        assert [coded.held(host) for host in coded.hosts] == [[0, 4], [1, 3], [2], [], []]
        for host in coded.hosts[:3]:
            for shard in coded.held(host):
                assert host.blobs.size(blob_name(coded.body, shard)) == coded.body.shard_bytes

    def test_a_host_goes_on_where_it_stopped_in_each_shard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shipping, "PIECE_BYTES_MAX", 50)
        coded = Coded()
        coded.layout = (0, 0, 0, 0, 0)
        taken = 0

        def bend(letter: Letter) -> Fault | None:
            nonlocal taken
            taken += letter.short == "WriteReplica"
            return Unavailable("the link is gone") if taken > 12 else None

        coded.world.bend = bend
        coded.ship(coded.hosts[0])
        assert coded.held(coded.hosts[0]) == []
        coded.world.bend = lambda letter: None
        coded.ship(coded.hosts[0])
        assert coded.held(coded.hosts[0]) == [0, 1, 2, 3, 4]
        pieces = N * -(-coded.body.shard_bytes // 50)
        assert coded.world.log.count("WriteReplica") <= pieces + 3, "what was there was not sent again"

    def test_nothing_stays_of_one_that_is_deleted_while_it_is_committed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        coded = Coded()
        coded.layout = (0, 0, 1, 2, 3)
        host, finished = coded.hosts[0], list[str]()
        finish_all = host.blobs.finish_all

        def last_moment(names: Mapping[str, str]) -> None:
            finish_all(names)
            finished.extend(names.values())
            notices = objects_pb2.DeliverNoticesRequest(deleted=[coded.body.object_id])
            host.begin("DeliverNotices", notices, Caller(Kind.MEMBER, coded.owner.node_id, frozenset({CORE})))

        monkeypatch.setattr(host.blobs, "finish_all", last_moment)
        coded.ship(host)
        assert finished == [blob_name(coded.body, shard) for shard in (0, 1)]
        assert (coded.held(host), host.blobs.all_staged()) == ([], [])

    @pytest.mark.parametrize("nth", range(4))
    def test_nothing_stays_of_one_whose_disk_refuses_it_midway(self, nth: int) -> None:
        """Else it would stay, though it is deleted meanwhile: no row knows of it."""
        coded = Coded()
        coded.layout = (0, 0, 1, 2, 3)
        coded.hosts[0].blobs.fail_sync(nth)  # two files and two folders
        coded.ship(coded.hosts[0])
        assert coded.held(coded.hosts[0]) == []
        coded.ship(coded.hosts[0])
        assert coded.held(coded.hosts[0]) == [0, 1]

    def test_a_newer_epoch_brings_what_is_new_and_drops_what_went(self, coded: Coded) -> None:
        coded.layout, coded.number = (1, 0, 2, 0, 4), coded.number + 1
        coded.ship(coded.hosts[0])
        assert coded.held(coded.hosts[0]) == [1, 3]

    def test_whatever_was_flipped_on_its_way_is_not_kept(self) -> None:
        coded = Coded()

        def bend(letter: Letter) -> None:
            if letter.short == "WriteReplica" and letter.target == coded.hosts[4].node_id:
                letter.request.data = bytes([letter.request.data[0] ^ 1]) + letter.request.data[1:]

        coded.world.bend = bend  # type: ignore[assignment]
        coded.spread()
        assert [coded.held(host) for host in coded.hosts] == [[0], [1], [2], [3], []]

    def test_a_shard_that_is_not_this_hosts_is_refused(self, coded: Coded) -> None:
        host = coded.hosts[0]
        host.blobs.delete(blob_name(coded.body, 0))
        request = objects_pb2.OpenReplicaRequest(manifest=coded.made.manifest, epoch=coded.epoch())
        host.ask_as(coded.owner, "OpenReplica", request)
        write = objects_pb2.WriteReplicaRequest(object_id=coded.body.object_id, shard=1, data=b"x")
        with pytest.raises(InvalidRequest, match=r"shard: 1; .* 0 here"):
            host.ask_as(coded.owner, "WriteReplica", write)

    def test_the_code_may_show_only_at_the_end(self) -> None:
        first = Coded(size_known=False).spread()
        assert (first.body.k, first.body.n) == (K, N)
        assert first.read() == DATA


class TestItsWayBack:
    @pytest.mark.parametrize("gone", [(), (0, 1), (3, 4), (1, 3)])
    def test_any_k_shards_are_enough(self, coded: Coded, gone: tuple[int, ...]) -> None:
        for at in gone:
            coded.hosts[at].up = False
        assert coded.read() == DATA

    def test_data_rows_of_living_hosts_are_read_when_all_is_well(self, coded: Coded) -> None:
        targets: set[str] = set()
        coded.world.bend = lambda letter: targets.add(letter.target)  # type: ignore[func-returns-value]
        coded.read()
        assert targets == {host.node_id for host in coded.hosts[:K]}

    def test_whoever_reads_on_gets_windows_that_double(self, coded: Coded) -> None:
        lengths: list[int] = []
        first = coded.hosts[0].node_id

        def bend(letter: Letter) -> None:
            if letter.target == first:
                lengths.append(letter.request.length)

        coded.world.bend = bend  # type: ignore[assignment]
        coded.read()
        row = coded.body.row_bytes
        assert lengths[:3] == [row, 2 * row, 4 * row]
        assert sum(lengths) == coded.body.shard_bytes, "nothing is read twice"
        first_time = lengths.copy()
        lengths.clear()
        coded.read()
        assert lengths == first_time, "a reader that begins anew does not begin in the middle"

    def test_nothing_is_held_once_all_is_read(self, coded: Coded) -> None:
        coded.read()
        assert coded.owner.reading._windows.held_bytes == 0

    def test_whoever_finds_no_room_is_served_stripe_by_stripe(
        self, coded: Coded, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reading, stripe_bytes, ends = coded.owner.reading, K * coded.body.row_bytes, []
        monkeypatch.setattr(windows, "WINDOWS_BYTES_MAX", 6 * stripe_bytes)
        coded.owner.blobs.delete(coded.body.object_id)
        key = reading.key_of(coded.made.manifest)
        assert coded.body.stripes > 8
        for index in range(coded.body.stripes):  # all under way at once: nobody has answered yet
            run(reading.stripe(coded.body, key, index, coded.holders), ends.append)
            coded.owner.runtime.turn()
            assert reading._windows.held_bytes <= 6 * stripe_bytes + (index + 1) * stripe_bytes
        asked = [letter.request for letter in coded.world.letters if letter.short == "ReadReplica"]
        lengths = [request.length for request in asked if request.shard == 0]
        last = max(at for at, length in enumerate(lengths, 1) if length > coded.body.row_bytes)
        assert K * sum(lengths[:last]) <= 6 * stripe_bytes, "only where there was room"
        coded.world.settle()
        assert b"".join(end[0] for end in ends) == DATA
        assert reading._windows.held_bytes <= 6 * stripe_bytes

    def test_one_shard_too_few_is_a_clear_error(self, coded: Coded) -> None:
        for at in (0, 2, 4):
            coded.hosts[at].up = False
        with pytest.raises(Unavailable, match="3 are needed, 2 can be had") as caught:
            coded.read()
        assert caught.value.reason == "NoReplica"
        for at in (0, 2, 4):
            assert f"shard {at}: {coded.hosts[at].node_id} is not alive" in caught.value.message

    def test_a_host_that_has_several_is_told_of_once(self) -> None:
        world = World(2)
        opened = world.owner.ask(
            "OpenUpload", objects_pb2.OpenUploadRequest(code=objects_pb2.Code(needed=2, total=6), required_milli=1)
        )
        world.owner.ask("WriteUpload", objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, data=DATA))
        commit = objects_pb2.CommitUploadRequest(upload_id=opened.upload_id, size_bytes=len(DATA))
        object_id = world.owner.ask("CommitUpload", commit).object.object_id
        world.pass_ms(1_000)
        shards = {ack.node_id: ", ".join(map(str, ack.shards)) for ack in world.owner.info(object_id).acks}
        assert not world.owner.info(object_id).local
        for host in world.hosts:
            host.up = False
        with pytest.raises(Unavailable, match="2 are needed, 0 can be had") as caught:
            world.owner.read(object_id)
        for node, listed in shards.items():
            assert caught.value.message.count(f"shards {listed}: {node} is not alive") == 1

    def test_a_liar_is_found_by_proofs_and_asked_last_from_then_on(self, coded: Coded) -> None:
        liar, asked = coded.hosts[1].node_id, 0

        def bend(letter: Letter) -> Reply | None:
            nonlocal asked
            if letter.short != "ReadReplica" or letter.target != liar:
                return None
            asked += 1
            return Reply(data=b"\0" * letter.request.length, size_bytes=coded.body.shard_bytes)

        coded.world.bend = bend
        assert coded.read() == DATA
        before = asked
        assert coded.read() == DATA
        assert asked == before, "four honest ones are enough"
        coded.world.pass_ms(LYING_MS)
        coded.read()
        assert asked > before

    def test_a_liar_that_is_needed_is_an_error_that_names_it(self, coded: Coded) -> None:
        for at in (3, 4):
            coded.hosts[at].up = False
        liar = coded.hosts[1].node_id
        coded.world.bend = lambda letter: (
            Reply(data=b"\0" * letter.request.length, size_bytes=1) if letter.target == liar else None
        )
        with pytest.raises(Unavailable, match=f"shard 1: {liar} gave other bytes"):
            coded.read()

    def test_a_slow_host_costs_a_moment_and_no_more(self, coded: Coded) -> None:
        frozen, held = coded.hosts[0].node_id, list[Letter]()
        carry = coded.world._carry
        coded.world._carry = lambda letter: (  # type: ignore[method-assign]
            held.append(letter) if (letter.target, letter.short) == (frozen, "ReadReplica") else carry(letter)
        )
        started = coded.world.clock.mono_ms
        assert coded.read() == DATA
        assert len(held) == 1, "it is asked last from then on"
        assert coded.world.clock.mono_ms - started <= 1_000 + HEDGE_MS

    def test_whoever_does_not_know_the_hosts_is_told_by_the_owner(self, coded: Coded) -> None:
        """A host that runs a job on it knows nobody but its core."""
        owner = coded.owner.node_id

        def bend(letter: Letter) -> Fault | None:
            if letter.target != owner or letter.short != "ReadReplica":
                return None
            return NotFound("gone", metadata={"holders": coded.hosts[letter.request.shard].node_id})

        coded.world.bend = bend
        assert coded.read(Holders([owner]), reader=coded.hosts[4]) == DATA

    def test_an_owner_gives_any_shard_while_its_sealed_copy_is_there(self) -> None:
        coded = Coded()
        shards = [
            coded.hosts[0].ask_as
            and coded.owner.ask_as(
                coded.hosts[0],
                "ReadReplica",
                Read(object_id=coded.body.object_id, shard=shard, offset=0, length=coded.body.shard_bytes),
            ).data
            for shard in range(N)
        ]
        coded.spread()
        for shard, host in enumerate(coded.hosts):
            assert host.blobs.read(blob_name(coded.body, shard), 0, coded.body.shard_bytes) == shards[shard]

    def test_no_answer_in_time_is_no_end_while_there_are_others(self, coded: Coded) -> None:
        late = coded.hosts[0].node_id
        coded.world.bend = lambda letter: OutcomeUnknown("too late") if letter.target == late else None
        assert coded.read() == DATA


class TestAProof:
    def ask(self, coded: Coded, **changes: int) -> Reply:
        offset, length = row_span(coded.body, 2)
        request = Read(object_id=coded.body.object_id, shard=1, offset=offset, length=length, prove=True)
        for name, value in changes.items():
            setattr(request, name, value)
        reply: Reply = coded.hosts[1].ask_as(coded.owner, "ReadReplica", request)
        return reply

    def test_comes_with_the_row(self, coded: Coded) -> None:
        assert len(self.ask(coded).path) > 0

    def test_is_under_way_a_few_times_for_one_caller(self, coded: Coded) -> None:
        """Each reads a whole shard: to hang up and ask again fills no pool."""
        coded.spread()
        held, host = deque[tuple[Any, Any]](), coded.hosts[1]
        offset, length = row_span(coded.body, 2)
        request = Read(object_id=coded.body.object_id, shard=1, offset=offset, length=length, prove=True)
        host.bulk._carry = lambda work, ended: held.append((work, ended))
        asked = [
            host.begin("ReadReplica", request, Caller(Kind.MEMBER, coded.owner.node_id, frozenset({CORE})))
            for _ in range(PROOFS_PER_CALLER_MAX + 1)
        ]
        for _ in asked:  # the row itself, read beside the others
            work, ended = held.popleft()
            ended(work())
        assert [isinstance(each.outcome, Exhausted) for each in asked] == [False] * PROOFS_PER_CALLER_MAX + [True]
        while held:
            work, ended = held.popleft()
            ended(work())
        assert all(each.outcome.path for each in asked[:-1])

    def test_is_of_one_row_alone(self, coded: Coded) -> None:
        with pytest.raises(InvalidRequest, match="not one row"):
            self.ask(coded, length=5)

    def test_is_not_there_for_what_is_not_kept(self, coded: Coded) -> None:
        with pytest.raises(NotFound):
            self.ask(coded, shard=2)


class TestTheCode:
    @pytest.mark.parametrize(("needed", "total"), [(0, 3), (3, 3), (4, 3), (1, 129)])
    def test_must_be_possible(self, needed: int, total: int) -> None:
        request = objects_pb2.OpenUploadRequest(code=objects_pb2.Code(needed=needed, total=total))
        with pytest.raises(InvalidRequest, match="code"):
            World(0).owner.ask("OpenUpload", request)

    def test_is_not_asked_for_together_with_copies(self) -> None:
        code = objects_pb2.Code(needed=3, total=5)
        with pytest.raises(InvalidRequest, match="copies"):
            World(0).owner.ask("OpenUpload", objects_pb2.OpenUploadRequest(code=code, copies=2))

    def test_is_by_size_where_nothing_is_asked_for(self) -> None:
        policy, request = CodePolicy(Code(12, 20), 100), objects_pb2.OpenUploadRequest()
        assert policy.code_for(request, 99) == (1, 1)
        assert policy.code_for(request, 100) == (12, 20)
        request.copies = 3
        assert policy.code_for(request, 100) == (1, 1)


def test_holders_are_those_that_the_epoch_lays_the_shards_at() -> None:
    coded = Coded()
    row = objects_pb2.ObjectRow(epoch=coded.epoch())
    assert [holders_of(row).of(shard)[0] for shard in range(N)] == [host.node_id for host in coded.hosts]


def test_shards_that_an_epoch_moved_too_soon_are_found_where_they_lay(coded: Coded) -> None:
    coded.layout, coded.number = (0,) * N, 101  # nothing of it has been brought there yet
    row = objects_pb2.ObjectRow(object=coded.made, epoch=coded.epoch(), asked=[host.node_id for host in coded.hosts])
    del row.object.acks[:]
    assert coded.hosts[1].node_id not in holders_of(row).of(1)
    assert coded.read(holders_of(row)) == DATA
    assert not any(coded.owner.trust.rank(host.node_id)[0] for host in coded.hosts[1:]), "they never said they have it"


class TestAnOwnersBadCopy:
    def shipped(self, coded: Coded, host: Node, monkeypatch: pytest.MonkeyPatch) -> Shipped:
        ends: list[Shipped] = []
        monkeypatch.setattr(coded.owner.runtime, "deliver", lambda domain, event: ends.append(event))
        coded.ship(host)
        (end,) = ends
        return end

    @pytest.mark.parametrize("shard", [0, N - 1])
    def test_is_found_out_when_it_is_rotten(self, shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
        coded = Coded()
        blobs, name = coded.owner.blobs, coded.body.object_id
        sealed = bytearray(blobs.read(name, 0, coded.body.sealed_bytes))
        sealed[0] ^= 1
        blobs.append("rotten", 0, bytes(sealed))
        blobs.finish("rotten", name)
        end = self.shipped(coded, coded.hosts[shard], monkeypatch)
        assert (end.ack, end.source_bad) == (None, True)

    def test_is_found_out_when_its_host_has_the_right_bytes_already(self, monkeypatch: pytest.MonkeyPatch) -> None:
        coded = Coded().spread()
        name = coded.body.object_id
        coded.owner.blobs.flip(name, 0)
        coded.number += 1
        end = self.shipped(coded, coded.hosts[0], monkeypatch)
        assert (end.ack, end.source_bad) == (None, True)

    def test_is_found_out_when_it_is_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        coded = Coded()
        coded.owner.blobs.delete(coded.body.object_id)
        assert self.shipped(coded, coded.hosts[0], monkeypatch).source_bad

    @pytest.mark.parametrize("reason", ["WrongRoot", "BlobLost"])
    def test_is_never_believed_of_a_host(self, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
        coded = Coded()
        refused = FailedPrecondition("other bytes", reason=reason)
        coded.world.bend = lambda letter: refused if letter.short == "CommitReplica" else None
        end = self.shipped(coded, coded.hosts[0], monkeypatch)
        assert (end.ack, end.source_bad) == (None, False)
