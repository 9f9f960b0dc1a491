"""What an owner puts: pieces of any size, repeats, restarts, and every refusal.

Long, since it is the whole specification of one machine part, case by case, over one bench.
"""

from __future__ import annotations

import pytest
from bulk_world import STRIPE, World
from hypothesis import given
from hypothesis import strategies as st

from offgrid.plaintext import checksum_of
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import (
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    Fault,
    Internal,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.services.bulk import inline
from offgrid_node.services.flow import ticket_of
from offgrid_node.services.objects.puts import ENQUEUE_BYTES_MAX
from offgrid_node.services.objects.under_way import IDLE_MS_MAX, NAMED_MS_MAX, UNNAMED_MS_MAX, UPLOADS_MAX
from offgrid_node.services.objects.uploads import (
    EXPIRES_AFTER_MS_MAX,
    LOOK_MS,
    NAME_CHARS_MAX,
    PIECE_BYTES_MAX,
)

Open, Write, Commit, Abort = (
    objects_pb2.OpenUploadRequest,
    objects_pb2.WriteUploadRequest,
    objects_pb2.CommitUploadRequest,
    objects_pb2.AbortUploadRequest,
)
ACCEPTED, DURABLE = objects_pb2.OBJECT_STATE_ACCEPTED, objects_pb2.OBJECT_STATE_DURABLE


@pytest.fixture
def world() -> World:
    return World()


def opened(world: World, **fields: object) -> objects_pb2.OpenUploadResponse:
    answer: objects_pb2.OpenUploadResponse = world.owner.ask("OpenUpload", Open(**fields))
    return answer


def commit_of(upload_id: str, data: bytes) -> objects_pb2.CommitUploadRequest:
    return Commit(upload_id=upload_id, size_bytes=len(data), checksum=checksum_of(data))


@given(data=st.binary(max_size=5 * STRIPE), cuts=st.lists(st.integers(0, 5 * STRIPE), max_size=6))
def test_whatever_the_pieces_the_object_reads_back(data: bytes, cuts: list[int]) -> None:
    world = World(1)
    upload_id, offset = opened(world).upload_id, 0
    for end in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        piece = Write(upload_id=upload_id, offset=offset, data=data[offset:end])
        offset = world.owner.ask("WriteUpload", piece).offset
        assert offset == end
    made = world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=len(data))).object
    assert (made.size_bytes, made.state) == (len(data), ACCEPTED)
    assert world.owner.read(made.object_id) == data
    assert world.hosts[0].blobs.size(made.object_id) == len(data) + 16 * max(1, -(-len(data) // STRIPE))


class TestPieces:
    def test_may_come_again(self, world: World) -> None:
        upload_id = opened(world).upload_id
        for offset, data, end in ((0, b"abcd", 4), (0, b"abcd", 4), (2, b"cdef", 6), (0, b"ab", 6)):
            piece = Write(upload_id=upload_id, offset=offset, data=data)
            assert world.owner.ask("WriteUpload", piece).offset == end
        made = world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=6)).object
        assert world.owner.read(made.object_id) == b"abcdef"

    def test_leave_no_gap(self, world: World) -> None:
        upload_id = opened(world).upload_id
        with pytest.raises(FailedPrecondition, match="gap") as caught:
            world.owner.ask("WriteUpload", Write(upload_id=upload_id, offset=1, data=b"b"))
        assert caught.value.metadata["offset"] == "0"
        assert world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"a")).offset == 1, "it goes on"

    def test_are_bounded(self, world: World) -> None:
        request = Write(upload_id=opened(world).upload_id, data=bytes(PIECE_BYTES_MAX + 1))
        with pytest.raises(InvalidRequest, match="data"):
            world.owner.ask("WriteUpload", request)

    def test_touch_the_disk_sealed_only(self, world: World) -> None:
        upload_id, marker = opened(world).upload_id, b"the marker " * 100
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=marker))
        (staged,) = world.owner.blobs.all_staged()
        assert staged.size_bytes >= 10 * STRIPE
        assert b"marker" not in world.owner.blobs.read_staged(staged.name, 0, staged.size_bytes)


