"""Wrapping objects anew: a page of rows is read, each object's key opened and sealed again, in a thread.

What the machine makes of it stands in protocol/objects/rewrapping.py.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault, InvalidRequest, PermissionDenied
from offgrid_node.protocol.mesh.commands import RotateWrappingKey
from offgrid_node.protocol.mesh.wrapping import BEGUN_KEY, LABEL_BYTES, WrappingKey
from offgrid_node.protocol.objects.commands import NewWrap, Rewrapped
from offgrid_node.protocol.objects.errands import Rewrap
from offgrid_node.protocol.objects.reseal_rows import sealed_us
from offgrid_node.protocol.objects.rewrapping import PAGE_OBJECTS
from offgrid_node.protocol.objects.tables import META, OBJECTS, REWRAPPING
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.sound import sound
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.objects.sealing import ENTROPY_BYTES, Wraps
from offgrid_node.storage.store import Store

LANE = "rewrapping"

_log = logging.getLogger(__name__)


class Members(Protocol):
    """For whose keys objects are wrapped; each question is a few looks into dictionaries, from whichever thread."""

    def wrapping_key(self, node_id: str) -> WrappingKey | None: ...


class Rewrapping:
    """Carries out Rewrap; its end enters the runtime as Rewrapped. And the handler of RotateDataKeys."""

    def __init__(
        self, runtime: Runtime, self_id: str, members: Callable[[], Members], wraps: Wraps, rng: Rng, bulk: Bulk
    ) -> None:
        self._runtime, self._self_id, self._members = runtime, self_id, members
        self._wraps, self._rng, self._bulk = wraps, rng, bulk

    def rewrap(self, work: Rewrap) -> None:
        def ended(outcome: Rewrapped | Fault) -> None:
            end = Rewrapped(work.start, fault=outcome) if isinstance(outcome, Fault) else outcome
            self._runtime.deliver("objects", end)

        page = _Page(self._self_id, self._members(), self._wraps, self._rng.randbytes(ENTROPY_BYTES))
        self._bulk.run(lambda: page.read(self._runtime.store, work.start), key=LANE)(ended)

    def rotate(self, caller: str, number: int) -> Ticket:
        return ticket_of(self._rotate(caller, number))

    def _rotate(self, caller: str, number: int) -> Flow[Message]:
        newest_us: int = yield self._bulk.run(lambda: _newest_us(self._runtime.store))
        answer: Message = yield asked(self._runtime.ask("mesh", caller, RotateWrappingKey(number, newest_us)))
        return answer

    def how_far(self, reencryption: objects_pb2.Reencryption) -> objects_pb2.GetDataKeysResponse:
        """Of the round that is under way, or of the last one."""
        row = objects_pb2.RewrapRow.FromString(self._runtime.store.get(META, REWRAPPING) or b"")
        own = self._members().wrapping_key(self._self_id)
        return objects_pb2.GetDataKeysResponse(
            number=own.number if own is not None else 0,
            under_way=row.under_way,
            objects_looked_at=row.looked,
            wraps_written=row.wraps,
            objects_unopened=row.unopened,
            begun_us=int.from_bytes(self._runtime.store.get("meta", BEGUN_KEY) or b"", "big"),
            reencryption=reencryption,
        )


def _newest_us(store: Store) -> int:
    """When the newest of this node's objects was sealed."""
    return max((sealed_us(objects_pb2.ObjectRow.FromString(row)) for _, row in sound(store.scan, OBJECTS)), default=0)


class _Page:
    """One page's work: by reader, the keys of all objects that are wrapped for another key of it than that of now."""

    def __init__(self, self_id: str, members: Members, wraps: Wraps, entropy: bytes) -> None:
        self._self_id, self._members, self._wraps, self._entropy = self_id, members, wraps, entropy
        self._keys: dict[str, WrappingKey | None] = {}
        self._due: dict[str, list[tuple[str, bytes, bytes]]] = {}  # reader → object id, wrap of before, object key
        self._unopened = 0

    def read(self, store: Store, start: str) -> Rewrapped:
        looked, following = 0, ""
        for key, value in sound(store.scan, OBJECTS, start.encode(), on_damaged=self._on_damaged):
            if looked == PAGE_OBJECTS:
                following = key.decode()
                break
            looked += 1
            self._look(objects_pb2.ObjectRow.FromString(value).object)
        return Rewrapped(start, following, self._made(), looked, self._unopened)

    def _on_damaged(self, key: bytes) -> None:
        said = fields("object_row_damaged", object=key.decode(errors="replace"))
        _log.error("an object's row is damaged", extra=said)
        self._unopened += 1

    def _look(self, made: objects_pb2.Object) -> None:
        outdated = [wrap for wrap in made.manifest.wraps if self._is_outdated(wrap)]
        if not outdated:
            return
        own = next((wrap.sealed_key for wrap in made.manifest.wraps if wrap.node_id == self._self_id), b"")
        try:
            key = self._wraps.unwrap(own, made.object_id.encode())
        except PermissionDenied:
            said = fields("object_unopened", object=made.object_id)
            _log.error("an object is wrapped for none of this node's keys", extra=said)
            self._unopened += 1
            return
        for wrap in outdated:
            self._due.setdefault(wrap.node_id, []).append((made.object_id, wrap.sealed_key, key))

    def _is_outdated(self, wrap: objects_pb2.KeyWrap) -> bool:
        """A reader who is no member any more keeps what it has."""
        if wrap.node_id not in self._keys:
            self._keys[wrap.node_id] = self._members.wrapping_key(wrap.node_id)
        current = self._keys[wrap.node_id]
        return current is not None and wrap.sealed_key[:LABEL_BYTES] != current.label

    def _made(self) -> tuple[tuple[str, tuple[NewWrap, ...]], ...]:
        new: dict[str, list[NewWrap]] = {}
        for node_id, due in self._due.items():
            current = self._keys[node_id]
            assert current is not None
            entropy = hashlib.blake2b(node_id.encode(), digest_size=ENTROPY_BYTES, key=self._entropy).digest()
            secrets = [(key, object_id.encode()) for object_id, _, key in due]
            try:
                sealed = self._wraps.wrap(current, secrets, entropy)
            except InvalidRequest as fault:
                said = fields("wrap_failed", peer=node_id, why=fault.message)
                _log.error("nothing can be wrapped for a peer", extra=said)
                continue
            for (object_id, before, _), wrap in zip(due, sealed, strict=True):
                new.setdefault(object_id, []).append(NewWrap(node_id, before, wrap))
        return tuple((object_id, tuple(wraps)) for object_id, wraps in sorted(new.items()))
