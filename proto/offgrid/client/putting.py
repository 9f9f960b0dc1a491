"""Putting: what a file, bytes or a stream becomes an object by, in one call or in pieces, and again from its beginning
where the node lost what was under way.
"""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, cast

from offgrid.client.calls import Calls
from offgrid.client.errors import OffgridError
from offgrid.client.object_parts import Progress
from offgrid.pieces import Piece
from offgrid.plaintext import PlaintextChecksum, checksum_of
from offgrid.v1 import objects_pb2

BEGINNINGS_MAX = 8  # of one put, while the node restarts
PIECES_UNDER_WAY = 3  # of one put: while the node seals one, others come
PAUSE_S, PAUSE_MAX_S = 0.1, 2.0  # between them, doubling
LOST = frozenset({"UploadNotFound", "UploadLost"})  # what was under way went with the node's process: begin again
COMMIT_S, COMMIT_BYTES_PER_S = 30.0, 5_000_000  # what the slowest card may take to make it durable
PUT_BYTES_MAX = 1 << 20  # of what goes in one call
WAIT_S_MAX = 60.0  # within one call; who waits longer is told afterwards


class Putting:
    """What `Objects.put` asks for."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def put(
        self,
        stream: BinaryIO,
        request: objects_pb2.OpenUploadRequest,
        on_progress: Progress,
        wait_s: float,
        *,
        kept: bool,
    ) -> objects_pb2.Object:
        """Nobody can tell how much a pipe brings before it has brought it. `kept`: somebody has the request id, and can
        go on with what breaks off; otherwise that is given up."""
        if not stream.seekable():
            head = _read(stream, PUT_BYTES_MAX + 1)
            if len(head) <= PUT_BYTES_MAX:
                return self._put_small(head, request, on_progress, wait_s)
            stream = cast(BinaryIO, io.BufferedReader(_Rejoined(head, stream)))
            return self._put_large(stream, request, on_progress, kept=kept)
        if _size_of(stream) <= PUT_BYTES_MAX:
            return self._put_small(_read(stream, PUT_BYTES_MAX + 1), request, on_progress, wait_s)
        return self._put_large(stream, request, on_progress, kept=kept)

    def _put_small(
        self, data: bytes, opened: objects_pb2.OpenUploadRequest, on_progress: Progress, wait_s: float
    ) -> objects_pb2.Object:
        """In one call."""
        wait_s = min(wait_s, WAIT_S_MAX)
        request = objects_pb2.PutObjectRequest(
            name=opened.name,
            data=data,
            required_milli=opened.required_milli,
            request_id=opened.request_id,
            copies=opened.copies,
            expires_after_ms=opened.expires_after_ms,
            padded=opened.padded if opened.HasField("padded") else None,
            checksum=checksum_of(data),
            wait_ms=int(wait_s * 1_000),
        )
        if opened.HasField("code"):
            request.code.CopyFrom(opened.code)
        timeout_s = COMMIT_S + wait_s

        def put(again: bool) -> objects_pb2.Object:
            return self._calls.unary(
                "ObjectService/PutObject", request, objects_pb2.PutObjectResponse, timeout_s=timeout_s
            ).object

        made = _persistently(put)
        on_progress(len(data), len(data))
        return made

    def _put_large(
        self, stream: BinaryIO, request: objects_pb2.OpenUploadRequest, on_progress: Progress, *, kept: bool
    ) -> objects_pb2.Object:
        start = stream.tell() if stream.seekable() else None
        if start is not None:
            request.size_bytes = _size_of(stream)

        opened = objects_pb2.OpenUploadResponse()

        def upload(again: bool) -> objects_pb2.Object:
            nonlocal opened
            if again and start is not None:
                stream.seek(start)
            opened = self._calls.unary("ObjectService/OpenUpload", request, objects_pb2.OpenUploadResponse)
            return self._upload(stream, opened, on_progress)

        try:
            return _persistently(upload, repeatable=start is not None)
        except BaseException as error:  # Ctrl-C too
            unreachable = isinstance(error, OffgridError) and error.outcome_unknown
            if opened.upload_id and not kept and not unreachable:
                self._abort(opened.upload_id)
            raise

    def _abort(self, upload_id: str) -> None:
        """What cannot be told now the node finds out by itself, in a while."""
        abort = objects_pb2.AbortUploadRequest(upload_id=upload_id)
        with suppress(OffgridError):
            self._calls.unary("ObjectService/AbortUpload", abort, objects_pb2.AbortUploadResponse, repeatable=False)

    def _upload(
        self, stream: BinaryIO, opened: objects_pb2.OpenUploadResponse, on_progress: Progress
    ) -> objects_pb2.Object:
        total, offset, checksum = _size_of(stream), 0, PlaintextChecksum()
        under_way = deque[tuple[Piece, Callable[[], object]]]()  # and what waits for it

        def came() -> None:
            part, wait = under_way.popleft()
            try:
                wait()
            except OffgridError as error:
                if error.reason != "Gap":  # what went before had to go again, and has come by now
                    raise
                self._calls.unary("ObjectService/WriteUpload", part, objects_pb2.WriteUploadResponse)
            end = part.offset + len(part.data)
            on_progress(end, max(total, end))

        while piece := _read(stream, opened.piece_bytes_max):
            end = offset + len(piece)
            if end > opened.offset:  # otherwise an earlier call has brought it
                part = Piece(objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, offset=offset), piece)
                under_way.append(
                    (part, self._calls.begin("ObjectService/WriteUpload", part, objects_pb2.WriteUploadResponse))
                )
            else:
                on_progress(end, max(total, end))
            checksum.update(piece)  # while it is on its way
            offset = end
            while len(under_way) >= PIECES_UNDER_WAY:
                came()
        while under_way:
            came()
        commit = objects_pb2.CommitUploadRequest(
            upload_id=opened.upload_id, size_bytes=offset, checksum=checksum.value()
        )
        return self._calls.unary(
            "ObjectService/CommitUpload",
            commit,
            objects_pb2.CommitUploadResponse,
            timeout_s=COMMIT_S + offset / COMMIT_BYTES_PER_S,
        ).object


def _persistently(put: Callable[[bool], objects_pb2.Object], *, repeatable: bool = True) -> objects_pb2.Object:
    """What `put` makes, who is told whether it was called before; called again while the node restarts."""
    beginning, pause_s = 1, PAUSE_S
    while True:
        try:
            return put(beginning > 1)
        except OffgridError as error:
            again = error.reason in LOST or error.outcome_unknown
            if not again or not repeatable or beginning == BEGINNINGS_MAX:
                raise
        time.sleep(pause_s)
        beginning, pause_s = beginning + 1, min(PAUSE_MAX_S, 2 * pause_s)


class _Rejoined(io.RawIOBase):
    """What was read of a stream, and then the rest of it."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._head[: len(buffer)] or self._stream.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


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
