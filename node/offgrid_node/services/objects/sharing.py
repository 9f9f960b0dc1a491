"""Sharing an object, and what others share with this node.

The owner opens the object's key and seals it for the reader; nothing of the object itself moves. A reader believes
nothing that its owner has not signed, and reads from the hosts as the owner does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.keys.stripes import open_size
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import Corrupt, InvalidRequest, NotFound, PeerFault, PermissionDenied
from offgrid_node.protocol.mesh.wrapping import WrappingKey
from offgrid_node.protocol.objects.commands import ShareObject, TakeNotices, UnshareObject
from offgrid_node.protocol.objects.dropping import READ_MARK
from offgrid_node.protocol.objects.manifest import OBJECT_ID, Manifest, verify_manifest
from offgrid_node.protocol.objects.notices import PAGE_NOTICES
from offgrid_node.protocol.objects.outbox import described
from offgrid_node.protocol.objects.reseal_rows import FORMERLY_MAX
from offgrid_node.protocol.objects.sharing import SHARED_BYTES_MAX, WRAP_ITEM_BYTES, wraps_in
from offgrid_node.protocol.objects.tables import (
    DROPPED,
    NUMBER_BYTES,
    OBJECTS,
    READ,
    SHARED,
    object_of,
    quorum_id_of,
    replica_prefix,
)
from offgrid_node.protocol.quorum.records import Epoch, verify_epoch
from offgrid_node.protocol.rng import Rng
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.checks import check_text
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.objects.bounds import check_bounds
from offgrid_node.services.objects.sealing import ENTROPY_BYTES, Wraps
from offgrid_node.services.shelf import Shelf, sound_on_page

NAME_CHARS_MAX = 256
PREFIX_CHARS_MIN = 6  # of an id: "o-" and four more
TOLD_MAX = 4  # owners that are named where several fit
DURABLE = objects_pb2.OBJECT_STATE_DURABLE


class Members(Protocol):
    """What sharing needs to know of members."""

    @property
    def salt(self) -> bytes: ...

    def keys(self, node_id: str) -> Sequence[bytes]: ...

    def wrapping_key(self, node_id: str) -> WrappingKey | None: ...

    def resolve(self, text: str) -> str: ...


class Sharing:
    """The handlers of ShareObject and UnshareObject, and what a reader takes of DeliverNotices."""

    def __init__(
        self,
        runtime: Runtime,
        self_id: str,
        members: Callable[[], Members],
        verify: Verifier,
        wraps: Wraps,
        rng: Rng,
        bulk: Bulk,
    ) -> None:
        self._runtime, self._self_id, self._members, self._verify = runtime, self_id, members, verify
        self._wraps, self._rng, self._bulk, self._shelf = wraps, rng, bulk, Shelf(runtime.store)

    # ---- at the owner

    def share(self, made: objects_pb2.Object, node: str, caller: str) -> Ticket:
        node_id = self._reader(node)
        key = self._members().wrapping_key(node_id)
        if key is None:
            raise InvalidRequest.field("node", f"{node!r} is no member of this mesh any more")
        return ticket_of(self._share(made, node_id, key, caller))

    def unshare(self, made: objects_pb2.Object, node: str, caller: str) -> Ticket:
        """One who was removed from the mesh is named by what the object's wraps say."""
        wrapped = [wrap.node_id for wrap in made.manifest.wraps if wrap.node_id == node]
        node_id = wrapped[0] if wrapped else self._reader(node)
        return self._runtime.ask("objects", caller, UnshareObject(made.object_id, node_id))

    def _reader(self, node: str) -> str:
        node_id = self._members().resolve(node)
        if node_id == self._self_id:
            raise InvalidRequest.field("node", "this node reads its own objects always")
        return node_id

    def _share(self, made: objects_pb2.Object, node_id: str, key: WrappingKey, caller: str) -> Flow[Message]:
        """The wrap is made in a thread: the curve's arithmetic takes a tenth of a millisecond. Of one that was sealed
        anew meanwhile another one is."""
        own = next((wrap.sealed_key for wrap in made.manifest.wraps if wrap.node_id == self._self_id), b"")
        entropy, use = self._rng.randbytes(ENTROPY_BYTES), made.object_id.encode()
        (sealed_key,) = yield self._bulk.run(
            lambda: self._wraps.wrap(key, [(self._wraps.unwrap(own, use), use)], entropy)
        )
        ticket = self._runtime.ask("objects", caller, ShareObject(made.object_id, node_id, sealed_key))
        try:
            answer: Message = yield asked(ticket)
        except NotFound:
            moved = self._shelf.find(OBJECTS, objects_pb2.ObjectRow, self._shelf.place_of(made.object_id))
            if moved is None:
                raise
            answer = yield from self._share(moved.object, node_id, key, caller)
        return answer

    # ---- at whoever is told

    def checked(self, caller: Caller, notices: objects_pb2.DeliverNoticesRequest) -> TakeNotices:
        """Raises InvalidRequest and PeerFault for what no owner would say."""
        count = len(notices.deleted) + len(notices.shared) + len(notices.unshared)
        if count > PAGE_NOTICES:
            raise InvalidRequest.field("deleted", f"{count} notices of all kinds; at most {PAGE_NOTICES} are allowed")
        if len(notices.moved) > PAGE_NOTICES:
            raise InvalidRequest.field("moved", f"{len(notices.moved)} epochs; at most {PAGE_NOTICES} are allowed")
        for field, object_ids in (("deleted", notices.deleted), ("unshared", notices.unshared)):
            for index, object_id in enumerate(object_ids):
                if not OBJECT_ID.match(object_id):
                    raise InvalidRequest.field(f"{field}[{index}]", f"{object_id[:64]!r} is no object id")
        shared = tuple((self._check(caller.node_id, each), each) for each in notices.shared)
        moved = tuple(self._check_epoch(caller.node_id, each) for each in notices.moved)
        rewrapped = _rewrapped(notices)
        deleted, unshared = tuple(notices.deleted), tuple(notices.unshared)
        return TakeNotices(caller.node_id, deleted, shared, unshared, moved, rewrapped, notices.life, notices.number)

    def _check_epoch(self, owner: str, signed: common_pb2.Signed) -> Epoch:
        members = self._members()
        epoch = verify_epoch(signed, members.keys(owner), self._verify, members.salt)
        if epoch.owner != owner or not OBJECT_ID.match(object_of(epoch.quorum_id)):
            raise PeerFault(f"{owner} tells of epoch {epoch.epoch} of {epoch.quorum_id}", reason="WrongEpoch")
        return epoch

    def _check(self, owner: str, shared: objects_pb2.SharedObject) -> str:
        """The object's id."""
        if shared.ByteSize() > SHARED_BYTES_MAX:
            raise InvalidRequest.field("shared", f"{shared.ByteSize()} bytes; at most {SHARED_BYTES_MAX} are allowed")
        check_text("shared.name", shared.name, NAME_CHARS_MAX, empty=True)
        members = self._members()
        keys = members.keys(owner)
        body = verify_manifest(shared.manifest.signed, keys, self._verify, members.salt)
        if body.owner != owner:
            raise PeerFault(f"{owner} shares an object of {body.owner}", reason="ForgedManifest")
        check_bounds(shared.manifest, body)
        if len(shared.formerly) > FORMERLY_MAX or not all(map(OBJECT_ID.match, shared.formerly)):
            raise InvalidRequest.field("shared.formerly", f"at most {FORMERLY_MAX} ids of objects are allowed")
        if [wrap.node_id for wrap in shared.manifest.wraps] != [self._self_id]:
            raise PeerFault(f"{owner} shares {body.object_id} without a key for this node", reason="NotForUs")
        if shared.HasField("epoch") and shared.epoch != common_pb2.Signed():
            epoch = verify_epoch(shared.epoch, keys, self._verify, members.salt)
            if (epoch.owner, epoch.quorum_id) != (owner, quorum_id_of(body.object_id)):
                raise PeerFault(f"the epoch is not {body.object_id}'s", reason="WrongEpoch")
        return body.object_id

    # ---- what is shared with this node

    def opened(self, row: objects_pb2.ObjectRow) -> objects_pb2.ObjectRow:
        """With the object's own size, which this node's key opens: it is on no reader's disk. Where that fails the
        size of its class stays; its bytes cannot be read then either."""
        made = row.object
        if made.padded_bytes:
            own = next((wrap.sealed_key for wrap in made.manifest.wraps if wrap.node_id == self._self_id), b"")
            with suppress(PermissionDenied, Corrupt):
                key = self._wraps.unwrap(own, made.object_id.encode())
                made.size_bytes = open_size(key, Manifest.decode(made.manifest.signed.body))
        return row

    def rows(self, start: bytes) -> Iterator[tuple[bytes, objects_pb2.ObjectRow]]:
        """From a page's beginning on; `opened` has their own sizes."""
        for key, value in self._runtime.store.scan(SHARED, start):
            yield key, _row_of(objects_pb2.SharedRow.FromString(value))

    def sound_rows(self, start: bytes, damaged: list[bytes]) -> Iterator[tuple[bytes, objects_pb2.ObjectRow]]:
        """As `rows`, but for those that are damaged: see `Shelf.sound_rows`."""
        for key, value in sound_on_page(self._runtime.store, SHARED, start, damaged):
            yield key, _row_of(objects_pb2.SharedRow.FromString(value))

    def find(self, text: str) -> objects_pb2.ObjectRow | None:
        """By id, its first characters, an id that it had before it was sealed anew, or a name; behind an owner and a
        "/" among what that owner shares. What several owners share is nobody's without one: a member that keeps an
        object may well share it as its own, and others choose names. Raises InvalidRequest where several fit."""
        owner, _, rest = text.partition("/")
        if rest:
            with suppress(NotFound, InvalidRequest):
                found = self._of(rest, self._members().resolve(owner))
                if found is not None:
                    return found
        return self._of(text, "")

    def _of(self, text: str, owner: str) -> objects_pb2.ObjectRow | None:
        """Of that owner; "": of whomever."""
        if is_id := OBJECT_ID.match(text) is not None:
            owners = {owner} if owner else self._owners(text)
            if len(owners) > 1:
                raise _ambiguous(text, owners)
        found = self._beginning(text, owner) if text.startswith("o-") and len(text) >= PREFIX_CHARS_MIN else []
        if len({row.object.object_id for row in found}) > 1:
            raise InvalidRequest.field("object", f"{text!r} fits several objects; give more of the id")
        if not found:
            rows = (row for _, row in self.rows(b"") if owner in ("", row.object.owner))
            found = [row for row in rows if (text in row.object.formerly if is_id else row.object.name == text)]
        if len(owners := {row.object.owner for row in found}) > 1:
            raise _ambiguous(text, owners)
        return max(found, key=lambda row: row.object.created_us, default=None)

    def _beginning(self, text: str, owner: str) -> list[objects_pb2.ObjectRow]:
        """Some of those whose ids begin so."""
        rows = self._runtime.store.scan(SHARED, prefix=text.encode())
        values = (value for key, value in rows if not owner or key.endswith(f"/{owner}".encode()))
        return [_row_of(objects_pb2.SharedRow.FromString(value)) for value in islice(values, TOLD_MAX)]

    def _owners(self, object_id: str) -> set[str]:
        """Whose it is or was, by their own words."""
        store, prefix = self._runtime.store, replica_prefix(object_id)
        keys = [key for table in (SHARED, READ) for key, _ in islice(store.scan(table, prefix=prefix), TOLD_MAX)]
        keys += [key for key, mark in store.scan(DROPPED, prefix=prefix) if mark[NUMBER_BYTES:] == READ_MARK]
        return {key[len(prefix) :].decode() for key in keys}


