"""Rules of nodes that go on with another disk: one that was lost, put together from what hosts keep of its journal, or
an old copy of it.

- safe: the journal comes back at least to where its node said that it was safe, event by event as it was;
- whole: what these events say was made durable, shared or deleted is so in the rows;
- never twice: no life begins twice, and no number of before is given again (that is for all the other rules to find:
  whoever comes back is as honest to them as it was);
- all of it: in the end it knows of all that hosts keep for it, what it put after its last segment among it;
- one at last: in the end nobody goes on in a life that is over, nor beside a segment of it that it knows nothing of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import common_pb2, objects_pb2, state_pb2
from offgrid_node.protocol.objects.lives import Life
from offgrid_node.protocol.objects.sharing import readers_of
from offgrid_node.protocol.objects.tables import (
    DELETED,
    LIVES,
    META,
    OBJECTS,
    REGAINED,
    REPLICAS,
    SEGMENTS_KEPT,
    age_prefix,
    missing_key,
    number_of,
    object_of_segment,
)
from offgrid_node.protocol.quorum.tables import LIFE
from offgrid_node.protocol.state.tables import JOURNAL, NUMBER_BYTES, PAST, STATE_KEY, number_key
from offgrid_node.storage.memory import MemoryStore
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Passed, Rules, Written


class Told(msgspec.Struct):
    """What a journal says of an object."""

    durable: bool = False
    deleted: bool = False
    readers: set[str] = msgspec.field(default_factory=set)


def hear(told: dict[str, Told], event: objects_pb2.ObjectEvent) -> None:
    """By object; what is sealed anew has the readers of what it replaces."""
    what = told.setdefault(event.object_id, Told())
    match event.outcome:
        case "durable":
            what.durable = True
        case "deleted":
            what.deleted = True
        case "shared":
            what.readers.add(event.reader)
        case "unshared":
            what.readers.discard(event.reader)
        case "sealed anew":
            what.readers = {*told.get(event.former, Told()).readers}


class ComebackRules(Rules):
    """Of journals, of what they say, and of lives."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        # By owner that has not been shown yet that its disk is an old one; late for that alone.
        self._unaware: dict[str, set[tuple[str, str]]] = {}

    def on_comeback(self, node: str) -> None:
        if not self._is_restored(node):
            self._unaware[node] = set()

    def on_start(self, node: str) -> None:
        """Once it knows, it asks at once for what came until then."""
        if self._is_restored(node):
            self._evidence.late -= self._unaware.pop(node, set())

    def rows(self) -> Mapping[str, Written]:
        return {REPLICAS: self._on_replica}

    def _on_replica(self, host: str, key: bytes, value: bytes | None) -> None:
        """What was under way when its owner forgot it, and comes later than that has asked for what is kept, is found
        when it asks again, an hour later. So is what it brought before its disk was an old one, if nobody shows it."""
        object_id, _, owner = key.decode().partition("/")
        if value is None:
            self._evidence.late.discard((host, object_id))
        elif (self._is_restored(owner) or owner in self._unaware) and host not in self._asked(owner, object_id):
            self._evidence.late.add((host, object_id))
            if owner in self._unaware:
                self._unaware[owner].add((host, object_id))

    def _asked(self, owner: str, object_id: str) -> Collection[str]:
        """Whom the owner knows to have asked to keep it."""
        value = self._evidence.row(owner, OBJECTS, object_id.encode())
        return objects_pb2.ObjectRow.FromString(value or b"").asked

    def _is_restored(self, owner: str) -> bool:
        """Whether it has begun another life."""
        return self._evidence.row(owner, META, LIFE) is not None

    def _knows(self, owner: str, object_id: str) -> bool:
        """That it has it, had it, or misses it."""
        key, row = object_id.encode(), self._evidence.row
        rows = row(owner, OBJECTS, key), row(owner, DELETED, key), row(owner, REGAINED, missing_key(object_id))
        return any(held is not None for held in rows)

    def requests(self) -> Mapping[type[Message], Passed]:
        return {objects_pb2.BeginLifeRequest: self._on_life}

    def _on_life(self, source: str, target: str, request: objects_pb2.BeginLifeRequest) -> None:
        life = Life.decode(request.life.body)
        self._evidence.sign("life", source, "itself", life.life, life.token)  # its journal goes on in it

    def check(self, node: str, store: MemoryStore, safe_seq: int) -> None:
        """The node begins anew with this store instead of the one that it had. `safe_seq`: to which event it was to
        come back, at least."""
        name, told = self._evidence.name_of(node), dict[str, Told]()
        if store.journal_seq < safe_seq:
            raise Violation(f"{name} comes back to event {store.journal_seq}, and had said that {safe_seq} were safe")
        before = self._evidence.stores[node].copy()
        for (seq, data), (_, former) in zip(store.events(), before.events(), strict=False):
            if data != former:
                raise Violation(f"event {seq} of {name} is another than it was before its disk was lost")
            event = state_pb2.Event.FromString(data)
            if event.WhichOneof("data") == "object" and event.object.owner == node and event.object.object_id:
                hear(told, event.object)
        for object_id, what in told.items():
            if lacking := self._lacking(store, object_id.encode(), what):
                raise Violation(
                    f"{object_id} {lacking}, says the journal with which {name} comes back; its rows do not"
                )

    def _lacking(self, store: MemoryStore, key: bytes, told: Told) -> str:
        value = store.get(OBJECTS, key)
        if told.deleted:
            return "" if value is None and store.get(DELETED, key) is not None else "was deleted"
        if value is None:
            return "was accepted"
        made = objects_pb2.ObjectRow.FromString(value).object
        if told.durable and made.state != objects_pb2.OBJECT_STATE_DURABLE:
            return "was durable"
        return "" if {*readers_of(made)} == told.readers else "was shared otherwise"

    # ---- the end

    def forgotten(self, node: str, hosts: Iterable[str]) -> str:
        """What one of the hosts keeps for it, of which it knows nothing, though it has begun another life; empty when
        nothing."""
        for host in hosts if self._is_restored(node) else ():
            for key, _ in self._evidence.stores[host].scan(REPLICAS):
                object_id, _, owner = key.decode().partition("/")
                late = (host, object_id) in self._evidence.late
                if owner == node and not late and not self._knows(node, object_id):
                    name, whose = self._evidence.name_of(host), self._evidence.name_of(node)
                    return f"{name} keeps {object_id}, and {whose} knows nothing of it"
        return ""

    def outdated(self, node: str, members: Iterable[str]) -> str:
        """That it goes on though members know of more; empty when it does not."""
        value = self._evidence.row(node, JOURNAL, STATE_KEY)
        life = state_pb2.JournalRow.FromString(value or b"").life
        shown = (known for member in members for known in self._known(node, member)) if value else ()
        for known, number, object_id in shown:
            if known > life or (known == life and not self._is_own(node, number, object_id)):
                name, what = self._evidence.name_of(node), f"segment {number}, {object_id}," if object_id else "nothing"
                return f"{name} goes on in life {life}, and is shown {what} of its life {known}"
        return ""

    def _is_own(self, node: str, number: int, object_id: str) -> bool:
        """Whether it knows of the segment, or of its end."""
        key, row = object_id.encode(), self._evidence.row
        rows = (row(node, table, key) for table in (OBJECTS, DELETED))
        return not key or any(held is not None for held in rows) or key == row(node, PAST, number_key(number))

    def _known(self, node: str, member: str) -> Iterator[tuple[int, int, str]]:
        """The node's life, and the segments of its journal with theirs and their numbers."""
        noted = self._evidence.row(member, LIVES, node.encode())
        if noted is not None:
            yield Life.decode(common_pb2.Signed.FromString(noted).body).life, 0, ""
        prefix = age_prefix(node)
        for key, _ in self._evidence.stores[member].copy().scan(SEGMENTS_KEPT, prefix=prefix):
            life, number = key[len(prefix) :][:NUMBER_BYTES], key[len(prefix) + NUMBER_BYTES :][:NUMBER_BYTES]
            yield number_of(life), number_of(number), object_of_segment(key, node)
