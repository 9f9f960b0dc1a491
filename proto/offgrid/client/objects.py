"""objects: sealed, coded and placed data; put, read back, listed; and the outbox that brings it to its hosts."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from offgrid.client.calls import Calls, fresh_request_id
from offgrid.client.errors import OffgridError
from offgrid.client.object_parts import PATIENCE_S, Parts, Progress, reader_of
from offgrid.client.paging import pages
from offgrid.client.targets import replaced
from offgrid.plaintext import PlaintextChecksum
from offgrid.v1 import objects_pb2

Source = str | os.PathLike[str] | bytes | BinaryIO

BEGINNINGS_MAX = 8  # of one put, while the node restarts
PAUSE_S, PAUSE_MAX_S = 0.1, 2.0  # between them, doubling
LOST = frozenset({"UploadNotFound", "UploadLost"})  # what was under way went with the node's process: begin again
COMMIT_S, COMMIT_BYTES_PER_S = 30.0, 5_000_000  # what the slowest card may take to make it durable
DELETE_S = 60.0  # a node with very many open jobs looks at each of them
POLL_S, POLL_MAX_S, POLL_GROWTH = 0.002, 0.2, 1.25  # what is small is durable within milliseconds
DURABLE, LOCAL = objects_pb2.OBJECT_STATE_DURABLE, objects_pb2.OBJECT_STATE_LOCAL


def _silent(*said: object) -> None:
    """Nobody looks."""


class Objects:
    """ObjectService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def capacity(self) -> objects_pb2.GetCapacityResponse:
        """What this node's disk can hold."""
        return self._calls.unary(
            "ObjectService/GetCapacity", objects_pb2.GetCapacityRequest(), objects_pb2.GetCapacityResponse
        )

    def explain_placement(
        self,
        wanted: str = "",
        *,
        size_bytes: int = 0,
        code: tuple[int, int] | None = None,
        copies: int = 0,
        policy: str = "",
    ) -> objects_pb2.ExplainPlacementResponse:
        """What every host holds of an object or would get of it now, and why; or, with `wanted` "", of one of
        `size_bytes` that might be put, `code` (needed, total) or `copies` (as the config says where neither is given).
        `policy` is "balanced", "latency", "bandwidth" or "" for the config's; ValueError for any other."""
        request = objects_pb2.ExplainPlacementRequest(object=wanted, size_bytes=size_bytes, copies=copies)
        if code is not None:
            request.code.needed, request.code.total = code
        if policy:
            request.policy = objects_pb2.PlacementPolicy.Value(f"PLACEMENT_POLICY_{policy.upper()}")
        return self._calls.unary("ObjectService/ExplainPlacement", request, objects_pb2.ExplainPlacementResponse)

    # ---- in

    def put(
        self,
        source: Source,
        *,
        name: str = "",
        required_milli: int = 0,
        code: tuple[int, int] | None = None,
        copies: int = 0,
        expires_after_ms: int = 0,
        request_id: str = "",
        on_progress: Progress = _silent,
    ) -> objects_pb2.Object:
        """Seals a file (by its path), bytes or a binary stream into an object that is durable on this node when this
        returns, and on its way to its hosts; `wait_durable` waits for those.

        `required_milli` is the weight of acks in thousandths, `code` (12, 20) for 20 shards of which any 12 give the
        object back, `copies` a number of full copies: at most one of these two, and as the node's config says what is
        left out. It expires `expires_after_ms` after it is made (0: never), by the node's clock. The same request id
        never makes a second object; for other data it is refused (RequestIdReused). A node that restarts has lost what
        was under way: what can be read again (a file, bytes, a stream that can seek) is then put from its beginning;
        for anything else OffgridError is raised.
        """
        request = objects_pb2.OpenUploadRequest(
            name=name,
            required_milli=required_milli,
            copies=copies,
            expires_after_ms=expires_after_ms,
            request_id=request_id or fresh_request_id(),
        )
        if code is not None:
            request.code.needed, request.code.total = code
        if isinstance(source, bytes):
            return self._put(io.BytesIO(source), request, on_progress)
        if isinstance(source, str | os.PathLike):
            with Path(source).open("rb") as file:
                return self._put(file, request, on_progress)
        return self._put(source, request, on_progress)

    def _put(
        self, stream: BinaryIO, request: objects_pb2.OpenUploadRequest, on_progress: Progress
    ) -> objects_pb2.Object:
        start = stream.tell() if stream.seekable() else None
        if start is not None:
            request.size_bytes = _size_of(stream)
        beginning, pause_s = 1, PAUSE_S
        while True:
            try:
                return self._upload(stream, request, on_progress)
            except OffgridError as error:
                again = error.reason in LOST or error.outcome_unknown
                if not again or start is None or beginning == BEGINNINGS_MAX:
                    raise
                stream.seek(start)
            time.sleep(pause_s)
            beginning, pause_s = beginning + 1, min(PAUSE_MAX_S, 2 * pause_s)

    def _upload(
        self, stream: BinaryIO, request: objects_pb2.OpenUploadRequest, on_progress: Progress
    ) -> objects_pb2.Object:
        opened = self._calls.unary("ObjectService/OpenUpload", request, objects_pb2.OpenUploadResponse)
        total, offset, checksum = _size_of(stream), 0, PlaintextChecksum()
        while piece := _read(stream, opened.piece_bytes_max):
            end = offset + len(piece)
            checksum.update(piece)
            if end > opened.offset:  # otherwise an earlier call has brought it
                part = objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, offset=offset, data=piece)
                self._calls.unary("ObjectService/WriteUpload", part, objects_pb2.WriteUploadResponse)
            offset = end
            on_progress(offset, max(total, offset))
        commit = objects_pb2.CommitUploadRequest(
            upload_id=opened.upload_id, size_bytes=offset, checksum=checksum.value()
        )
        return self._calls.unary(
            "ObjectService/CommitUpload",
            commit,
            objects_pb2.CommitUploadResponse,
            timeout_s=COMMIT_S + offset / COMMIT_BYTES_PER_S,
        ).object

    def enqueue(
        self, key: str, data: bytes, etype: int, required_acks_milli: int = 0, *, request_id: str = ""
    ) -> objects_pb2.OutboxEntry:
        """At most 1 MiB, as an event of one's own kind (10 to 30) with its outbox entry, in one transaction."""
        request = objects_pb2.EnqueueRequest(
            key=key,
            data=data,
            etype=etype,
            required_acks_milli=required_acks_milli,
            request_id=request_id or fresh_request_id(),
        )
        return self._calls.unary("ObjectService/Enqueue", request, objects_pb2.EnqueueResponse).entry

    def wait_durable(
        self,
        object_id: str,
        *,
        timeout_s: float | None = None,
        on_change: Callable[[objects_pb2.Object], None] = lambda made: None,
    ) -> objects_pb2.Object:
        """Until the quorum has acked. `on_change` gets the object at first, and when its acks or its trouble change.
        Raises TimeoutError; the object goes on its way all the same. Raises OffgridError (Cancelled) when that is given
        up.
        """
        deadline, pause_s = None if timeout_s is None else time.monotonic() + timeout_s, POLL_S
        seen: tuple[int, str] | None = None
        while True:
            made = self.get(object_id)
            if (made.acked_milli, made.trouble) != seen:
                seen = made.acked_milli, made.trouble
                on_change(made)
            if made.state == DURABLE:
                return made
            if made.state == LOCAL:
                text = f"the way of {object_id} to its hosts was given up; it is kept at its owner's node alone"
                raise OffgridError("FAILED_PRECONDITION", "Cancelled", text)
            if deadline is not None and time.monotonic() >= deadline:
                have = f"{made.acked_milli / 1000} of {made.required_milli / 1000}"
                why = f": {made.trouble}" if made.trouble else ""
                raise TimeoutError(f"object {object_id} has acks of {have} after {timeout_s:g} s{why}")
            time.sleep(pause_s)
            pause_s = min(POLL_MAX_S, POLL_GROWTH * pause_s)

    # ---- what there is

    def get(self, wanted: str) -> objects_pb2.Object:
        """By id, by the first characters of an id, or by name (the newest of that name)."""
        request = objects_pb2.GetObjectRequest(object=wanted)
        return self._calls.unary("ObjectService/GetObject", request, objects_pb2.GetObjectResponse).object

    def list(self, prefix: str = "", *, shared: bool = False, limit: int | None = None) -> Iterator[objects_pb2.Object]:
        """Every object of this node's own whose name begins with `prefix`; with `shared` what others let it read."""

        def fetch(size: int, token: str) -> tuple[list[objects_pb2.Object], str]:
            request = objects_pb2.ListObjectsRequest(
                page_size=size, page_token=token, name_prefix=prefix, shared=shared
            )
            page = self._calls.unary("ObjectService/ListObjects", request, objects_pb2.ListObjectsResponse)
            return [*page.objects], page.next_page_token

        return pages(fetch, limit)

    def outbox(self, *, open_only: bool = False, limit: int | None = None) -> Iterator[objects_pb2.OutboxEntry]:
        """The outbox, the oldest first."""

        def fetch(size: int, token: str) -> tuple[list[objects_pb2.OutboxEntry], str]:
            request = objects_pb2.ListOutboxRequest(page_size=size, page_token=token, open_only=open_only)
            page = self._calls.unary("ObjectService/ListOutbox", request, objects_pb2.ListOutboxResponse)
            return [*page.entries], page.next_page_token

        return pages(fetch, limit)

    def cancel(self, entry_id: int) -> objects_pb2.OutboxEntry:
        """Gives up an outbox entry that is not completed: the object stays at this node and goes nowhere any more. Safe
        to repeat."""
        request = objects_pb2.CancelOutboxEntryRequest(id=entry_id)
        return self._calls.unary(
            "ObjectService/CancelOutboxEntry", request, objects_pb2.CancelOutboxEntryResponse
        ).entry

    def delete(self, wanted: str) -> objects_pb2.Deletion:
        """Deletes an object for good: it is gone here when this returns, and its hosts are told until each has heard.

        Safe to repeat by the object's id. Raises OffgridError (ObjectNotFound, ObjectInUse while a job needs it).
        """
        request = objects_pb2.DeleteObjectRequest(object=wanted)
        return self._calls.unary(
            "ObjectService/DeleteObject", request, objects_pb2.DeleteObjectResponse, timeout_s=DELETE_S
        ).deletion

    def deletions(self, *, untold_only: bool = False, limit: int | None = None) -> Iterator[objects_pb2.Deletion]:
        """What was deleted; of that, what some host has not heard of yet."""

        def fetch(size: int, token: str) -> tuple[list[objects_pb2.Deletion], str]:
            request = objects_pb2.ListDeletionsRequest(page_size=size, page_token=token, untold_only=untold_only)
            page = self._calls.unary("ObjectService/ListDeletions", request, objects_pb2.ListDeletionsResponse)
            return [*page.deletions], page.next_page_token

        return pages(fetch, limit)

    def share(self, wanted: str, node: str) -> objects_pb2.Object:
        """Lets a member (its id, the first characters of it, or its name) read the object. It hears of it as soon as it
        is alive."""
        request = objects_pb2.ShareObjectRequest(object=wanted, node=node)
        return self._calls.unary("ObjectService/ShareObject", request, objects_pb2.ShareObjectResponse).object

    def unshare(self, wanted: str, node: str) -> objects_pb2.Object:
        """The member is told of the object no more; what it has read, and the key that it had, stay with it."""
        request = objects_pb2.UnshareObjectRequest(object=wanted, node=node)
        return self._calls.unary("ObjectService/UnshareObject", request, objects_pb2.UnshareObjectResponse).object

    # ---- out

    def read(
        self,
        wanted: str,
        *,
        offset: int = 0,
        length: int | None = None,
        on_progress: Progress = _silent,
        timeout_s: float = PATIENCE_S,
    ) -> bytes:
        """The object, or a range of it, in memory; as `fetch`."""
        held = io.BytesIO()
        self.fetch(wanted, held, offset=offset, length=length, on_progress=on_progress, timeout_s=timeout_s)
        return held.getvalue()

    def open(self, wanted: str, *, timeout_s: float = PATIENCE_S) -> io.BufferedReader:
        """The object as a binary file to read and to seek in; close it when done. It reads ahead of a reader that goes
        from front to back, and holds some MiB at most."""
        return reader_of(self._calls, self.get(wanted), timeout_s)

    def fetch(
        self,
        wanted: str,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        offset: int = 0,
        length: int | None = None,
        on_progress: Progress = _silent,
        on_wait: Callable[[str], None] = _silent,
        timeout_s: float = PATIENCE_S,
    ) -> int:
        """Writes an object, or `length` bytes of it from `offset` on, to a file (by its path) or a binary stream;
        returns how much.

        A file appears whole, or not at all: what was there before stays until then. A device or pipe is written to.
        A part that no host gives is asked for again for `timeout_s`, and `on_wait` is told why it does not come; then
        OffgridError (NoReplica) names the hosts.
        """
        made = self.get(wanted)
        size = made.size_bytes
        if not 0 <= offset <= size or (length is not None and not 0 <= length <= size - offset):
            raise ValueError(f"{length} bytes from {offset} on are not within {made.object_id}, which has {size}")
        parts = Parts(self._calls, made.object_id, timeout_s)
        end = size if length is None else offset + length
        if not isinstance(target, str | os.PathLike):
            return parts.copy(offset, end, target, on_progress, on_wait)
        with replaced(target) as file:
            return parts.copy(offset, end, file, on_progress, on_wait)


def _read(stream: BinaryIO, size: int) -> bytes:
    """A full piece, but for the last one: pipes give what they have."""
    data = stream.read(size)
    while 0 < len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


def _size_of(stream: BinaryIO) -> int:
    """What is still to be read of it; 0 where that cannot be known."""
    if not stream.seekable():
        return 0
    here = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    stream.seek(here)
    return end - here
