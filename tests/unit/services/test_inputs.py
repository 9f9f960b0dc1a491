"""Inputs that are too large to travel inside a job: an object of the core, read by the host that won, and bounded."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from google.protobuf.message import Message
from large_bench import STRIPE_BYTES, Network, Side

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.protocol.effects import Execute, Executed, Stop
from offgrid_node.protocol.errors import Fault, InvalidRequest, NotFound, Unavailable
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX, LARGE_INPUT_BYTES_MAX
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.tables import DELETED, OBJECTS
from offgrid_node.services.flow import Flow, run
from offgrid_node.services.jobs import inputs as module
from offgrid_node.services.jobs.inputs import InputFetching, InputPlacing
from offgrid_node.services.jobs.work import INPUT_UNAVAILABLE, Work
from offgrid_node.services.objects.holders import Holders
from offgrid_node.services.objects.sealing import Sealing
from offgrid_node.services.shelf import Shelf
from offgrid_node.storage.store import Batch

MARKER = b"a marker that no host may keep"
LARGE = MARKER + bytes(INLINE_BYTES_MAX) + MARKER


def write(side: Side, table: str, row_id: str, row: Message | None) -> None:
    value = row.SerializeToString() if row is not None else None
    side.store.commit(Batch(writes={(table, row_id.encode()): value}))


class AddsObjects:
    """Uploads, by what is asked of them: the machine's part in memory. The same request id finds the same object."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self.made: dict[str, objects_pb2.Object] = {}
        self.asked: list[tuple[str, str, bytes]] = []
        self.dropped: list[str] = []
        self.fault: Fault | None = None

    def add(
        self,
        sealing: Sealing,
        caller: str,
        name: str,
        required_milli: int,
        request_id: str,
        digest: bytes,
        enqueue: None,
    ) -> Flow[Message]:
        yield self._side.bulk.run(sealing.close)
        if self.fault is not None:
            raise self.fault
        self.asked.append((name, request_id, digest))
        manifest, body = self._side.sealer.manifest(sealing)
        fresh = objects_pb2.Object(object_id=body.object_id, size_bytes=sealing.size_bytes, manifest=manifest)
        made = self.made.setdefault(request_id or body.object_id, fresh)
        write(self._side, OBJECTS, made.object_id, objects_pb2.ObjectRow(object=made))
        return objects_pb2.CommitUploadResponse(object=made)

    def drop(self, sealing: Sealing) -> None:
        self.dropped.append(sealing.staged)


@dataclass
class House:
    """A core, a host, and a third one that may keep replicas."""

    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        self.core, self.host, self.other = (Side(name, self.network) for name in ("core", "host", "other"))
        self.uploads = AddsObjects(self.core)
        core = self.core
        self.placing = InputPlacing(Shelf(core.store), self.uploads, core.reading, core.sealer, core.bulk)  # type: ignore[arg-type]
        self.fetching = InputFetching(self.host.reading)
        self.executed: list[Execute] = []
        self.delivered: list[Executed] = []
        self.machines_loaded = True
        self.stopped: list[Stop] = []
        self.work = Work(
            self.fetching,
            self.host.results(),
            self.key_of,
            self.executed.append,
            self.stopped.append,
            self.delivered.append,
        )

    def key_of(self, node_id: str) -> bytes | None:
        if not self.machines_loaded:
            raise Unavailable("the node is loading", reason="Reloading")
        return self.core.key.public_key if node_id == self.core.node_id else None

    def place(self, payload: jobs_pb2.JobPayload, request_id: str = "") -> int | Fault:
        outcomes: list[int | Fault] = []

        def placed() -> Flow[int]:
            yield from self.placing.place(payload, "admin", request_id, b"d" * 16)
            return self.placing.refer(payload)

        run(placed(), outcomes.append)
        [outcome] = outcomes
        return outcome

    def order(self, data: bytes, job_id: str = "job") -> Execute:
        """Work with this input, placed at the core if it is large."""
        payload = jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="wc"), input=data)
        assert self.place(payload) == len(data)
        return Execute(self.core.node_id, job_id, 1, payload, 1_000)

    def end(self, work: Execute) -> None:
        self.work.on_end(Executed(work.core, work.job_id, work.attempt, b"done", b"", 0, "", "", 5, "x"))


@pytest.fixture
def house() -> House:
    return House()


# ---- at the core


def test_a_small_input_stays_where_it_is(house: House) -> None:
    payload = jobs_pb2.JobPayload(input=bytes(INLINE_BYTES_MAX), input_name="a")
    assert house.place(payload) == INLINE_BYTES_MAX
    assert len(payload.input) == INLINE_BYTES_MAX
    assert house.uploads.asked == []


