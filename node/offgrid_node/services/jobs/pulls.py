"""Outputs on their way from the host that made them to this node, which then has them as its own.

A blob is pulled from the host's store into this node's, sealed as it came and a few stripes at a time; every stripe is
opened once to see that it is what the manifest says, and its bytes go through a sink, which makes the digest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import msgspec
from google.protobuf.message import Message

from offgrid.pieces import as_a
from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.keys.stripes import open_stripe
from offgrid_node.protocol.errors import Corrupt, Exhausted, Fault, NotFound, PeerFault
from offgrid_node.protocol.jobs.artifacts import archive_digest, listed, unpack
from offgrid_node.protocol.jobs.large import ResultHash
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MS, transfer_ms
from offgrid_node.protocol.objects.manifest import Manifest, shard_root, stripe_digest
from offgrid_node.protocol.objects.shards import stripe_span
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Step, run, together
from offgrid_node.services.jobs.results import PULL_PREFIX
from offgrid_node.services.objects.holders import Carrier
from offgrid_node.services.objects.pulls import READ_REPLICA
from offgrid_node.storage.blobs import BlobStore

Pulled = tuple[bytes, list[jobs_pb2.ResultFile]]
"""Digest and, of an archive, the files in it."""
Refused = Callable[[Fault], None]

WINDOW = 3  # stripes of one output under way
FULL_RETRY_MS = 60_000  # a full disk does not empty itself at once

T = TypeVar("T")


class _Pull(msgspec.Struct):
    """An output on its way here, and who waits for it: a host repeats what it is not answered in time."""

    waiting: list[Callable[[Pulled | Fault], None]] = msgspec.field(default_factory=list)


class Pulls:
    """All that are under way; two of the same blob are one."""

    def __init__(self, carrier: Carrier, blobs: BlobStore, bulk: Bulk, salt: Callable[[], bytes]) -> None:
        self._carrier, self._blobs, self._bulk, self._salt = carrier, blobs, bulk, salt
        self._under_way: dict[tuple[str, str], _Pull] = {}

    def pull(self, host: str, manifest: Manifest, key: bytes, sink: Sink, refused: Refused) -> Step[Pulled]:
        """What came of its bytes in `sink`, once they are durable here. `refused` hears of it where this node's disk
        does not take them; the step ends with that fault as well, or with what the host raises."""

        def start(done: Callable[[Pulled | Fault], None]) -> None:
            name = host, manifest.object_id
            under_way = self._under_way.get(name)
            if under_way is not None:
                under_way.waiting.append(done)
                return
            pull = self._under_way[name] = _Pull([done])

            def ended(outcome: Pulled | Fault) -> None:
                del self._under_way[name]
                for waiting in pull.waiting:
                    waiting(outcome)

            run(self._pull(host, manifest, key, sink, refused), ended)

        return start

    def _pull(self, host: str, manifest: Manifest, key: bytes, sink: Sink, refused: Refused) -> Flow[Pulled]:
        name, staged = manifest.object_id, f"{PULL_PREFIX}{host}.{manifest.object_id}"
        check = _Check(manifest, key, sink, self._salt())
        discard = partial(self._blobs.discard, staged)
        at_disk = partial(self._at_disk, refused)
        yield from at_disk(discard, staged)
        here = yield from at_disk(partial(self._find, manifest), name)
        try:
            for start in range(0, manifest.stripes, WINDOW):
                indexes = range(start, min(manifest.stripes, start + WINDOW))
                sealed = yield from self._own(manifest, indexes) if here else self._window(host, manifest, indexes)
                add = partial(self._add, check, start, sealed, "" if here else staged)
                yield from at_disk(add, staged, 2 * sum(map(len, sealed)))
            pulled = yield from at_disk(check.end, staged)
            # What was here may be another report's whose fsync is under way: it is as durable only after one.
            settle = partial(self._blobs.sync, name) if here else partial(self._blobs.finish, staged, name)
            yield from at_disk(settle, name)
        except Fault:
            self._bulk.run(discard, key=staged)(lambda outcome: None)
            raise
        return pulled

    def _find(self, manifest: Manifest) -> bool:
        """In a thread: whether the output is here already. Raises Exhausted (reason DiskFull) where it is not and has
        no room, so that nothing is fetched in vain."""
        if self._blobs.size(manifest.object_id) is not None:
            return True
        free_bytes = self._blobs.free_bytes()
        if manifest.sealed_bytes > free_bytes:
            text = f"its {manifest.sealed_bytes} bytes are too much for this node's disk, which takes {free_bytes} more"
            raise Exhausted(text, reason="DiskFull", retry_ms=FULL_RETRY_MS)
        return False

    def _at_disk(self, refused: Refused, work: Callable[[], T], key: str, size_bytes: int = 0) -> Flow[T]:
        """Work in a thread at this node's disk."""
        try:
            outcome: T = yield self._bulk.run(work, key=key, size_bytes=size_bytes)
        except Fault as fault:
            if fault.reason in ("DiskFull", "DiskError"):
                refused(fault)
            raise
        return outcome

    def _window(self, host: str, manifest: Manifest, indexes: range) -> Flow[list[bytes]]:
        """A few stripes from the host, asked for at once."""
        answers = yield together([self._stripe(host, manifest, index) for index in indexes])
        return [_stripe_of(host, manifest, index, answer) for index, answer in zip(indexes, answers, strict=True)]

    def _own(self, manifest: Manifest, indexes: range) -> Flow[list[bytes]]:
        """The same from this node's own blob: an earlier report brought it, and its answer was lost."""
        spans = [stripe_span(manifest, index) for index in indexes]
        read = yield self._bulk.run(
            lambda: [self._blobs.read(manifest.object_id, *span) for span in spans], key=manifest.object_id
        )
        return list(read)

    def _stripe(self, host: str, manifest: Manifest, index: int) -> Step[Message]:
        offset, length = stripe_span(manifest, index)
        request = objects_pb2.ReadReplicaRequest(object_id=manifest.object_id, offset=offset, length=length)
        timeout_ms = CALL_TIMEOUT_MS + WINDOW * transfer_ms(length)
        return lambda done: self._carrier.request(host, READ_REPLICA, request, timeout_ms, done)

    def _add(self, check: _Check, start: int, sealed: list[bytes], staged: str) -> None:
        """In a thread. `staged` is empty where the bytes are here already."""
        for index, stripe in enumerate(sealed, start):
            check.add(index, stripe)
            if staged:
                self._blobs.append(staged, stripe_span(check.manifest, index)[0], stripe)