class TestARequestId:
    def test_goes_on_where_it_stopped(self, world: World) -> None:
        upload_id = opened(world, request_id="r").upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=bytes(100)))
        again = opened(world, request_id="r")
        assert (again.upload_id, again.offset) == (upload_id, 100)

    def test_begins_again_after_a_restart(self, world: World) -> None:
        upload_id = opened(world, request_id="r").upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=bytes(100)))
        world.owner.restart()
        with pytest.raises(NotFound, match="open it again") as caught:
            world.owner.ask("WriteUpload", Write(upload_id=upload_id, offset=100, data=b"x"))
        assert caught.value.reason == "UploadNotFound"
        assert opened(world, request_id="r").offset == 0

    def test_finds_what_is_committed_even_after_a_restart(self, world: World) -> None:
        made = world.owner.put(b"once", name="n", request_id="r")
        for _ in range(2):
            again = opened(world, name="n", request_id="r")
            assert again.offset == 4
            commit = Commit(upload_id=again.upload_id, size_bytes=4, checksum=checksum_of(b"once"))
            assert world.owner.ask("CommitUpload", commit).object.object_id == made.object_id
            world.owner.restart()
        assert len(world.owner.ask("ListObjects", objects_pb2.ListObjectsRequest()).objects) == 1

    def test_makes_nothing_else(self, world: World) -> None:
        world.owner.put(b"once", name="n", request_id="r")
        world.owner.restart()
        with pytest.raises(AlreadyExists, match="another request"):
            opened(world, name="other", request_id="r")

    @pytest.mark.parametrize("other", [{"name": "other"}, {"required_milli": 1}, {"size_bytes": 5}])
    @pytest.mark.parametrize("whole", [False, True])
    def test_is_refused_at_once_for_another_put(self, world: World, other: dict[str, object], whole: bool) -> None:
        said = {"name": "n", "size_bytes": 4, "request_id": "r"}
        upload_id = opened(world, **said).upload_id
        if whole:
            world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"once"))
            world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=4))
            world.owner.restart()
        with pytest.raises(AlreadyExists) as caught:
            opened(world, **{**said, **other})
        assert caught.value.reason == "RequestIdReused"


class TestTwoClientsUnderOneRequestId:
    """They send the same number of different bytes at the same time."""

    MINE, YOURS = b"a" * STRIPE + b"AAAA", b"b" * STRIPE + b"BBBB"

    def mixed(self, world: World) -> str:
        mine = opened(world, request_id="r", size_bytes=len(self.MINE))
        world.owner.ask("WriteUpload", Write(upload_id=mine.upload_id, data=self.MINE[:STRIPE]))
        yours = opened(world, request_id="r", size_bytes=len(self.YOURS))
        rest = Write(upload_id=yours.upload_id, offset=yours.offset, data=self.YOURS[yours.offset :])
        assert world.owner.ask("WriteUpload", rest).offset == len(self.MINE)
        assert mine.upload_id == yours.upload_id
        return mine.upload_id

    @pytest.mark.parametrize("whose", [MINE, YOURS])
    def test_make_no_object_of_both(self, world: World, whose: bytes) -> None:
        upload_id = self.mixed(world)
        with pytest.raises(AlreadyExists) as caught:
            world.owner.ask("CommitUpload", commit_of(upload_id, whose))
        assert caught.value.reason == "RequestIdReused"
        assert not world.owner.ask("ListObjects", objects_pb2.ListObjectsRequest()).objects
        assert (list(world.owner.blobs.names()), world.owner.blobs.all_staged()) == ([], [])

    def test_must_say_what_they_sent(self, world: World) -> None:
        upload_id = self.mixed(world)
        with pytest.raises(InvalidRequest, match="checksum: missing"):
            world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=len(self.MINE)))

    def test_begin_anew_and_the_first_to_end_has_it(self, world: World) -> None:
        with pytest.raises(AlreadyExists):
            world.owner.ask("CommitUpload", commit_of(self.mixed(world), self.YOURS))
        mine = opened(world, request_id="r", size_bytes=len(self.MINE))
        world.owner.ask("WriteUpload", Write(upload_id=mine.upload_id, data=self.MINE))
        made = world.owner.ask("CommitUpload", commit_of(mine.upload_id, self.MINE)).object
        assert world.owner.read(made.object_id) == self.MINE
        for _ in range(2):
            yours = opened(world, request_id="r", size_bytes=len(self.YOURS))
            with pytest.raises(AlreadyExists, match="of other bytes"):
                world.owner.ask("CommitUpload", commit_of(yours.upload_id, self.YOURS))
            world.owner.restart()

    def test_of_unknown_sizes_are_told_apart_by_what_they_send(self, world: World) -> None:
        made = world.owner.put(b"once", request_id="r")
        again = opened(world, request_id="r")
        with pytest.raises(AlreadyExists, match=made.object_id):
            world.owner.ask("WriteUpload", Write(upload_id=again.upload_id, offset=4, data=b"more"))
        with pytest.raises(AlreadyExists, match="3 were said, 4 are here"):
            world.owner.ask("CommitUpload", commit_of(again.upload_id, b"onc"))

    def test_a_late_piece_of_one_does_not_slip_into_the_others_commit(self, world: World) -> None:
        upload_id = opened(world, request_id="r").upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"abc"))
        held: list[object] = []
        world.owner.bulk._carry = lambda work, ended: held.append((work, ended))
        late = world.owner.begin("WriteUpload", Write(upload_id=upload_id, offset=3, data=b"d"))
        commit = world.owner.begin("CommitUpload", Commit(upload_id=upload_id, size_bytes=3))
        world.owner.bulk._carry = inline
        (work, ended), *_ = held
        ended(work())
        world.settle()
        assert late.outcome.offset == 4
        assert isinstance(commit.outcome, InvalidRequest)
        assert not world.owner.ask("ListObjects", objects_pb2.ListObjectsRequest()).objects

    def test_one_client_that_goes_on_is_no_two(self, world: World) -> None:
        first = opened(world, request_id="r", size_bytes=len(self.MINE))
        world.owner.ask("WriteUpload", Write(upload_id=first.upload_id, data=self.MINE[:STRIPE]))
        again = opened(world, request_id="r", size_bytes=len(self.MINE))
        rest = Write(upload_id=again.upload_id, offset=again.offset, data=self.MINE[again.offset :])
        world.owner.ask("WriteUpload", rest)
        made = world.owner.ask("CommitUpload", commit_of(again.upload_id, self.MINE)).object
        assert world.owner.read(made.object_id) == self.MINE


