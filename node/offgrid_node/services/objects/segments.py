"""Segments of journals: sealing this node's own, showing owners which of theirs are kept here, noting their lives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import Corrupt, Fault, PeerFault
from offgrid_node.protocol.objects.errands import KeepSegment, SegmentKept
from offgrid_node.protocol.objects.lives import BeginLife, Life, verify_life
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.segments import KnownSegments, sign_head
from offgrid_node.protocol.objects.tables import (
    LIVES,
    NUMBER_BYTES,
    REPLICAS,
    SEGMENTS_KEPT,
    age_prefix,
    number_key,
    number_of,
    object_of_segment,
    replica_key,
)
from offgrid_node.protocol.state.machine import Stirred
from offgrid_node.protocol.state.segment import packed
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, run
from offgrid_node.services.objects.sealing import Sealer
from offgrid_node.services.paging import decode_token, take_page
from offgrid_node.storage.rows import KEY_BYTES_MAX

_log = logging.getLogger(__name__)


class Segments:
    """The carrier of KeepSegment and the handler of ListSegments and BeginLife."""

    def __init__(
        self,
        runtime: Runtime,
        sealer: Sealer,
        signer: Signer,
        bulk: Bulk,
        salt: Callable[[], bytes],
        current_key: Callable[[str], bytes | None],
        key_number: Callable[[str], int],
        verify: Verifier,
        drop: Callable[[str], None],
        *,
        cuts: bool,
    ) -> None:
        """`current_key` of a member, and how many went before it; `drop` deletes a blob that no row names; `cuts`:
        whether this node's own journal is cut."""
        self._runtime, self._sealer, self._signer, self._bulk, self._salt = runtime, sealer, signer, bulk, salt
        self._current_key, self._key_number, self._verify = current_key, key_number, verify
        self._drop, self._sealed = drop, list[str]()
        self._stirred = False
        if cuts:
            runtime.watch(lambda events: self._stir())

    # ---- this node's own

    def _stir(self) -> None:
        """Once for all events up to the next cut."""
        if not self._stirred:
            self._stirred = True
            self._runtime.deliver("state", Stirred())

    def keep(self, work: KeepSegment) -> None:
        """Its end enters the runtime as SegmentKept. One of before that became no object, since a commit failed, goes:
        while a store is full there is one every few seconds."""
        self._stirred = False
        sealed, self._sealed = self._sealed, []
        for object_id in sealed:
            self._drop(object_id)

        def ended(outcome: SegmentKept | Fault) -> None:
            end = SegmentKept(work.token, fault=outcome) if isinstance(outcome, Fault) else outcome
            self._runtime.deliver("state", end)

        run(self._keep(work), ended)

    def _keep(self, work: KeepSegment) -> Flow[SegmentKept]:
        sealing = self._sealer.begin()

        def seal() -> tuple[objects_pb2.Manifest, Manifest]:
            try:
                sealing.add(packed(work.segment))
                sealing.close()
            except BaseException:
                sealing.discard()
                raise
            return self._sealer.manifest(sealing)

        manifest, body = yield self._bulk.run(seal, size_bytes=2 * work.segment.ByteSize())
        self._sealed.append(body.object_id)
        head = replace(work.head, object_id=body.object_id)
        manifest.segment.CopyFrom(sign_head(head, self._signer, self._salt()))
        return SegmentKept(work.token, manifest, body, body.sealed_bytes)

    # ---- others'

    def list(self, caller: Caller, request: objects_pb2.ListSegmentsRequest) -> objects_pb2.ListSegmentsResponse:
        owner, start = caller.node_id, decode_token(request.page_token)
        known = KnownSegments.read(request.known) if request.HasField("known") else None
        rows = self._kept(owner, start) if known is None else self._unknown(owner, start, known)
        segments, token = take_page(rows, request.page_size)
        return objects_pb2.ListSegmentsResponse(segments=segments, next_page_token=token, life=self._noted(owner))

    def begin_life(self, caller: Caller, request: objects_pb2.BeginLifeRequest) -> Ticket:
        """Raises PeerFault unless it is the caller's own, under its present key."""
        owner, held, void = caller.node_id, self._noted(caller.node_id), b""
        life = self._verified(request.life, owner)
        if held is not None:
            try:
                self._verified(held, owner)
            except PeerFault:
                void = held.signature
        return self._runtime.ask("objects", owner, BeginLife(request.life, life, void), size_bytes=request.ByteSize())

    def _verified(self, signed: common_pb2.Signed, owner: str) -> Life:
        key, number = self._current_key(owner), self._key_number(owner)
        return verify_life(signed, owner, key, number, self._verify, self._salt())

    def _noted(self, owner: str) -> common_pb2.Signed | None:
        noted = self._runtime.store.get(LIVES, owner.encode())
        return common_pb2.Signed.FromString(noted) if noted is not None else None

    def _kept(self, owner: str, start: bytes) -> Iterator[tuple[bytes, objects_pb2.Manifest | None]]:
        """The oldest first."""
        prefix = age_prefix(owner)
        begin = start if start.startswith(prefix) else b""
        for key, _ in self._runtime.store.scan(SEGMENTS_KEPT, begin, prefix=prefix):
            yield key, self._manifest(owner, key)

    def _unknown(
        self, owner: str, start: bytes, known: KnownSegments
    ) -> Iterator[tuple[bytes, objects_pb2.Manifest | None]]:
        """The newest first. What is known is told by its key alone."""
        prefix = age_prefix(owner)
        end = (start + b"\0")[:KEY_BYTES_MAX] if start.startswith(prefix) else b""  # that row comes first
        oldest = prefix + number_key(known.life)
        for key, _ in self._runtime.store.scan(SEGMENTS_KEPT, oldest, prefix=prefix, end=end, reverse=True):
            life, number = key[len(prefix) :][:NUMBER_BYTES], key[len(prefix) + NUMBER_BYTES :][:NUMBER_BYTES]
            is_known = known.has(number_of(life), number_of(number), object_of_segment(key, owner))
            yield key, None if is_known else self._manifest(owner, key)

    def _manifest(self, owner: str, key: bytes) -> objects_pb2.Manifest | None:
        """None where nobody can read its row: another host may show that one."""
        try:
            value = self._runtime.store.get(REPLICAS, replica_key(object_of_segment(key, owner), owner))
        except Corrupt as fault:
            said = fields("segment_unread", peer=owner, why=fault.message)
            _log.error("a segment of a peer's journal is not shown", extra=said)
            return None
        return objects_pb2.ReplicaRow.FromString(value).manifest if value is not None else None
