"""A job's input that is too large to travel inside it, and its files: objects of the core, which the host reads.

The core seals it before the job exists and writes its key into the payload, which goes to the winner alone and is never
on its disk; nor is the input. What the winner reads opens under that key in its own place, whoever gave it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.keys.stripes import open_size
from offgrid_node.protocol.effects import Execute
from offgrid_node.protocol.errors import Fault, InvalidRequest, PeerFault
from offgrid_node.protocol.jobs.artifacts import FILES_BYTES_MAX
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX, KEY_BYTES, LARGE_INPUT_BYTES_MAX
from offgrid_node.protocol.merkle import LEAVES_MAX
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.shards import stripe_span
from offgrid_node.protocol.objects.sizes import stored_bytes
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, run, settled, together
from offgrid_node.services.objects.holders import Holders
from offgrid_node.services.objects.reading import Reading
from offgrid_node.services.objects.replicas import PIECE_BYTES_MAX
from offgrid_node.services.objects.sealing import Sealer
from offgrid_node.services.objects.uploads import Uploads
from offgrid_node.services.shelf import Shelf

REQUEST_PREFIX = "job-input:"  # in front of the job's request id: the same job has the same input
STRIPES_AT_ONCE = 3  # of one input
FETCHED_BYTES_MAX = 4 * LARGE_INPUT_BYTES_MAX  # of all inputs that are in this host's memory, or on their way there


def is_large(payload: jobs_pb2.JobPayload) -> bool:
    """Whether its input, or files of its, have to be placed."""
    return len(payload.input) > INLINE_BYTES_MAX or bool(payload.input_object_id) or bool(payload.files)


def check_file_references(payload: jobs_pb2.JobPayload, core: str) -> None:
    """As `check_reference`, of the files, and that they are not too large together."""
    size_bytes = 0
    for index, file in enumerate(payload.files):
        if file.object_id:
            raise PeerFault(f"file {index} is named without a key to it", reason="MalformedPayload")
        check_reference(file.object, core, f"payload.files[{index}].object")
        size_bytes += Manifest.decode(file.object.manifest.signed.body).size_bytes
    if size_bytes > FILES_BYTES_MAX:
        raise InvalidRequest.field("payload.files", _too_large(size_bytes))


def _too_large(size_bytes: int) -> str:
    return f"{size_bytes} bytes together; at most {FILES_BYTES_MAX} are allowed"


def check_reference(ref: jobs_pb2.ObjectRef, core: str, field: str = "payload.input_object") -> None:
    """Raises InvalidRequest or PeerFault for a reference that no core would have made. That it came from this core, the
    order over the payload says."""
    manifest = Manifest.decode(ref.manifest.signed.body)
    if manifest.owner != core:
        raise InvalidRequest.field(field, f"it is an object of {manifest.owner}, not of {core}")
    if manifest.size_bytes > LARGE_INPUT_BYTES_MAX:
        text = f"{manifest.size_bytes} bytes; at most {LARGE_INPUT_BYTES_MAX} are allowed"
        raise InvalidRequest.field(field, text)
    if manifest.stripes > LEAVES_MAX or stripe_span(manifest, 0)[1] > PIECE_BYTES_MAX:
        text = f"stripes of {manifest.stripe_bytes} bytes cannot be read in one piece"
        raise InvalidRequest.field(field, text)
    if len(ref.key) != KEY_BYTES:
        raise InvalidRequest.field(f"{field}.key", f"{len(ref.key)} bytes, not {KEY_BYTES}")


class InputPlacing:
    """At the core."""

    def __init__(
        self, shelf: Shelf, uploads: Uploads, reading: Reading, sealer: Sealer, bulk: Bulk, *, padded: bool = False
    ) -> None:
        """`padded`: hosts of an input are to know the class of its size alone; who gets the job knows it."""
        self._padded = padded
        self._shelf, self._uploads, self._reading = shelf, uploads, reading
        self._sealer, self._bulk = sealer, bulk

    def place(self, payload: jobs_pb2.JobPayload, caller: str, request_id: str, digest: bytes) -> Flow[None]:
        """Makes an object of a large input, and checks what is named; then the payload names objects alone, by their
        ids: `refer` is next. `digest` is that of the request, 16 bytes; with the same `request_id` and digest it finds
        the object that the first call made. It is an object like any other and stays one: whatever would keep the job
        from being made is to be looked at before (`Intake.check`). Should the machine refuse the job all the same, a
        repeat under the same request id takes the object up again; without one it is left in the owner's list.

        Raises InvalidRequest naming the field, and what sealing and committing raise.
        """
        self._files(payload)
        if payload.input_object_id:
            self._named("payload.input_object_id", payload.input_object_id)
            return
        size = len(payload.input)
        if size > INLINE_BYTES_MAX:
            sealing, data = self._sealer.begin(padded=self._padded), payload.input
            try:
                yield self._bulk.run(lambda: sealing.add(data), key=sealing.staged, size_bytes=size)
                request_id = f"{REQUEST_PREFIX}{request_id}" if request_id else ""
                answer = yield from self._uploads.add(
                    sealing, caller, payload.input_name, 0, request_id, digest, enqueue=None
                )
            except Fault:
                self._uploads.drop(sealing)
                raise
            assert isinstance(answer, objects_pb2.CommitUploadResponse)
            payload.ClearField("input")
            payload.input_object_id = answer.object.object_id

    def refer(self, payload: jobs_pb2.JobPayload) -> int:
        """Makes of what `place` left what is stored and sent: named objects become references. Returns the size of
        input and files. No time may pass before the job is made with it: an object that is sealed anew meanwhile is
        another one, and the reference leads nowhere.

        Raises InvalidRequest naming the field, NotFound.
        """
        size_bytes = 0
        for file, found in zip(payload.files, self._files(payload), strict=True):
            size_bytes += stored_bytes(found)
            file.ClearField("object_id")
            self._set(file.object, found)
        if not payload.input_object_id:
            return size_bytes + len(payload.input)
        made = self._named("payload.input_object_id", payload.input_object_id)
        payload.ClearField("input_object_id")
        self._set(payload.input_object, made)
        return size_bytes + made.size_bytes

    def _files(self, payload: jobs_pb2.JobPayload) -> list[objects_pb2.Object]:
        """Raises InvalidRequest naming the field, NotFound."""
        found = []
        for index, file in enumerate(payload.files):
            if not file.object_id:
                raise InvalidRequest.field(f"payload.files[{index}].object_id", "is empty; put the file first, by id")
            found.append(self._named(f"payload.files[{index}].object_id", file.object_id))
        if (size_bytes := sum(stored_bytes(each) for each in found)) > FILES_BYTES_MAX:
            raise InvalidRequest.field("payload.files", _too_large(size_bytes))
        return found

    def _named(self, field: str, object_id: str) -> objects_pb2.Object:
        """As it is now: not what is sealed anew and not in its place yet."""
        row = self._shelf.get(field, OBJECTS, objects_pb2.ObjectRow, self._shelf.place_of(object_id))
        if row.replaces:
            row = self._shelf.get(field, OBJECTS, objects_pb2.ObjectRow, row.replaces)
        if row.object.size_bytes > LARGE_INPUT_BYTES_MAX:
            text = f"object {object_id} has {row.object.size_bytes} bytes; at most {LARGE_INPUT_BYTES_MAX} are allowed"
            raise InvalidRequest.field(field, text)
        return row.object

    def _set(self, ref: jobs_pb2.ObjectRef, found: objects_pb2.Object) -> None:
        ref.manifest.signed.CopyFrom(found.manifest.signed)
        ref.key = self._reading.key_of(found.manifest)


class InputFetching:
    """At the host that won. What waits for memory begins in its order."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self.held_bytes = 0

    def fetch(self, work: Execute, done: Callable[[Execute | Fault, int], None]) -> None:
        """The work with its input and its files in it, and the bytes that they take; `done` is called once. That much
        memory is held until `release`."""
        size_bytes = sum(Manifest.decode(ref.manifest.signed.body).size_bytes for ref in _references(work.payload))

        def begin() -> None:
            self.held_bytes += size_bytes
            run(self._fetch(work), ended)

        def ended(outcome: Execute | Fault) -> None:
            if isinstance(outcome, Fault):
                self.release(size_bytes)
            done(outcome, size_bytes)

        self._waiting.append((size_bytes, begin))
        self._pump()

    def release(self, size_bytes: int) -> None:
        """What took so many bytes is needed no more."""
        self.held_bytes -= size_bytes
        self._pump()

    def _pump(self) -> None:
        while self._waiting and (not self.held_bytes or self.held_bytes + self._waiting[0][0] <= FETCHED_BYTES_MAX):
            self._waiting.popleft()[1]()

    def _fetch(self, work: Execute) -> Flow[Execute]:
        payload, files = jobs_pb2.JobPayload(), list[tuple[str, bytes]]()
        payload.CopyFrom(work.payload)
        if payload.HasField("input_object"):
            payload.input = yield from self._read(payload.input_object, work.core)
            payload.ClearField("input_object")
        for file in payload.files:
            files.append((file.name, (yield from self._read(file.object, work.core))))
        del payload.files[:]
        return Execute(work.core, work.job_id, work.attempt, payload, work.timeout_ms, tuple(files))

    def _read(self, ref: jobs_pb2.ObjectRef, core: str) -> Flow[bytes]:
        manifest, holders = Manifest.decode(ref.manifest.signed.body), Holders([core])
        parts: list[bytes] = []
        for start in range(0, manifest.stripes, STRIPES_AT_ONCE):
            indexes = range(start, min(manifest.stripes, start + STRIPES_AT_ONCE))
            read = yield together(
                [settled(self._reading.stripe(manifest, ref.key, index, holders)) for index in indexes]
            )
            for part in read:
                if isinstance(part, Fault):
                    raise part
                parts.append(part[0])
        return b"".join(parts)[: open_size(ref.key, manifest)]


def _references(payload: jobs_pb2.JobPayload) -> list[jobs_pb2.ObjectRef]:
    own = [payload.input_object] if payload.HasField("input_object") else []
    return [*own, *(file.object for file in payload.files)]