class TestACommit:
    def test_may_come_twice(self, world: World) -> None:
        upload_id = opened(world).upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"abc"))
        first = world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=3)).object
        second = world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=3)).object
        assert second.object_id == first.object_id
        assert len(world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest()).entries) == 1

    def test_of_another_size_is_refused_and_the_upload_goes_on(self, world: World) -> None:
        upload_id = opened(world).upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"abc"))
        with pytest.raises(InvalidRequest, match="4 were said, 3 are here"):
            world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=4))
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, offset=3, data=b"d"))
        world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=4))

    def test_that_the_store_could_not_take_may_be_repeated(self, world: World) -> None:
        upload_id = opened(world).upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"abc"))
        world.owner.store.fail_next(Unavailable("the disk is gone", reason="DiskError"))
        with pytest.raises(Unavailable):
            world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=3))
        made = world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=3)).object
        assert world.owner.read(made.object_id) == b"abc"

    def test_that_is_repeated_looks_whether_the_bytes_are_still_there(self, world: World) -> None:
        upload_id = opened(world).upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"abc"))
        world.owner.store.fail_next(Unavailable("the disk is gone", reason="DiskError"))
        with pytest.raises(Unavailable):
            world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=3))
        for name in list(world.owner.blobs.names()):
            world.owner.blobs.delete(name)
        with pytest.raises(FailedPrecondition) as caught:
            world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=3))
        assert caught.value.reason == "UploadLost"
        assert not world.owner.ask("ListObjects", objects_pb2.ListObjectsRequest()).objects

    @pytest.mark.parametrize("fault", [Exhausted("full", reason="StoreFull"), Internal("what?", reason="Odd")])
    def test_that_failed_on_anything_but_the_machines_word_may_be_repeated(self, world: World, fault: Fault) -> None:
        upload_id = opened(world).upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"abc"))
        world.owner.store.fail_next(fault)
        with pytest.raises(type(fault)):
            world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=3))
        made = world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=3)).object
        assert world.owner.read(made.object_id) == b"abc"

    def test_that_the_machine_refused_leaves_nothing(self, world: World) -> None:
        upload_id = opened(world).upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"abc"))
        world.owner.outbox_max = 0
        world.owner.runtime.reload()
        with pytest.raises(Exhausted) as caught:
            world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=3))
        assert caught.value.reason == "OutboxFull"
        assert list(world.owner.blobs.names()) == []
        with pytest.raises(NotFound, match="open it again"):
            world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=3))

    def test_that_is_refused_takes_nothing_from_a_repeated_one_that_is_not(self) -> None:
        world = World(0)
        owner, upload_id = world.owner, opened(world).upload_id
        owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"abc"))
        commit = Commit(upload_id=upload_id, size_bytes=3)
        owner.outbox_max = 0
        owner.runtime.reload()
        first = owner.begin("CommitUpload", commit)
        pending = owner.runtime.gather()
        assert pending is not None
        second = owner.begin("CommitUpload", commit)  # repeated while the first is in its commit
        owner.outbox_max = 10
        owner.runtime.fail(pending, Exhausted("no room", reason="OutboxFull"))  # loads the machine with its new bound
        world.settle()
        assert first.outcome.reason == "OutboxFull"
        made = second.outcome.object
        assert owner.blobs.size(made.object_id), "its only copy"
        assert owner.read(made.object_id) == b"abc"

    def test_is_durable_here_when_it_answers(self, world: World) -> None:
        for host in world.hosts:
            host.up = False
        made = world.owner.put(b"abc" * 100)
        world.owner.blobs.crash(world.rng)
        world.owner.restart()
        assert world.owner.read(made.object_id) == b"abc" * 100