def test_a_large_input_becomes_an_object_and_a_reference(house: House) -> None:
    payload = jobs_pb2.JobPayload(input=LARGE, input_name="report.txt")
    assert house.place(payload, "r-1") == len(LARGE)
    assert payload.input == b""
    assert MARKER not in payload.SerializeToString() + house.core.everything()
    assert house.uploads.asked == [("report.txt", "job-input:r-1", b"d" * 16)]
    assert not payload.input_object.manifest.wraps
    manifest = Manifest.decode(payload.input_object.manifest.signed.body)
    parts: list[object] = []
    for index in range(manifest.stripes):
        run(house.core.reading.stripe(manifest, payload.input_object.key, index, Holders()), parts.append)
    assert b"".join(part[0] for part in parts if isinstance(part, tuple)) == LARGE


def test_the_same_request_again_finds_the_first_object_and_its_key(house: House) -> None:
    payloads = [jobs_pb2.JobPayload(input=LARGE) for _ in range(2)]
    for payload in payloads:
        assert house.place(payload, "r-1") == len(LARGE)
    assert payloads[0] == payloads[1]


def test_an_input_that_cannot_be_kept_is_given_up_whole(house: House) -> None:
    house.uploads.fault = Unavailable("full", reason="OutboxFull")
    assert house.place(jobs_pb2.JobPayload(input=LARGE)) is house.uploads.fault
    assert len(house.uploads.dropped) == 1


def test_an_object_of_ones_own_can_be_the_input(house: House) -> None:
    manifest, key = house.core.object(LARGE)
    body = Manifest.decode(manifest.signed.body)
    row = objects_pb2.ObjectRow(
        object=objects_pb2.Object(object_id=body.object_id, size_bytes=len(LARGE), manifest=manifest)
    )
    house.core.store.commit(Batch(writes={(OBJECTS, body.object_id.encode()): row.SerializeToString()}))
    payload = jobs_pb2.JobPayload(input_object_id=body.object_id)
    assert house.place(payload) == len(LARGE)
    assert (payload.input_object.key, payload.input_object_id) == (key, "")
    assert isinstance(house.place(jobs_pb2.JobPayload(input_object_id="o-none")), NotFound)
    row.object.size_bytes = LARGE_INPUT_BYTES_MAX + 1
    house.core.store.commit(Batch(writes={(OBJECTS, body.object_id.encode()): row.SerializeToString()}))
    refused = house.place(jobs_pb2.JobPayload(input_object_id=body.object_id))
    assert isinstance(refused, InvalidRequest)
    assert "payload.input_object_id" in refused.message


def stored(side: Side, data: bytes, replaces: str = "") -> str:
    manifest, _ = side.object(data)
    made = objects_pb2.Object(
        object_id=Manifest.decode(manifest.signed.body).object_id, size_bytes=len(data), manifest=manifest
    )
    write(side, OBJECTS, made.object_id, objects_pb2.ObjectRow(object=made, replaces=replaces))
    return made.object_id


def id_of(ref: jobs_pb2.ObjectRef) -> str:
    return Manifest.decode(ref.manifest.signed.body).object_id


def test_what_is_sealed_anew_while_the_input_is_uploaded_is_read_by_its_next_id(house: House) -> None:
    core = house.core
    old = stored(core, b"a file")
    new = stored(core, b"a file", replaces=old)
    payload = jobs_pb2.JobPayload(input=LARGE, files=[jobs_pb2.JobFile(name="f", object_id=old)])
    run(house.placing.place(payload, "admin", "", b"d" * 16), lambda end: None)
    write(core, OBJECTS, old, None)
    write(core, DELETED, old, objects_pb2.Deletion(object_id=old, moved_to=new))
    row = objects_pb2.ObjectRow.FromString(core.store.get(OBJECTS, new.encode()) or b"")
    write(core, OBJECTS, new, objects_pb2.ObjectRow(object=row.object))
    assert house.placing.refer(payload) == len(LARGE) + len(b"a file")
    assert id_of(payload.files[0].object) == new
    assert (payload.input, payload.input_object_id, payload.files[0].object_id) == (b"", "", "")


def test_what_is_not_in_its_place_yet_stands_for_the_object_that_it_replaces(house: House) -> None:
    old = stored(house.core, LARGE)
    payload = jobs_pb2.JobPayload(input_object_id=stored(house.core, LARGE, replaces=old))
    assert house.place(payload) == len(LARGE)
    assert id_of(payload.input_object) == old


def test_what_is_deleted_while_the_input_is_uploaded_is_named(house: House) -> None:
    old = stored(house.core, b"a file")
    payload = jobs_pb2.JobPayload(input=LARGE, files=[jobs_pb2.JobFile(name="f", object_id=old)])
    run(house.placing.place(payload, "admin", "", b"d" * 16), lambda end: None)
    write(house.core, OBJECTS, old, None)
    with pytest.raises(NotFound, match=old):
        house.placing.refer(payload)


# ---- at the host


def test_the_host_reads_the_input_from_the_core_and_keeps_none_of_it(house: House) -> None:
    work = house.order(LARGE)
    house.work.begin(work)
    [begun] = house.executed
    assert begun.payload.input == LARGE
    assert not begun.payload.HasField("input_object")
    assert (begun.payload.process.command, begun.timeout_ms) == ("wc", 1_000)
    assert house.host.everything() == b""
    assert house.work.executing() == {(house.core.node_id, "job", 1)}
    house.end(work)
    assert (house.work.executing(), house.fetching.held_bytes) == (frozenset(), 0)
    assert house.delivered[0].sealed


