"""Rules of what owners delete: it is gone for good, here at once and in the end at every host, and nothing comes back.

- in its time: nothing is deleted that nobody has asked to be, or that expires later, by its owner's own clock;
- for good: once a user was told, the owner's rows of it are gone and its mark is there, after any crash;
- never again: a host that has dropped a replica has no row of it any more, whatever comes late;
- everywhere: in the end no row of it is left at any member, its readers among them, and no blob either. Two are let
  off: whose disk loses what it keeps, and who was told that a commit had failed, which may have been applied: the next
  start sweeps what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.small import SMALL
from offgrid_node.protocol.objects.tables import DELETED, DROPPED, OBJECTS, REPLICAS, SHARED
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Rules, Written


class DeletionRules(Rules):
    """Of owners' marks and hosts' fences."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._asked: dict[str, set[str]] = {}  # owner → objects whose deletion a user has asked for
        self._told: dict[str, set[str]] = {}  # and was told of
        self._expires_us: dict[tuple[str, str], int] = {}  # by owner and object, of those that expire
        self._replaced: dict[tuple[str, str], str] = {}  # by owner and object, what has taken its place
        self._to_sweep: set[str] = set()

    def rows(self) -> Mapping[str, Written]:
        return {REPLICAS: self._on_replica}

    def on_start(self, node: str) -> None:
        self._to_sweep.discard(node)

    def on_reload(self, node: str) -> None:
        """A commit has failed there, or was said to."""
        self._to_sweep.add(node)

    def on_comeback(self, node: str) -> None:
        marked = self._evidence.stores[node]
        told = self._told.get(node, set())
        self._told[node] = {object_id for object_id in told if marked.peek(DELETED, object_id.encode()) is not None}

    def is_told(self, owner: str, object_id: str) -> bool:
        """Whether it must not come back."""
        return object_id in self._told.get(owner, ())

    def on_asked(self, owner: str, object_id: str) -> None:
        """A user is about to ask: from now on it may be gone, and what has taken its place or will."""
        self._asked.setdefault(owner, set()).update(self._places(owner, object_id))

    def on_told(self, owner: str, object_id: str) -> None:
        """A user was told that it is deleted."""
        for place in self._places(owner, object_id):
            self._told.setdefault(owner, set()).add(place)
            self._check_told(owner, place)

    def on_replaced(self, owner: str, old_id: str, new_id: str) -> None:
        """It was sealed anew: the old one is gone like any that is deleted."""
        self._replaced[owner, old_id] = new_id
        if old_id in self._asked.get(owner, ()):
            self.on_asked(owner, new_id)
        self._asked.setdefault(owner, set()).add(old_id)
        self._told.setdefault(owner, set()).add(old_id)

    def _places(self, owner: str, object_id: str) -> list[str]:
        """Its id, and those that it has had since."""
        places = [object_id]
        while (following := self._replaced.get((owner, places[-1]))) is not None:
            places.append(following)
        return places

    def on_made(self, owner: str, made: objects_pb2.Object) -> None:
        """Its owner's row says what it is."""
        if made.expires_us:
            self._expires_us[owner, made.object_id] = made.expires_us

    def may_be_gone(self, owner: str, object_id: str) -> bool:
        """For good, by its owner's will: a user has asked for that, or its time has come by the owner's clock."""
        return object_id in self._asked.get(owner, ()) or self.has_expired(owner, object_id)

    def has_expired(self, owner: str, object_id: str) -> bool:
        expires_us = self._expires_us.get((owner, object_id))
        return expires_us is not None and expires_us <= self._evidence.latest_us[owner]()

    def _on_replica(self, host: str, key: bytes, value: bytes | None) -> None:
        if value is not None and self._evidence.row(host, DROPPED, key) is not None:
            raise Violation(f"{self._evidence.name_of(host)} keeps {key.decode()} again, after it was deleted")

    def check_store(self, node: str) -> None:
        for object_id in self._told.get(node, ()):
            self._check_told(node, object_id)

    def _check_told(self, owner: str, object_id: str) -> None:
        if self._evidence.row(owner, OBJECTS, object_id.encode()) is not None:
            raise Violation(f"{object_id} was deleted, and its owner has it again")
        if self._evidence.row(owner, DELETED, object_id.encode()) is None:
            raise Violation(f"{object_id} was deleted, and its owner's disk does not say so")

    # ---- the end

    def left(self, members: Iterable[str]) -> str:
        """What of deleted objects is still somewhere, or somebody has still to hear of; empty when nothing."""
        there = [node for node in members if node not in self._evidence.rotten]
        for owner, told in self._told.items():
            for object_id in told:
                mark = objects_pb2.Deletion.FromString(self._evidence.row(owner, DELETED, object_id.encode()) or b"")
                for node in there:
                    if (node, object_id) in self._evidence.late and node not in mark.untold:
                        continue  # it will be asked what it keeps
                    if node in mark.untold or self._keeps(node, object_id):
                        return f"{self._evidence.name_of(node)} has not dropped {object_id}"
        return ""

    def _keeps(self, node: str, object_id: str) -> bool:
        names = () if node in self._to_sweep else self._evidence.blobs[node].names()
        store = self._evidence.stores[node]
        return any(name.partition(".")[0] == object_id for name in names) or any(
            True
            for table, prefix in ((REPLICAS, f"{object_id}/"), (SHARED, f"{object_id}/"), (SMALL, object_id))
            for _ in store.scan(table, prefix=prefix.encode())
        )