class TestBounds:
    def filled(self, world: World, **fields: object) -> list[str]:
        """As many as there are places, each with a piece."""
        ids = [
            opened(world, **{each: f"{value}{index}" for each, value in fields.items()}).upload_id
            for index in range(UPLOADS_MAX)
        ]
        for upload_id in ids:
            world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=bytes(2 * STRIPE)))
        return ids

    def test_so_many_uploads_at_once_and_no_more(self, world: World) -> None:
        ids = self.filled(world, request_id="r")
        with pytest.raises(Exhausted, match="uploads are under way"):
            opened(world)
        world.clock.mono_ms += IDLE_MS_MAX
        opened(world)
        with pytest.raises(NotFound):
            world.owner.ask("WriteUpload", Write(upload_id=ids[0], offset=2 * STRIPE, data=b"x"))
        assert len(world.owner.blobs.all_staged()) == UPLOADS_MAX - 1, "what made room left nothing on the disk"

    def test_who_finds_no_place_is_told_when_there_will_be_one(self, world: World) -> None:
        self.filled(world)
        world.clock.mono_ms += 20_000
        with pytest.raises(Exhausted) as caught:
            opened(world)
        assert caught.value.retry_ms == IDLE_MS_MAX - 20_000
        world.clock.mono_ms += caught.value.retry_ms
        opened(world)

    def test_what_nobody_can_take_up_again_makes_room_first(self, world: World) -> None:
        named = opened(world, request_id="r").upload_id
        world.owner.ask("WriteUpload", Write(upload_id=named, data=bytes(STRIPE)))
        for _ in range(UPLOADS_MAX - 1):
            opened(world)
        world.clock.mono_ms += IDLE_MS_MAX
        opened(world)
        assert opened(world, request_id="r").offset == STRIPE

    @pytest.mark.parametrize(("request_id", "kept_ms"), [("", UNNAMED_MS_MAX), ("r", NAMED_MS_MAX)])
    def test_what_nobody_goes_on_with_goes_by_itself(self, world: World, request_id: str, kept_ms: int) -> None:
        left = opened(world, request_id=request_id).upload_id
        world.owner.ask("WriteUpload", Write(upload_id=left, data=bytes(2 * STRIPE)))
        world.pass_ms(kept_ms - 1)
        assert len(world.owner.blobs.all_staged()) == 1
        world.pass_ms(LOOK_MS)
        assert world.owner.blobs.all_staged() == []
        with pytest.raises(NotFound):
            world.owner.ask("WriteUpload", Write(upload_id=left, offset=2 * STRIPE, data=b"x"))

    def test_what_the_disk_takes_long_for_is_not_left(self, world: World) -> None:
        upload_id = opened(world).upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"abc"))
        held: list[object] = []
        world.owner.bulk._carry = lambda work, ended: held.append((work, ended))
        commit = world.owner.begin("CommitUpload", Commit(upload_id=upload_id, size_bytes=3))
        world.owner.bulk._carry = inline
        world.pass_ms(2 * NAMED_MS_MAX)
        for _ in range(UPLOADS_MAX - 1):
            opened(world)
        with pytest.raises(Exhausted, match="under way"):
            opened(world)
        ((work, ended),) = held
        ended(work())
        world.settle()
        assert world.owner.read(commit.outcome.object.object_id) == b"abc"

    def test_committed_ones_make_room_at_once(self, world: World) -> None:
        for index in range(UPLOADS_MAX + 2):
            world.owner.put(b"x", request_id=f"r{index}")

    def test_a_full_disk_ends_the_upload_and_leaves_nothing(self, world: World) -> None:
        upload_id = opened(world).upload_id
        world.owner.blobs.refuse(Exhausted("full", reason="DiskFull"))
        with pytest.raises(Exhausted):
            world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=bytes(2 * STRIPE)))
        world.owner.blobs.refuse(None)
        with pytest.raises(NotFound, match="open it again"):
            world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"x"))


