"""Carries out Fetch: an object of this node's comes back from its hosts, stripe by stripe, to be brought to others.

Sealing is the same for the same key, nonce, number and bytes, so what opened in its place is sealed again to just what
it was. A few stripes are under way at once; nothing of it lies in the clear on the disk.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import objects_pb2
from offgrid_node.keys.stripes import seal_stripe
from offgrid_node.protocol.errors import Corrupt, Fault, NotFound
from offgrid_node.protocol.objects.errands import Fetch, Fetched
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.shards import stripe_span
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Step, run, settled, together
from offgrid_node.services.objects.holders import Holders, holders_of
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.reading import Reading
from offgrid_node.services.objects.repair_pace import RepairPace
from offgrid_node.storage.blobs import BlobStore

WINDOW = 3  # stripes under way of one object: what a read-ahead is worth, and 3 MiB
PACED_MS_MAX = 3_600_000  # what others repair meanwhile is waited for
STAGED_PREFIX = "fetch-"


class Fetching:
    """Fetches under way, one for each object; the objects machine bounds how many."""

    def __init__(
        self,
        runtime: Runtime,
        reading: Reading,
        blobs: BlobStore,
        bulk: Bulk,
        keeping: Keeping,
        pace: RepairPace,
    ) -> None:
        self._runtime, self._reading, self._pace = runtime, reading, pace
        self._blobs, self._bulk, self._keeping = blobs, bulk, keeping
        self._under_way: set[str] = set()

    def fetch(self, work: Fetch) -> None:
        """Its end enters the runtime as Fetched. Machines that were loaded anew say it again: it goes on as it is."""
        object_id = work.object_id
        if object_id in self._under_way:
            return
        self._under_way.add(object_id)

        def ended(outcome: Fault | None) -> None:
            self._under_way.discard(object_id)
            self._runtime.deliver("objects", Fetched(object_id, outcome))

        run(self._fetch(work), ended)

    def _fetch(self, work: Fetch) -> Flow[None]:
        with self._keeping.vouch(work.object_id):
            yield from self.bring(work.manifest, lambda: holders_of(self._row(work)))

    def bring(self, wrapped: objects_pb2.Manifest, holders: Callable[[], Holders]) -> Flow[None]:
        """The sealed bytes of an object come here from those who hold it at that moment. Whoever calls vouches for its
        blob."""
        manifest, key = Manifest.decode(wrapped.signed.body), self._reading.key_of(wrapped)
        staged = f"{STAGED_PREFIX}{manifest.object_id}"
        yield self._bulk.run(lambda: self._blobs.discard(staged), key=staged)
        for start in range(0, manifest.stripes, WINDOW):
            indexes = range(start, min(manifest.stripes, start + WINDOW))
            yield from self._pace.pull(sum(stripe_span(manifest, index)[1] for index in indexes), PACED_MS_MAX)
            stripes = [settled(self._reading.stripe(manifest, key, index, holders())) for index in indexes]
            for index, answer in zip(indexes, (yield together(stripes)), strict=True):
                if isinstance(answer, Fault):
                    yield self._bulk.run(lambda: self._blobs.discard(staged), key=staged)
                    raise answer
                yield self._write(staged, manifest, key, index, answer[0])
        yield self._bulk.run(lambda: self._finish(staged, manifest), key=staged)

    def _row(self, work: Fetch) -> objects_pb2.ObjectRow:
        """As it is now: hosts come and go while a large object is fetched."""
        value = self._runtime.store.get(OBJECTS, work.object_id.encode())
        if value is None:
            raise NotFound(f"object {work.object_id} was deleted meanwhile", reason="ObjectDeleted")
        return objects_pb2.ObjectRow.FromString(value)

    def _write(self, staged: str, manifest: Manifest, key: bytes, index: int, plaintext: bytes) -> Step[None]:
        def work() -> None:
            sealed = seal_stripe(key, manifest.nonce, index, index == manifest.stripes - 1, plaintext)
            self._blobs.append(staged, stripe_span(manifest, index)[0], sealed)

        return self._bulk.run(work, key=staged, size_bytes=2 * len(plaintext))

    def _finish(self, staged: str, manifest: Manifest) -> None:
        size = self._blobs.staged_bytes(staged)
        if size != manifest.sealed_bytes:
            raise Corrupt(f"{size} of {manifest.sealed_bytes} bytes came back", reason="BlobLost")
        self._blobs.finish(staged, manifest.object_id)
