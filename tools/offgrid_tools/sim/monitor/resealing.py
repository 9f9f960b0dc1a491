"""Rules of what is sealed anew: another object in the old one's place, and nothing lost by that.

- whole: what takes an object's place is durable by then, has its name, size, weight, expiry and readers, and leads back
  to all its ids; or it is back from hosts, whole with its owner, who had forgotten it with a disk and finds too little
  of the old one: who reads it has to be let again;
- for good: the old ids lead to the new object, after any crash;
- another key: it opens with none that the object ever had;
- all of it: when the owner is told that it is done, nothing is left that was sealed before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import PermissionDenied
from offgrid_node.protocol.objects.deletion import place_of
from offgrid_node.protocol.objects.reseal_rows import FORMERLY_MAX, is_due
from offgrid_node.protocol.objects.sharing import readers_of
from offgrid_node.protocol.objects.tables import DELETED, OBJECTS, REGAINED, back_key
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Rules, Written

DURABLE = objects_pb2.OBJECT_STATE_DURABLE
Replaced = Callable[[str, str, str, bool], None]
"""Of this owner the first object's place was taken by the second one; whether that has come back from hosts."""


class Wraps(Protocol):
    """A node's, which opens what is wrapped for any of its keys."""

    def unwrap(self, wrapped: bytes, use: bytes) -> bytes: ...


class ResealRules(Rules):
    """Of owners' rows and marks."""

    def __init__(self, evidence: Evidence, on_replaced: Replaced) -> None:
        self._evidence, self._on_replaced = evidence, on_replaced
        self.wraps: dict[str, Callable[[], Wraps]] = {}
        self._rows: dict[tuple[str, str], objects_pb2.ObjectRow] = {}  # by owner and object, as they were last
        self._keys: dict[tuple[str, str], set[bytes]] = {}  # likewise, all that it ever had

    def rows(self) -> Mapping[str, Written]:
        return {DELETED: self._on_mark, OBJECTS: self._on_object}

    def place_of(self, owner: str, object_id: str) -> str:
        """The id that the object has by now, by its owner's disk."""
        return place_of(_Disk(self._evidence, owner), object_id) if object_id else ""

    def _on_object(self, owner: str, key: bytes, value: bytes | None) -> None:
        if value is not None:
            self._rows[owner, key.decode()] = objects_pb2.ObjectRow.FromString(value)

    def _on_mark(self, owner: str, key: bytes, value: bytes | None) -> None:
        mark, old_id = objects_pb2.Deletion.FromString(value or b""), key.decode()
        old = self._rows.pop((owner, old_id), None)
        if old is None or not mark.moved_to:
            return
        new = self._row(owner, mark.moved_to)
        if new is None:
            raise Violation(f"{old_id} leads to {mark.moved_to}, which its owner has not")
        regained = self._evidence.row(owner, REGAINED, back_key(mark.moved_to)) is not None and new.object.local
        if not regained and (lacking := _lacking(old, new)):
            raise Violation(f"{mark.moved_to} takes the place of {old_id}, and {lacking}")
        self._check_key(owner, old, new)
        self._on_replaced(owner, old_id, mark.moved_to, regained)

    def _check_key(self, owner: str, old: objects_pb2.ObjectRow, new: objects_pb2.ObjectRow) -> None:
        old_id, new_id = old.object.object_id, new.object.object_id
        known = self._keys.pop((owner, old_id), set()) | {self._key(owner, old)}
        key = self._key(owner, new)
        if key in known:
            raise Violation(f"{new_id} opens with a key that {old_id} had")
        self._keys[owner, new_id] = known | {key}

    def _key(self, owner: str, row: objects_pb2.ObjectRow) -> bytes:
        made = row.object
        own = next((wrap.sealed_key for wrap in made.manifest.wraps if wrap.node_id == owner), b"")
        try:
            return self.wraps[owner]().unwrap(own, made.object_id.encode())
        except PermissionDenied:
            raise Violation(f"no key of its owner opens {made.object_id}") from None

    def _row(self, owner: str, object_id: str) -> objects_pb2.ObjectRow | None:
        value = self._evidence.row(owner, OBJECTS, object_id.encode())
        return objects_pb2.ObjectRow.FromString(value) if value is not None else None

    def on_comeback(self, node: str) -> None:
        self._rows = {place: row for place, row in self._rows.items() if place[0] != node}
        for key, value in self._evidence.stores[node].scan(OBJECTS):
            self._on_object(node, key, value)

    # ---- what a user was told

    def on_done(self, owner: str, told: objects_pb2.Reencryption) -> None:
        """All that was sealed before then is sealed anew, or was left out."""
        due = [
            key.decode()
            for key, value in self._evidence.stores[owner].scan(OBJECTS)
            if is_due(objects_pb2.ObjectRow.FromString(value), told.before_us)
        ]
        if len(due) > told.left_out:
            raise Violation(f"{due[0]} was not sealed anew, and its owner is told that all is")


class _Disk:
    """What is durable at a node."""

    def __init__(self, evidence: Evidence, node: str) -> None:
        self._evidence, self._node = evidence, node

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._evidence.row(self._node, table, key)


def _lacking(old: objects_pb2.ObjectRow, new: objects_pb2.ObjectRow) -> str:
    """What of the old one is not so of what takes its place; empty when nothing."""
    was, made = old.object, new.object
    if made.state != DURABLE:
        return "is not durable"
    if new.replaces:
        return "is only to replace it, says its row"
    same = (
        ("name", was.name, made.name),
        ("size", was.size_bytes, made.size_bytes),
        ("weight", was.required_milli, made.required_milli),
        ("expiry", was.expires_us, made.expires_us),
        ("readers", sorted(readers_of(was)), sorted(readers_of(made))),
        ("former ids", [*was.formerly, was.object_id][-FORMERLY_MAX:], [*made.formerly]),
    )
    other = [what for what, before, now in same if before != now]
    return f"has another {', '.join(other)}" if other else ""