class Sink(Protocol):
    """Where opened bytes go, in their order, in a thread."""

    def add(self, data: bytes) -> None: ...

    def end(self) -> Pulled:
        """Raises PeerFault for what no honest host would have sealed."""
        ...


class OutputSink:
    """A large output: of it only the digest, with the exit code's."""

    def __init__(self, exit_code: int) -> None:
        self._hash = ResultHash(exit_code)

    def add(self, data: bytes) -> None:
        self._hash.add(data)

    def end(self) -> Pulled:
        return self._hash.digest(), []


class ArchiveSink:
    """The files of a result: digest and list are made here, of the bytes themselves, and nothing is believed."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def add(self, data: bytes) -> None:
        self._parts.append(data)

    def end(self) -> Pulled:
        archive = b"".join(self._parts)
        self._parts.clear()
        try:
            return archive_digest(archive), listed(unpack(archive))
        except Corrupt as error:
            raise PeerFault(error.message, reason="WrongOutput") from error


class _Check:
    """Whether sealed stripes are the manifest's, and what they open to."""

    def __init__(self, manifest: Manifest, key: bytes, sink: Sink, salt: bytes) -> None:
        self.manifest = manifest
        self._key, self._salt, self._sink = key, salt, sink
        self._digests: list[bytes] = []

    def add(self, index: int, sealed: bytes) -> None:
        """Raises PeerFault for a stripe that does not open in its place."""
        last = index == self.manifest.stripes - 1
        try:
            self._sink.add(open_stripe(self._key, self.manifest.nonce, index, last, sealed))
        except Corrupt as error:
            raise PeerFault(f"the output's {error.message}", reason="WrongOutput") from error
        self._digests.append(stripe_digest(self._salt, sealed))

    def end(self) -> Pulled:
        """What came of them. Raises PeerFault when the stripes are not those of the manifest's root."""
        if (shard_root(self._digests),) != self.manifest.roots:
            raise PeerFault("the output is not what its manifest says", reason="WrongOutput")
        return self._sink.end()


def _stripe_of(host: str, manifest: Manifest, index: int, answer: object) -> bytes:
    """Raises the fault that the answer is, PeerFault for an answer of another length, and NotFound as it came: the host
    has lost the blob, and says so."""
    if isinstance(answer, NotFound):
        raise PeerFault(f"{host} has lost the output that it reported", reason="OutputLost") from answer
    if isinstance(answer, Fault):
        raise answer
    found = as_a(objects_pb2.ReadReplicaResponse, answer)
    if found is None or len(found.data) != stripe_span(manifest, index)[1]:
        raise PeerFault(f"{host} gave a stripe of another length", reason="WrongStripe")
    return found.data