def _ambiguous(text: str, owners: Iterable[str]) -> InvalidRequest:
    said = " or ".join(f"{owner}/{text}" for owner in sorted(owners)[:TOLD_MAX])
    return InvalidRequest.field("object", f"several nodes share {text!r} with this one: say whose, {said}")


def _rewrapped(notices: objects_pb2.DeliverNoticesRequest) -> tuple[tuple[str, bytes], ...]:
    """Raises InvalidRequest for more of them than a page has, and for what is no wrap."""
    if len(notices.rewrapped) > PAGE_NOTICES or sum(len(each.items) for each in notices.rewrapped) > (
        PAGE_NOTICES * WRAP_ITEM_BYTES
    ):
        raise InvalidRequest.field("rewrapped", f"at most {PAGE_NOTICES} wraps are allowed")
    try:
        return tuple(wrap for each in notices.rewrapped for wrap in wraps_in(each))
    except ValueError as error:
        raise InvalidRequest.field("rewrapped", str(error)) from error


def _row_of(row: objects_pb2.SharedRow) -> objects_pb2.ObjectRow:
    """As if it were this node's own; it has its owner, and that no copy is here."""
    body = Manifest.decode(row.shared.manifest.signed.body)
    made = described(row.shared.manifest, body, row.shared.name)
    made.state = DURABLE
    made.formerly.extend(row.shared.formerly)
    return objects_pb2.ObjectRow(object=made, epoch=row.shared.epoch or None)