def test_work_that_ends_while_machines_are_loaded_anew_is_sealed_all_the_same(house: House) -> None:
    work = house.order(b"small")
    house.work.begin(work)
    house.machines_loaded = False
    house.end(work)
    [end] = house.delivered
    assert (end.error, end.output) == ("", b"")
    assert end.sealed


def test_work_without_a_large_input_begins_at_once(house: House) -> None:
    work = house.order(b"small")
    house.work.begin(work)
    assert house.executed == [work]
    assert house.network.asked == []


def test_it_goes_where_the_core_says_once_the_core_has_given_the_object_away(house: House) -> None:
    work = house.order(LARGE)
    [name] = house.core.blobs.names()
    house.other.blobs.append("x", 0, house.core.blobs.read(name, 0, house.core.blobs.size(name) or 0))
    house.other.blobs.finish("x", name)
    house.core.blobs.delete(name)
    house.network.holders[house.core.node_id] = {"holders": f"{house.host.node_id},{house.other.node_id}"}
    house.work.begin(work)
    assert house.executed[0].payload.input == LARGE
    assert {node for node, _ in house.network.asked} == {house.core.node_id, house.other.node_id}


def test_its_own_replica_will_do(house: House) -> None:
    work = house.order(LARGE)
    [name] = house.core.blobs.names()
    house.host.blobs.append("x", 0, house.core.blobs.read(name, 0, house.core.blobs.size(name) or 0))
    house.host.blobs.finish("x", name)
    house.work.begin(work)
    assert house.executed[0].payload.input == LARGE
    assert house.network.asked == []


@pytest.mark.parametrize("trouble", ["gone", "flipped", "away"])
def test_an_input_that_cannot_be_had_ends_the_attempt_by_that_name(trouble: str, house: House) -> None:
    work = house.order(LARGE)
    [name] = house.core.blobs.names()
    if trouble == "gone":
        house.core.blobs.delete(name)
    elif trouble == "flipped":
        house.core.blobs.flip(name, STRIPE_BYTES + 30)
    else:
        house.core.blobs.refuse(Unavailable("away", reason="NotConnected"))
    house.work.begin(work)
    [end] = house.delivered
    assert (end.error, end.output, house.executed) == (INPUT_UNAVAILABLE, b"", [])
    assert house.core.node_id in end.error_detail
    assert (house.work.executing(), house.fetching.held_bytes) == (frozenset(), 0)


def test_work_that_is_stopped_while_its_input_comes_never_begins(house: House) -> None:
    work = house.order(LARGE)
    house.network.holds = True
    house.work.begin(work)
    house.work.stop(Stop(work.core, work.job_id, work.attempt))
    assert (house.stopped, house.delivered) == ([], [])
    house.network.holds = False
    while house.network.held:
        house.network.held.pop(0)()
    assert ([end.error for end in house.delivered], house.executed) == (["Cancelled"], [])
    assert (house.work.executing(), house.fetching.held_bytes) == (frozenset(), 0)


def test_work_that_is_stopped_while_it_executes_is_the_executors_business(house: House) -> None:
    work = house.order(b"small")
    house.work.begin(work)
    stop = Stop(work.core, work.job_id, work.attempt)
    house.work.stop(stop)
    house.end(work)
    house.work.stop(stop)
    assert (house.stopped, len(house.delivered)) == ([stop], 1)


def test_inputs_wait_for_memory_in_their_order(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCHED_BYTES_MAX", 2 * len(LARGE) + 1)
    works = [house.order(LARGE, f"job {number}") for number in range(4)]
    for work in works:
        house.work.begin(work)
    assert [begun.job_id for begun in house.executed] == ["job 0", "job 1"]
    assert len(house.work.executing()) == 4
    house.end(works[1])
    assert [begun.job_id for begun in house.executed] == ["job 0", "job 1", "job 2"]
    house.end(works[0])
    house.end(works[2])
    house.end(works[3])
    assert (len(house.executed), house.fetching.held_bytes, house.work.executing()) == (4, 0, frozenset())


def test_one_that_is_larger_than_all_the_memory_runs_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCHED_BYTES_MAX", 10)
    house.work.begin(house.order(LARGE))
    assert len(house.executed) == 1


def test_a_padded_input_arrives_as_it_was(house: House) -> None:
    core = house.core
    house.placing = InputPlacing(Shelf(core.store), house.uploads, core.reading, core.sealer, core.bulk, padded=True)  # type: ignore[arg-type]
    work = house.order(LARGE)
    manifest = Manifest.decode(work.payload.input_object.manifest.signed.body)
    assert manifest.size_bytes > len(LARGE), "hosts know its class"
    house.work.begin(work)
    assert house.executed[0].payload.input == LARGE
