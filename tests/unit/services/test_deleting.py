"""Deleting over real handlers: bytes and rows go at every host, and jobs that need an object keep it."""

from __future__ import annotations

import pytest
from bulk_world import World

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.protocol.errors import FailedPrecondition, Fault, InvalidRequest, NotFound
from offgrid_node.protocol.jobs.index import OPEN_JOBS
from offgrid_node.protocol.jobs.open_jobs import PAYLOADS
from offgrid_node.protocol.jobs.schedules import SCHEDULE_JOBS
from offgrid_node.protocol.objects.notices import GATHER_MS, PAGE_NOTICES
from offgrid_node.services.objects.uses import user_of
from offgrid_node.storage.store import Batch

Delete, Get, Notices = (
    objects_pb2.DeleteObjectRequest,
    objects_pb2.GetObjectRequest,
    objects_pb2.DeliverNoticesRequest,
)


@pytest.fixture
def world() -> World:
    return World()


def delete(world: World, wanted: str) -> objects_pb2.Deletion:
    return world.owner.ask("DeleteObject", Delete(object=wanted)).deletion  # type: ignore[no-any-return]


def deletions(world: World, **more: bool) -> list[objects_pb2.Deletion]:
    return [*world.owner.ask("ListDeletions", objects_pb2.ListDeletionsRequest(**more)).deletions]  # type: ignore[arg-type]


def test_its_bytes_go_everywhere(world: World) -> None:
    made = world.owner.put(b"secret" * 100, name="notes")
    nodes = [world.owner, *world.hosts]
    assert any(made.object_id in [*node.blobs.names()] for node in nodes)
    mark = delete(world, "notes")
    assert (mark.object_id, mark.name, len(mark.untold)) == (made.object_id, "notes", 3)
    world.pass_ms(GATHER_MS)
    assert all([*node.blobs.names()] == [] for node in nodes)
    (gone,) = deletions(world)
    assert not gone.untold
    assert deletions(world, untold_only=True) == []


def test_by_name_it_is_not_found_and_by_id_it_is_deleted_already(world: World) -> None:
    made = world.owner.put(b"x", name="notes")
    mark = delete(world, made.object_id)
    assert delete(world, made.object_id) == mark
    with pytest.raises(NotFound, match="there is no object 'notes'"):
        delete(world, "notes")
    with pytest.raises(NotFound, match="has been deleted") as caught:
        world.owner.ask("GetObject", Get(object=made.object_id))
    assert caught.value.reason == "ObjectDeleted"


def test_the_request_that_made_it_makes_nothing_again(world: World) -> None:
    made = world.owner.put(b"x", request_id="r")
    delete(world, made.object_id)
    for _ in range(2):
        with pytest.raises(NotFound, match="has been deleted"):
            world.owner.put(b"x", request_id="r")
        world.owner.restart()


def test_what_is_half_uploaded_is_no_object_yet(world: World) -> None:
    opened = world.owner.ask("OpenUpload", objects_pb2.OpenUploadRequest(name="notes", request_id="r"))
    with pytest.raises(NotFound, match="there is no object 'notes'"):
        delete(world, "notes")
    world.owner.ask("WriteUpload", objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, data=b"x"))
    commit = objects_pb2.CommitUploadRequest(upload_id=opened.upload_id, size_bytes=1)
    assert world.owner.ask("CommitUpload", commit).object.name == "notes"


def test_a_replica_that_is_coming_in_stops_where_it_is(world: World) -> None:
    host = world.hosts[0]
    world.bend = lambda letter: NotFound("lost") if letter.short == "CommitReplica" else None
    made = world.owner.put(b"x" * 500, name="notes")
    assert host.blobs.all_staged() != []
    world.bend = lambda letter: None
    delete(world, made.object_id)
    world.pass_ms(GATHER_MS)
    world.pass_ms(60_000)
    for node in (world.owner, *world.hosts):
        assert (node.blobs.all_staged(), [*node.blobs.names()]) == ([], [])


