"""Sealing objects anew: what is read and opened is sealed under another key as it comes, and never lies in the clear.

What the machine makes of it stands in protocol/objects/resealing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.protocol.mesh.wrapping import BEGUN_KEY, WrappingKey
from offgrid_node.protocol.objects.commands import Reencrypt, Resealed, StopReencryption
from offgrid_node.protocol.objects.deletion import was_deleted
from offgrid_node.protocol.objects.errands import Reseal
from offgrid_node.protocol.objects.manifest import Code, Manifest
from offgrid_node.protocol.objects.reseal_rows import is_due
from offgrid_node.protocol.objects.resealing import IN_USE
from offgrid_node.protocol.objects.sharing import readers_of
from offgrid_node.protocol.objects.tables import META, OBJECTS, OUTBOX, RESEALING, outbox_key
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.sound import sound
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Later, asked, run, ticket_of
from offgrid_node.services.objects.background import let_others, pause
from offgrid_node.services.objects.holders import holders_of
from offgrid_node.services.objects.rate import UNLIMITED, Rate
from offgrid_node.services.objects.reading import Reading
from offgrid_node.services.objects.sealing import ENTROPY_BYTES, Sealer, Sealing, Wraps
from offgrid_node.services.objects.uploads import Uploads
from offgrid_node.services.objects.uses import user_of
from offgrid_node.storage.store import Store

BYTES_PER_S = 10_000_000
SAFE_LOOK_MS = 1_000  # at how far the journal has come at hosts
OBJECT_BYTES = 64 << 10  # what the rate takes any object for, at least: its rows and calls cost something as well


SafeSeq = Callable[[], "int | None"]
"""Up to which event this node would come back if it lost its disk now; None where its journal is kept by no host."""


class Members(Protocol):
    """For whose keys objects are wrapped."""

    def wrapping_key(self, node_id: str) -> WrappingKey | None: ...


class Resealing:
    """Carries out Reseal; its end enters the runtime as Resealed. And the handlers of what asks for it."""

    def __init__(
        self,
        runtime: Runtime,
        self_id: str,
        members: Callable[[], Members],
        sealer: Sealer,
        uploads: Uploads,
        reading: Reading,
        wraps: Wraps,
        rng: Rng,
        bulk: Bulk,
        later: Later,
        safe_seq: SafeSeq,
        bytes_per_s: int = UNLIMITED,
    ) -> None:
        self._runtime, self._self_id, self._members, self._bulk = runtime, self_id, members, bulk
        self._sealer, self._uploads, self._reading = sealer, uploads, reading
        self._wraps, self._rng, self._later, self._safe_seq = wraps, rng, later, safe_seq
        self._rate = Rate(lambda: runtime.clock.now().mono_ms, bytes_per_s)
        self._under_way: set[Reseal] = set()

    # ---- asked for

    def begin(self, caller: str) -> Ticket:
        return ticket_of(self._begin(caller))

    def stop(self, caller: str) -> Ticket:
        return self._runtime.ask("objects", caller, StopReencryption())

    def told(self) -> objects_pb2.Reencryption:
        return self._row().told

    def _begin(self, caller: str) -> Flow[Message]:
        store = self._runtime.store
        before_us = int.from_bytes(store.get("meta", BEGUN_KEY) or b"", "big")
        objects: int = yield self._bulk.run(lambda: sum(1 for _ in _due(store, before_us)))
        answer: Message = yield asked(self._runtime.ask("objects", caller, Reencrypt(before_us, objects)))
        return answer

    # ---- one object

    def reseal(self, work: Reseal) -> None:
        """Machines that were loaded anew say it again: it goes on as it is."""
        if work in self._under_way:
            return
        self._under_way.add(work)

        def ended(outcome: Resealed | Fault) -> None:
            self._under_way.discard(work)
            failed = Resealed(work.object_id, work.new_id, fault=outcome if isinstance(outcome, Fault) else None)
            self._runtime.deliver("objects", outcome if isinstance(outcome, Resealed) else failed)

        run(self._wrap(work) if work.new_id else self._seal(work.object_id), ended)

    def _seal(self, object_id: str) -> Flow[Resealed]:
        row = self._wanted(object_id)
        yield from self._check_unused(row.object)
        manifest, key = Manifest.decode(row.object.manifest.signed.body), self._reading.key_of(row.object.manifest)
        code = Code(manifest.k, manifest.n)
        sealing = self._sealer.begin(code, padded=bool(manifest.sealed_size), like=manifest)
        try:
            yield from self._copy(row.object, manifest, key, sealing)
            yield from self._uploads.add(
                sealing,
                self._self_id,
                row.object.name,
                row.object.required_milli,
                "",
                b"",
                None,
                copies=row.copies_wanted,
                for_job=self._is_for_job(row),
                replaces=object_id,
            )
        except Fault:
            self._uploads.drop(sealing)
            raise
        return Resealed(object_id)

    def _copy(self, made: objects_pb2.Object, manifest: Manifest, key: bytes, sealing: Sealing) -> Flow[None]:
        """Stripe by stripe, of what was put: zeros that fill it up are made anew."""
        self._rate.take(max(0, OBJECT_BYTES - made.size_bytes))
        for start in range(0, made.size_bytes, manifest.stripe_bytes):
            yield from let_others(self._rate, self._bulk, self._later)
            holders = holders_of(self._wanted(made.object_id))  # hosts come and go meanwhile
            stripe, _ = yield from self._reading.stripe(manifest, key, start // manifest.stripe_bytes, holders)
            data = stripe[: made.size_bytes - start]
            yield self._bulk.run(partial(sealing.add, data), key=sealing.staged, size_bytes=len(data))
            self._rate.take(len(data))

    def _wrap(self, work: Reseal) -> Flow[Resealed]:
        """The new one's key, for those who read the old one now."""
        yield from self._until_safe(work)
        old, new = self._wanted(work.object_id), self._wanted(work.new_id)
        yield from self._check_unused(old.object)
        entropy = self._rng.randbytes(ENTROPY_BYTES * len(readers_of(old.object)))
        wraps = yield self._bulk.run(lambda: self._wrapped(old.object, new.object, entropy))
        return Resealed(work.object_id, work.new_id, frozenset(readers_of(old.object)), wraps)

    def _until_safe(self, work: Reseal) -> Flow[None]:
        """Until the journal at hosts knows the new one: hosts drop the old one next, and a node restored from a journal
        that knows no other would have neither."""
        seq = self._runtime.store.journal_seq
        while (safe_seq := self._safe_seq()) is not None and safe_seq < seq:
            yield pause(self._later, SAFE_LOOK_MS)
            for object_id in work:
                self._wanted(object_id)

    def _wrapped(
        self, old: objects_pb2.Object, new: objects_pb2.Object, entropy: bytes
    ) -> tuple[tuple[str, bytes], ...]:
        key, use, wraps = self._reading.key_of(new.manifest), new.object_id.encode(), []
        for index, reader in enumerate(readers_of(old)):
            if (current := self._members().wrapping_key(reader)) is not None:
                own = entropy[index * ENTROPY_BYTES :][:ENTROPY_BYTES]
                (sealed_key,) = self._wraps.wrap(current, [(key, use)], own)
                wraps.append((reader, sealed_key))
        return tuple(wraps)

    # ---- questions

    def _wanted(self, object_id: str) -> objects_pb2.ObjectRow:
        """Raises NotFound (ObjectDeleted), FailedPrecondition (NotResealed)."""
        if not self._row().told.under_way:
            raise FailedPrecondition("nothing is to be sealed anew any more", reason="NotResealed")
        value = self._runtime.store.get(OBJECTS, object_id.encode())
        if value is None:
            raise was_deleted(object_id)
        return objects_pb2.ObjectRow.FromString(value)

    def _check_unused(self, made: objects_pb2.Object) -> Flow[None]:
        """Raises FailedPrecondition (ObjectInUse)."""
        if used_by := (yield self._bulk.run(lambda: user_of(self._runtime.store, made))):
            raise FailedPrecondition(f"{used_by} needs it", reason=IN_USE)

    def _is_for_job(self, row: objects_pb2.ObjectRow) -> bool:
        value = self._runtime.store.get(OUTBOX, outbox_key(row.outbox_id)) or b""
        return objects_pb2.OutboxEntry.FromString(value).for_job

    def _row(self) -> objects_pb2.ResealRow:
        return objects_pb2.ResealRow.FromString(self._runtime.store.get(META, RESEALING) or b"")


def _due(store: Store, before_us: int) -> Iterator[bytes]:
    for key, value in sound(store.scan, OBJECTS):
        if is_due(objects_pb2.ObjectRow.FromString(value), before_us):
            yield key