class TestAnAbort:
    def test_frees_the_place_and_the_disk_at_once(self, world: World) -> None:
        for _ in range(2 * UPLOADS_MAX):
            upload_id = opened(world).upload_id
            world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=bytes(2 * STRIPE)))
            world.owner.ask("AbortUpload", Abort(upload_id=upload_id))
        assert world.owner.blobs.all_staged() == []
        with pytest.raises(NotFound):
            world.owner.ask("AbortUpload", Abort(upload_id=upload_id))

    def test_in_the_middle_of_a_write_leaves_nothing(self, world: World) -> None:
        upload_id = opened(world).upload_id
        held: list[object] = []
        world.owner.bulk._carry = lambda work, ended: held.append((work, ended))
        world.owner.begin("WriteUpload", Write(upload_id=upload_id, data=bytes(2 * STRIPE)))
        world.owner.ask("AbortUpload", Abort(upload_id=upload_id))
        world.owner.bulk._carry = inline
        ((work, ended),) = held
        ended(work())
        assert world.owner.blobs.all_staged() == []

    def test_takes_no_object_away(self, world: World) -> None:
        upload_id = opened(world).upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"abc"))
        made = world.owner.ask("CommitUpload", Commit(upload_id=upload_id, size_bytes=3)).object
        with pytest.raises(FailedPrecondition, match=made.object_id) as caught:
            world.owner.ask("AbortUpload", Abort(upload_id=upload_id))
        assert caught.value.reason == "UploadCommitted"
        assert world.owner.read(made.object_id) == b"abc"

    def test_in_the_middle_of_a_commit_leaves_a_whole_object_or_none(self, world: World) -> None:
        upload_id = opened(world).upload_id
        world.owner.ask("WriteUpload", Write(upload_id=upload_id, data=b"abc"))
        commit = world.owner.begin("CommitUpload", Commit(upload_id=upload_id, size_bytes=3))
        world.owner.ask("AbortUpload", Abort(upload_id=upload_id))
        world.settle()
        assert world.owner.read(commit.outcome.object.object_id) == b"abc"


class TestEnqueue:
    def test_is_an_object_an_entry_and_an_event_of_ones_own(self, world: World) -> None:
        request = objects_pb2.EnqueueRequest(key="order-17", data=b"small", etype=15, required_acks_milli=2_000)
        entry = world.owner.ask("Enqueue", request).entry
        assert (entry.key, entry.etype, entry.required_milli) == ("order-17", 15, 2_000)
        assert world.owner.read(entry.object_id) == b"small"
        (shown,) = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest()).entries
        assert shown.status == objects_pb2.OUTBOX_STATUS_COMPLETED
        assert not world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest(open_only=True)).entries

    def test_is_done_once_for_one_request_id(self, world: World) -> None:
        request = objects_pb2.EnqueueRequest(key="k", data=b"small", etype=15, request_id="r")
        first = world.owner.ask("Enqueue", request).entry
        world.owner.restart()
        assert world.owner.ask("Enqueue", request).entry.id == first.id
        request.data = b"other"
        with pytest.raises(AlreadyExists):
            world.owner.ask("Enqueue", request)
        assert not world.owner.blobs.all_staged()

    def test_two_at_once_under_one_request_id_make_one_object(self, world: World) -> None:
        for host in world.hosts:
            host.up = False
        request = objects_pb2.EnqueueRequest(key="k", data=b"small", etype=15, request_id="r")
        tickets = [world.owner.begin("Enqueue", request) for _ in range(2)]
        world.settle()
        first, second = (ticket.outcome.entry for ticket in tickets)
        assert first.object_id == second.object_id
        assert list(world.owner.blobs.names()) == [first.object_id], "the bytes of the second are gone"


