"""Which object is meant: by id, by the first characters of one, or by name; this node's own before what others share
with it."""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Corrupt, InvalidRequest, NotFound
from offgrid_node.protocol.objects.deletion import OBJECT_DELETED, was_deleted
from offgrid_node.protocol.objects.manifest import OBJECT_ID
from offgrid_node.protocol.objects.tables import (
    DELETED,
    OBJECT_NAMES,
    OBJECTS,
    REGAINED,
    RESEALED,
    missing_key,
    name_prefix,
)
from offgrid_node.services.objects.sharing import NAME_CHARS_MAX, PREFIX_CHARS_MIN, Sharing
from offgrid_node.services.shelf import Shelf
from offgrid_node.storage.store import Store

RowOf = Callable[[str], "objects_pb2.ObjectRow | None"]


class Finding:
    """Looks in committed rows."""

    def __init__(self, store: Store, sharing: Sharing) -> None:
        self._store, self._sharing, self._shelf = store, sharing, Shelf(store)

    def find(self, text: str) -> objects_pb2.ObjectRow:
        """As `own`, and then among what others share with this node; what was this node's own and is deleted is nobody
        else's. Raises NotFound, and InvalidRequest when several fit."""
        try:
            return self.own(text, to_read=True)
        except NotFound as fault:
            if fault.reason == OBJECT_DELETED:
                raise
            if (shared := self._sharing.find(text)) is None:
                raise
            return self._sharing.opened(shared)

    def own(self, text: str, *, to_read: bool = False) -> objects_pb2.ObjectRow:
        """By id, also one that it had before it was sealed anew, by name (the newest of that name), or by the first
        characters of an id. What is sealed anew and not in its place yet is the object that it replaces, and stands for
        that where its row is damaged and it is only `to_read`. Raises NotFound, and InvalidRequest when several fit."""
        row_of = self._readable if to_read else self._row
        if not 0 < len(text) <= NAME_CHARS_MAX:
            raise InvalidRequest.field("object", "an id, its first characters, or a name is needed")
        found = row_of(text) if OBJECT_ID.match(text) else None
        found = found or self._named(text, row_of)
        if found is None and text.startswith("o-") and len(text) >= PREFIX_CHARS_MIN:
            found = self._beginning(text)
        if found is None and self._shelf.find(DELETED, objects_pb2.Deletion, text) is not None:
            found = row_of(self._shelf.place_of(text))
            if found is None:
                raise was_deleted(text)
        if found is not None and found.replaces:
            found = row_of(found.replaces)
        if found is None and OBJECT_ID.match(text) and (missing := self._store.get(REGAINED, missing_key(text))):
            raise _missing(objects_pb2.RegainedObject.FromString(missing))
        if found is None:
            raise NotFound(f"there is no object {text!r}", reason="ObjectNotFound", metadata={"object": text})
        return found

    def _row(self, object_id: str) -> objects_pb2.ObjectRow | None:
        return self._shelf.find(OBJECTS, objects_pb2.ObjectRow, object_id)

    def _readable(self, object_id: str) -> objects_pb2.ObjectRow | None:
        """Raises Corrupt for one that is damaged, and was not sealed anew."""
        try:
            return self._row(object_id)
        except Corrupt:
            if (new := self._store.get(RESEALED, object_id.encode())) is None:
                raise
            return self._row(new.decode())

    def _named(self, name: str, row_of: RowOf) -> objects_pb2.ObjectRow | None:
        for _, object_id in self._store.scan(OBJECT_NAMES, prefix=name_prefix(name)):
            row = row_of(object_id.decode())
            if row is not None and row.object.name == name:
                return row
        return None

    def _beginning(self, text: str) -> objects_pb2.ObjectRow | None:
        rows = [
            objects_pb2.ObjectRow.FromString(value)
            for (_, value), _ in zip(self._store.scan(OBJECTS, prefix=text.encode()), range(2), strict=False)
        ]
        if len(rows) > 1:
            raise InvalidRequest.field("object", f"{text!r} fits several objects; give more of the id")
        return rows[0] if rows else None


def _missing(row: objects_pb2.RegainedObject) -> NotFound:
    text = (
        f"this node has forgotten {row.object_id} with its disk, and cannot take it back from hosts yet: {row.trouble}"
    )
    return NotFound(text, reason="ObjectMissing", metadata={"object": row.object_id})
