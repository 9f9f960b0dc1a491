"""Rules of readers: whoever was let read an object stays let, whatever becomes of keys.

- kept: the owner's row has a wrap for each of them, always;
- ended: once a user was told that one reads it no more, no row of the object, nor of what it is sealed anew as, has a
  wrap for him, and in the end he knows of neither;
- renewed: in the end every wrap is for the key that its reader has now, at the owner and at the reader.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.mesh.wrapping import LABEL_BYTES
from offgrid_node.protocol.objects.tables import OBJECTS, SHARED, replica_key
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Rules, Written


class AccessRules(Rules):
    """Of owners' wraps and readers' rows."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._readers: dict[tuple[str, bytes], set[str]] = {}  # by owner and object
        self._former: dict[tuple[str, bytes], set[str]] = {}  # likewise, who is none any more
        self._back: set[str] = set()  # owners that go on with another disk

    def rows(self) -> Mapping[str, Written]:
        return {OBJECTS: self._on_object}

    def on_shared(self, owner: str, object_id: str, reader: str) -> None:
        """A user was told that the reader may read it."""
        key = object_id.encode()
        self._readers.setdefault((owner, key), {owner}).add(reader)
        self._on_object(owner, key, self._evidence.row(owner, OBJECTS, key))

    def on_sharing(self, owner: str, object_id: str, reader: str) -> None:
        """A user is about to ask that: from now on he may be let read it."""
        self._former.get((owner, object_id.encode()), set()).discard(reader)

    def on_unsharing(self, owner: str, object_id: str, reader: str) -> None:
        """A user is about to ask for the end of that: from now on he need not be let read it."""
        self._readers.get((owner, object_id.encode()), set()).discard(reader)

    def on_unshared(self, owner: str, object_id: str, reader: str) -> None:
        """A user was told that he is a reader no more."""
        key = object_id.encode()
        self._former.setdefault((owner, key), set()).add(reader)
        self._on_object(owner, key, self._evidence.row(owner, OBJECTS, key))

    def on_replaced(self, owner: str, old_id: str, new_id: str, *, forgotten: bool) -> None:
        """It was sealed anew, for those who read it then, unless its owner has forgotten that."""
        for known in (self._readers, self._former):
            known[owner, new_id.encode()] = known.pop((owner, old_id.encode()), set())
        if forgotten:
            self._readers[owner, new_id.encode()] = {owner}

    def _on_object(self, owner: str, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        wrapped = {wrap.node_id for wrap in objects_pb2.ObjectRow.FromString(value).object.manifest.wraps}
        if lacking := self._readers.get((owner, key), set()) - wrapped:
            raise Violation(f"{self._names(lacking)} may read {key.decode()}, and has no wrap of its key any more")
        if left := self._former.get((owner, key), set()) & wrapped:
            raise Violation(f"{self._names(left)} may read {key.decode()} no more, and has a wrap of its key")

    def _names(self, nodes: set[str]) -> str:
        return ", ".join(sorted(map(self._evidence.name_of, nodes)))

    def on_comeback(self, node: str) -> None:
        """What it shared since, nobody wraps anew any more."""
        self._back.add(node)
        for owner, key in [place for place in self._readers if place[0] == node]:
            row = self._evidence.row(owner, OBJECTS, key)
            wraps = objects_pb2.ObjectRow.FromString(row or b"").object.manifest.wraps
            self._readers[owner, key] &= {wrap.node_id for wrap in wraps}
        for owner, key in [place for place in self._former if place[0] == node]:
            del self._former[owner, key]

    # ---- the end

    def told(self, members: Container[str]) -> str:
        """What a reader who is none any more still has a row of; empty when nothing."""
        for (owner, key), former in self._former.items():
            for reader in former:
                row = self._evidence.row(reader, SHARED, replica_key(key.decode(), owner))
                if owner in members and reader in members and row is not None:
                    return f"{self._evidence.name_of(reader)} has not heard that it may read {key.decode()} no more"
        return ""

    def outdated(self, labels: Mapping[str, bytes]) -> str:
        """A wrap for another key than the present one of a node; empty without any. `labels` are those of the present
        keys of all who live."""
        for node in labels:
            for key, wrap in self._wraps(node, labels):
                if labels.get(wrap.node_id, wrap.sealed_key[:LABEL_BYTES]) != wrap.sealed_key[:LABEL_BYTES]:
                    at, whose = self._evidence.name_of(node), self._evidence.name_of(wrap.node_id)
                    return f"{at} has {key.decode()} wrapped for a former key of {whose}"
        return ""

    def _wraps(self, node: str, living: Mapping[str, bytes]) -> Iterator[tuple[bytes, objects_pb2.KeyWrap]]:
        store = self._evidence.stores[node]
        for key, value in store.scan(OBJECTS):
            for wrap in objects_pb2.ObjectRow.FromString(value).object.manifest.wraps:
                yield key, wrap
        for key, value in store.scan(SHARED):
            object_id, _, owner = key.decode().partition("/")
            if owner in living and not self._forgotten(owner, object_id, node):
                for wrap in objects_pb2.SharedRow.FromString(value).shared.manifest.wraps:
                    yield key, wrap

    def _forgotten(self, owner: str, object_id: str, reader: str) -> bool:
        """Shared after the last segment that came back, whether or not the object itself was taken back from hosts."""
        row = self._evidence.row(owner, OBJECTS, object_id.encode())
        wraps = objects_pb2.ObjectRow.FromString(row or b"").object.manifest.wraps
        return owner in self._back and reader not in {wrap.node_id for wrap in wraps}