def test_a_host_takes_nothing_of_it_any_more(world: World) -> None:
    host, kept = world.hosts[0], []
    world.bend = lambda letter: kept.append(letter) if letter.short in ("OpenReplica", "CommitReplica") else None
    made = world.owner.put(b"x" * 500)
    world.bend = lambda letter: None
    delete(world, made.object_id)
    world.pass_ms(GATHER_MS)
    late = [letter for letter in kept if letter.target == host.node_id]
    assert {letter.short for letter in late} == {"OpenReplica", "CommitReplica"}
    for letter in late:
        with pytest.raises(Fault):
            host.ask_as(world.owner, letter.short, letter.request)
    assert [*host.blobs.names()] == []


def test_a_host_is_told_no_nonsense(world: World) -> None:
    host = world.hosts[0]
    for ids in (["o-UPPER"], ["../../etc"], ["o-" + "a" * 32] * (PAGE_NOTICES + 1)):
        with pytest.raises(InvalidRequest, match="deleted"):
            host.ask_as(world.owner, "DeliverNotices", Notices(deleted=ids))


def test_nobody_else_deletes_it(world: World) -> None:
    made = world.owner.put(b"x" * 500)
    host, other = world.hosts[:2]
    host.ask_as(other, "DeliverNotices", Notices(deleted=[made.object_id]))
    assert [*host.blobs.names()] == [made.object_id]


class TestInUse:
    """An object that an open job or a schedule names, in whatever form, is kept."""

    def rows(self, world: World, **rows: bytes) -> None:
        keys = {"open_jobs": (OPEN_JOBS, b"j-1"), "jobs": ("jobs", b"j-1"), "payloads": (PAYLOADS, b"j-1"),
                "schedules": (SCHEDULE_JOBS, b"nightly")}  # fmt: skip
        world.owner.store.commit(Batch(writes={keys[table]: value for table, value in rows.items()}))

    def refused(self, world: World, made: objects_pb2.Object) -> str:
        with pytest.raises(FailedPrecondition) as caught:
            delete(world, made.object_id)
        assert caught.value.reason == "ObjectInUse"
        return caught.value.message

    def test_as_the_input_of_an_open_job_until_that_has_ended(self, world: World) -> None:
        made = world.owner.put(b"x")
        payload = jobs_pb2.JobPayload(input_object=jobs_pb2.ObjectRef(manifest=made.manifest)).SerializeToString()
        job = jobs_pb2.Job(job_id="j-1", state=jobs_pb2.JOB_STATE_RUNNING, kept_payload=payload)
        self.rows(world, open_jobs=b"", jobs=job.SerializeToString())
        assert "job j-1 needs" in self.refused(world, made)
        job.state = jobs_pb2.JOB_STATE_COMPLETED
        self.rows(world, jobs=job.SerializeToString())
        assert delete(world, made.object_id).object_id == made.object_id

    def test_in_a_payload_that_has_a_row_of_its_own(self, world: World) -> None:
        made = world.owner.put(b"x")
        payload = jobs_pb2.JobPayload(input_object=jobs_pb2.ObjectRef(manifest=made.manifest)).SerializeToString()
        self.rows(world, payloads=payload)
        assert "job j-1 needs" in self.refused(world, made)

    def test_as_the_input_of_a_schedule(self, world: World) -> None:
        made = world.owner.put(b"x")
        payload = jobs_pb2.JobPayload(input_object_id=made.object_id)
        self.rows(world, schedules=payload.SerializeToString())
        assert "schedule nightly needs" in self.refused(world, made)

    def test_a_job_that_needs_another_one_is_none_of_its_business(self, world: World) -> None:
        made, other = world.owner.put(b"x"), world.owner.put(b"y")
        self.rows(world, payloads=jobs_pb2.JobPayload(input_object_id=other.object_id).SerializeToString())
        assert user_of(world.owner.store, made) == ""
        assert user_of(world.owner.store, other) == "job j-1"