class TestTheOutbox:
    def test_gives_an_entry_up_and_the_object_can_still_be_read(self, world: World) -> None:
        made = world.owner.put(b"abc", required_milli=9_000)
        (entry,) = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest(open_only=True)).entries
        answer = world.owner.ask("CancelOutboxEntry", objects_pb2.CancelOutboxEntryRequest(id=entry.id))
        assert answer.entry.status == objects_pb2.OUTBOX_STATUS_CANCELLED
        assert not world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest(open_only=True)).entries
        world.owner.restart()
        world.settle()
        assert world.owner.info(made.object_id).state == objects_pb2.OBJECT_STATE_LOCAL
        assert world.owner.read(made.object_id) == b"abc"

    def test_counts_what_jobs_need_apart_from_what_is_put(self, world: World) -> None:
        world.owner.put(b"abc")
        world.owner.ask("Enqueue", objects_pb2.EnqueueRequest(key="k", data=b"small", etype=15))
        sealing = world.owner.sealer.begin()
        sealing.add(b"an input")
        ticket = ticket_of(world.owner.uploads.add(sealing, "job", "", 0, "", b"", None))
        world.settle()
        assert isinstance(ticket.outcome, objects_pb2.CommitUploadResponse)
        entries = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest()).entries
        assert [entry.for_job for entry in entries] == [False, False, True]


BAD: dict[str, tuple[str, object, type[Fault], str]] = {
    "a name too long": ("OpenUpload", Open(name="x" * (NAME_CHARS_MAX + 1)), InvalidRequest, "name"),
    "a name that cannot be seen": ("OpenUpload", Open(name="a\x1b[2J"), InvalidRequest, "cannot be seen"),
    "a request id with a blank": ("OpenUpload", Open(request_id="a b"), InvalidRequest, "request_id"),
    "a weight beyond all": ("OpenUpload", Open(required_milli=10**9 + 1), InvalidRequest, "at most 1000000.0"),
    "an enqueue of such a weight": (
        "Enqueue",
        objects_pb2.EnqueueRequest(key="k", etype=12, required_acks_milli=2**32 - 1), InvalidRequest, "required_acks"),
    "a piece of nothing": ("WriteUpload", Write(upload_id="u-none"), NotFound, "u-none"),
    "a commit of nothing": ("CommitUpload", Commit(upload_id="u-none"), NotFound, "u-none"),
    "an enqueue without a key": ("Enqueue", objects_pb2.EnqueueRequest(etype=12), InvalidRequest, "key"),
    "an event of the node's own": ("Enqueue", objects_pb2.EnqueueRequest(key="k", etype=9), InvalidRequest, "10 to 30"),
    "an event beyond": ("Enqueue", objects_pb2.EnqueueRequest(key="k", etype=31), InvalidRequest, "10 to 30"),
    "too much in one call": (
        "Enqueue",
        objects_pb2.EnqueueRequest(key="k", etype=12, data=bytes(ENQUEUE_BYTES_MAX + 1)), InvalidRequest, "data"),
    "no object": ("GetObject", objects_pb2.GetObjectRequest(), InvalidRequest, "object"),
    "an object that there is not": ("GetObject", objects_pb2.GetObjectRequest(object="o-none"), NotFound, "o-none"),
    "a page of somebody else's": ("ListOutbox", objects_pb2.ListOutboxRequest(page_token="%"), InvalidRequest, "token"),
}  # fmt: skip


@pytest.fixture(scope="module")
def quiet() -> World:
    return World(0)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_refused_in_words(quiet: World, case: str) -> None:
    method, request, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        quiet.owner.ask(method, request)  # type: ignore[arg-type]
    assert list(quiet.owner.blobs.names()) == []


def test_the_newest_of_a_name_is_found_and_ids_by_their_beginning(world: World) -> None:
    old, new = world.owner.put(b"old", name="n"), world.owner.put(b"new", name="n")
    assert world.owner.info("n").object_id == new.object_id
    assert world.owner.info(old.object_id[:12]).object_id == old.object_id
    with pytest.raises(NotFound):
        world.owner.info("o-")


class TestExpiry:
    def test_its_time_is_signed_counted_from_when_it_is_made(self, world: World) -> None:
        upload_id = opened(world, expires_after_ms=60_000).upload_id
        world.pass_ms(5_000)
        made = world.owner.ask("CommitUpload", commit_of(upload_id, b"")).object
        body = Manifest.decode(made.manifest.signed.body)
        assert made.expires_us == body.expires_us == body.created_us + 60_000_000
        assert body.created_us == world.clock.now().utc_us

    def test_what_lasts_more_than_a_century_is_refused(self, world: World) -> None:
        with pytest.raises(InvalidRequest, match="100 years"):
            opened(world, expires_after_ms=EXPIRES_AFTER_MS_MAX + 1)
