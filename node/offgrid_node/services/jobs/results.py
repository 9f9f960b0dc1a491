"""How an execution ended, sealed before the runtime, and so the disk, gets to see it: the host's side of results.

A small result is a letter for its core. A large output is sealed as objects are, under a key that only the letter
holds, and lies in this host's blob store until the core has answered. What this node does for itself is its own: small
results stay as they are, a large one becomes an object at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.protocol.effects import Executed
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.artifacts import archive_digest, listed, pack
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX, report_context
from offgrid_node.protocol.jobs.receipts import digest_with_files, result_digest
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, run
from offgrid_node.services.objects.sealing import Sealer, Sealing

PULL_PREFIX = "r."  # of the names under which a core stages what it pulls; no upload begins so
NOT_KEPT = "ResultNotKept"  # the host could not keep it: the core's next attempt goes elsewhere


class Letters(Protocol):
    """Seals small things for a reader's key, and opens what was sealed for this node's."""

    def seal(self, public_key: bytes, context: bytes, plaintext: bytes) -> bytes: ...

    def open(self, letter: bytes, context: bytes) -> bytes: ...


class Results:
    """Between executors and runtime."""

    def __init__(
        self,
        self_id: str,
        letters: Letters,
        sealer: Sealer,
        bulk: Bulk,
    ) -> None:
        self._self_id, self._letters = self_id, letters
        self._sealer, self._bulk = sealer, bulk

    def seal(self, end: Executed, key: bytes | None, done: Callable[[Executed], None]) -> None:
        """`key` is the core's public key, None for one that is no member any more. `done` is called once, with what may
        be stored: at once unless the output is large, or there are files."""
        if end.error:  # nothing of it is reported but the error
            done(end._replace(output=b"", log=b"", files=()))
        elif len(end.output) > INLINE_BYTES_MAX or end.files:
            run(self._seal_large(end, key), lambda outcome: done(_sealed_or_lost(end, outcome)))
        elif end.core == self._self_id:
            done(end)
        else:
            secret = jobs_pb2.ResultSecret(output=end.output, log=end.log)
            done(self._as_letter(end, key, secret, result_digest(end.exit_code, end.output)))

    def _seal_large(self, end: Executed, key: bytes | None) -> Flow[Executed]:
        """Output and archive, each sealed if it has to be; the one is dropped should the other fail."""
        made: list[Sealing] = []
        is_large, archive = len(end.output) > INLINE_BYTES_MAX, b""
        try:
            digest = yield self._bulk.run(lambda: result_digest(end.exit_code, end.output), size_bytes=len(end.output))
            if is_large:
                made.append((yield from self._sealed(end.output)))
            if end.files:
                size_bytes = sum(len(data) for _, data in end.files)
                archive = yield self._bulk.run(lambda: pack(end.files), size_bytes=size_bytes)
                made.append((yield from self._sealed(archive)))
        except Fault:
            for sealing in made:
                self._drop(sealing)
            raise
        output = made[0] if is_large else None
        files = made[-1] if end.files else None
        files_digest = archive_digest(archive)
        end = end._replace(digest=digest_with_files(digest, files_digest))
        if end.core == self._self_id:
            return self._as_own(end, output, files, files_digest)
        return self._as_blobs(end, key, output, files)

    def _sealed(self, data: bytes) -> Flow[Sealing]:
        sealing = self._sealer.begin()

        def work() -> None:
            sealing.add(data)
            sealing.close()

        try:
            yield self._bulk.run(work, key=sealing.staged, size_bytes=len(data))
        except Fault:
            self._bulk.run(sealing.discard, key=sealing.staged)(lambda outcome: None)
            raise
        return sealing

    def _drop(self, sealing: Sealing) -> None:
        """It lies under its object's id already, and no row will ever name it."""
        self._bulk.run(lambda: self._sealer.delete(sealing.object_id), key=sealing.object_id)(lambda outcome: None)

    def _as_own(self, end: Executed, output: Sealing | None, files: Sealing | None, files_digest: bytes) -> Executed:
        if output is not None:
            name = output_name(end.job_id)
            manifest, body = self._sealer.manifest(output, objects_pb2.ObjectNote(name=name, for_job=True))
            end = end._replace(output=b"", added=ObjectAdded(manifest, body, name, 0))
        if files is not None:
            name = files_name(end.job_id)
            manifest, body = self._sealer.manifest(files, objects_pb2.ObjectNote(name=name, for_job=True))
            added = ObjectAdded(manifest, body, name, 0)
            listing = tuple(listed(end.files))
            end = end._replace(files=(), files_added=added, files_digest=files_digest, result_files=listing)
        return end

    def _as_blobs(self, end: Executed, key: bytes | None, output: Sealing | None, files: Sealing | None) -> Executed:
        secret = jobs_pb2.ResultSecret(log=end.log)
        if output is not None:
            secret.blob_key = output.key
            end = end._replace(blob=self._sealer.body(output).encode())
        else:
            secret.output = end.output
        if files is not None:
            secret.files_key = files.key
            end = end._replace(files=(), files_blob=self._sealer.body(files).encode())
        return self._as_letter(end, key, secret, end.digest)

    def _as_letter(self, end: Executed, key: bytes | None, secret: jobs_pb2.ResultSecret, digest: bytes) -> Executed:
        if key is None:
            return _lost(end, f"{end.core} is no member any more: nobody could read it")
        context = report_context(self._self_id, end.core, end.job_id, end.attempt)
        sealed = self._letters.seal(key, context, secret.SerializeToString())
        return end.in_a_letter(digest, sealed)


def files_name(job_id: str) -> str:
    """What the archive of the files that a job left is called among its core's objects."""
    return f"{job_id}.files"


def output_name(job_id: str) -> str:
    """What a large output is called among its core's objects."""
    return f"{job_id}.output"


def _sealed_or_lost(end: Executed, outcome: Executed | Fault) -> Executed:
    return _lost(end, outcome.message) if isinstance(outcome, Fault) else outcome


def _lost(end: Executed, why: str) -> Executed:
    return end._replace(
        output=b"", log=b"", files=(), error=NOT_KEPT, error_detail=f"the host could not keep the result: {why}"
    )


__all__ = ["NOT_KEPT", "Letters", "Results", "files_name", "output_name"]
