"""What becomes of an object on its way to its hosts, told as it changes: to WatchObject, and to a put that waits.

Nobody polls: whoever waits is told by the commit that writes the object's row, or its outbox entry's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Corrupt, Fault
from offgrid_node.protocol.objects.deletion import was_deleted
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.risks import Risk
from offgrid_node.protocol.objects.tables import OBJECTS, OUTBOX, outbox_key
from offgrid_node.protocol.timers import Timers
from offgrid_node.runtime import Runtime
from offgrid_node.services.flow import Later, Step
from offgrid_node.services.stream import Stream

ACCEPTED = objects_pb2.OBJECT_STATE_ACCEPTED
WITH_TROUBLE = frozenset({ACCEPTED, objects_pb2.OBJECT_STATE_DAMAGED})  # their entries are open
RISKS: Mapping[Risk, objects_pb2.ObjectRisk.ValueType] = {
    Risk.NONE: objects_pb2.OBJECT_RISK_UNSPECIFIED,
    Risk.DEGRADED: objects_pb2.OBJECT_RISK_DEGRADED,
    Risk.AT_RISK: objects_pb2.OBJECT_RISK_AT_RISK,
    Risk.GONE: objects_pb2.OBJECT_RISK_GONE,
}
SENT_EVERY_MS = 500  # at most, to one who watches
WAIT_MS_MAX = 60_000  # of one call; who waits longer watches


class Watching:
    """The handler of WatchObject, and the wait within PutObject."""

    def __init__(self, runtime: Runtime, later: Later, sending: Callable[[str], tuple[int, int]]) -> None:
        """`sending` says how many bytes hosts have of an object that is sent to them now, and of how many."""
        self._runtime, self._later, self._sending = runtime, later, sending
        self._watchers: dict[str, dict[int, Callable[[], None]]] = {}  # by object and number
        self._waits: Timers[int] = Timers()
        self._ends: dict[int, Callable[[], None]] = {}
        self._armed_ms: int | None = None  # when the one timer fires: a wait that ends before leaves nothing behind
        self._numbers = itertools.count()

    def risk(self, row: objects_pb2.ObjectRow) -> Risk:
        return self._runtime.machine("objects", ObjectsMachine).risk(row, self._runtime.clock.now())

    def told(self, row: objects_pb2.ObjectRow) -> objects_pb2.Object:
        """The object with what its row has beside it, who of its hosts is away, what that means for it, and its outbox
        entry's trouble, while it has that on its way."""
        made, hosts = row.object, self._runtime.machine("objects", ObjectsMachine).hosts
        made.risk = RISKS[self.risk(row)]
        made.copies, made.request_id = 0 if made.shards_total else row.copies_wanted, row.request_id
        for ack in made.acks:
            ack.away = not hosts.is_alive(ack.node_id)
        if made.state in WITH_TROUBLE:
            made.trouble = self._trouble(row.outbox_id)
        return made

    def _trouble(self, number: int) -> str:
        try:
            value = self._runtime.store.get(OUTBOX, outbox_key(number))
        except Corrupt as fault:
            return fault.message
        return objects_pb2.OutboxEntry.FromString(value or b"").trouble

    def watch(self, row: objects_pb2.ObjectRow) -> Stream:
        """Of an object of this node's own, from its row as it is now."""
        stream, shown, sent_ms = Stream(), objects_pb2.Object(), self._now_ms()
        object_id, number = row.object.object_id, next(self._numbers)

        def push(seen: objects_pb2.Object | Fault) -> None:
            nonlocal shown
            if isinstance(seen, Fault):
                stream.end(seen)
            elif seen != shown:
                shown = seen
                tell()
                if seen.state != ACCEPTED:
                    stream.end()

        def tell() -> None:
            nonlocal sent_ms
            sent_ms = self._now_ms()
            have, of = self._sending(object_id)
            stream.push(objects_pb2.WatchObjectResponse(object=shown, sent_bytes=have, sending_bytes=of))

        def sent() -> None:
            if self._now_ms() - sent_ms >= SENT_EVERY_MS and not stream.waiting:  # a slow reader hears of the next
                tell()

        def closed() -> None:
            stop()
            watchers = self._watchers[object_id]
            del watchers[number]
            if not watchers:
                del self._watchers[object_id]

        stop = self._on_change(row, push)
        self._watchers.setdefault(object_id, {})[number] = sent
        stream.when_closed(closed)
        push(self._now(row.object.object_id))
        return stream

    def on_sent(self, object_id: str) -> None:
        """More of it has come to a host."""
        for sent in list(self._watchers.get(object_id, {}).values()):
            sent()

    def settled(self, row: objects_pb2.ObjectRow, within_ms: int) -> Step[objects_pb2.Object]:
        """The object once it is durable or given up, or as it is after `within_ms`. Raises NotFound (ObjectDeleted)."""

        def start(done: Callable[[objects_pb2.Object | Fault], None]) -> None:
            number, object_id = next(self._numbers), row.object.object_id

            def end(seen: objects_pb2.Object | Fault) -> None:
                if self._ends.pop(number, None) is not None:
                    self._waits.cancel(number)
                    stop()
                    done(seen)

            def look() -> None:
                found = self._find(object_id)
                if isinstance(found, Fault) or found.object.state != ACCEPTED:
                    end(self._now(object_id))

            self._ends[number] = lambda: end(self._now(object_id))
            stop = self._runtime.watch_row(OBJECTS, object_id.encode(), look)
            self._waits.set(number, self._now_ms() + within_ms)
            self._arm()
            look()

        return start

    def _arm(self) -> None:
        due_ms = self._waits.next_ms()
        if due_ms is not None and (self._armed_ms is None or due_ms < self._armed_ms):
            self._armed_ms = due_ms
            self._later(max(0, due_ms - self._now_ms()), lambda: self._on_time(due_ms))

    def _on_time(self, due_ms: int) -> None:
        if self._armed_ms == due_ms:
            self._armed_ms = None
        for number in self._waits.take_due(max(due_ms, self._now_ms())):
            self._ends[number]()
        self._arm()

    def _now_ms(self) -> int:
        return self._runtime.clock.now().mono_ms

    def _on_change(
        self, row: objects_pb2.ObjectRow, changed: Callable[[objects_pb2.Object | Fault], None]
    ) -> Callable[[], None]:
        object_id = row.object.object_id

        def look() -> None:
            changed(self._now(object_id))

        rows = ((OBJECTS, object_id.encode()), (OUTBOX, outbox_key(row.outbox_id)))
        removes = [self._runtime.watch_row(table, key, look) for table, key in rows]

        def stop() -> None:
            for remove in removes:
                remove()

        return stop

    def _now(self, object_id: str) -> objects_pb2.Object | Fault:
        found = self._find(object_id)
        try:
            return found if isinstance(found, Fault) else self.told(found)
        except Fault as fault:
            return fault

    def _find(self, object_id: str) -> objects_pb2.ObjectRow | Fault:
        try:
            value = self._runtime.store.get(OBJECTS, object_id.encode())
        except Fault as fault:
            return fault
        return objects_pb2.ObjectRow.FromString(value) if value else was_deleted(object_id)
