"""When an owner audits its objects, and what follows from what it finds (`audit.py` has the sums).

Every durable object has its turn within so many days, and soon where a host vouched for bytes that this node could not
check. A walk over the rows, a page at a time, finds what is due by the rows alone; so only what is wanted soon is noted
beside them, and a restart changes nothing. A few objects are asked for together, which shares what a call costs, and
none while too few of its hosts are alive to tell anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.objects.commands import Audited, Findings
from offgrid_node.protocol.objects.errands import Audit
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.outbox import DURABLE, Outbox
from offgrid_node.protocol.objects.sizes import stored_bytes
from offgrid_node.protocol.objects.tables import OBJECTS, UNPROVED
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.sound import sound
from offgrid_node.protocol.timers import Timers

TOGETHER_MAX = 32  # objects asked for at once
TOGETHER_BYTES_MAX = 64 << 20  # that one host reads for them, beyond the first
PACE_BYTES_PER_S = 10_000_000  # that one host reads for this node, as long as it goes on
PAUSE_MS = 1_000  # between two audits, at least
PROOF_BYTES = 200  # that one object's question and proof take
PAGE_ROWS, PAGE_MS = 64, 10_000  # of the walk
WALK_AGAIN_MS = 21_600_000  # also how soon an object is asked for again of which too few hosts answered
FIRST_MS = 60_000  # after a start: hosts are heard of by then
SOON_MS = 5_000  # what is done to an object together is audited once
SOON_RETRY_MAX_MS = 86_400_000  # doubling: hosts may be away for long
SOON_MAX = 1_000  # in memory; others the walk finds
DAY_US = 86_400_000_000

Lose = Callable[[str, Holding, Now], None]
"""A host has no more what it acked."""


class Audits:
    """One Audit under way at a time. `days` 0: only what is wanted soon."""

    def __init__(self, draft: Draft, outbox: Outbox, hosts: Hosts, lose: Lose, days: int) -> None:
        self._draft, self._outbox, self._hosts, self._lose, self._days = draft, outbox, hosts, lose, days
        self._soon: Timers[str] = Timers()
        self._delays: dict[str, int] = {}  # of those that are in `_soon` or under way: how long they wait next
        self._losers: dict[str, set[str]] = {}  # of some of what is wanted soon: who had lost something of it
        self._due: dict[str, None] = {}  # found by the walk
        self._walk, self._walk_ms = b"", 0
        self._under_way: tuple[str, ...] = ()
        self._next_ms = 0

    def load(self, rows: Rows, now: Now) -> None:
        self._walk_ms = now.mono_ms + FIRST_MS
        for key, _ in rows.scan(UNPROVED):
            if len(self._delays) == SOON_MAX:
                break
            self._wait(key.decode(), now.mono_ms + FIRST_MS)

    def deadline_ms(self, now_ms: int) -> int | None:
        """`now_ms` is the last step's instant."""
        if self._under_way:
            return None
        soon_ms = self._soon.next_ms()
        waiting = [*([now_ms] if self._due else []), *([soon_ms] if soon_ms is not None else [])]
        return min([*(max(due_ms, self._next_ms) for due_ms in waiting), self._walk_ms])

    def wants(self, object_id: str) -> bool:
        """Whether it is wanted soon, and nothing is proved yet."""
        return self._draft.get(UNPROVED, object_id.encode()) is not None

    # ---- inputs

    def on_soon(self, object_id: str, now: Now) -> None:
        """Of what somebody has lost and lost again the delay goes on doubling: each time costs others the bytes."""
        self._draft.put_bytes(UNPROVED, object_id.encode(), b"")
        if object_id in self._losers and object_id in self._delays:
            self._soon.set(object_id, now.mono_ms + self._delays[object_id])
            return
        self._delays.pop(object_id, None)
        if len(self._delays) < SOON_MAX:
            self._wait(object_id, now.mono_ms + SOON_MS)
        else:
            self._losers.pop(object_id, None)

    def on_audited(self, event: Audited, now: Now) -> None:
        for findings in event.findings:
            self.on_findings(findings, now)
        self._under_way = ()

    def on_findings(self, findings: Findings, now: Now) -> None:
        """Of another epoch than the present one nothing is known any more."""
        object_id, row = findings.object_id, self._outbox.find_sound(findings.object_id)
        if row is None or not row.HasField("epoch") or Epoch.decode(row.epoch.body).epoch != findings.epoch:
            return
        self._outbox.verified(row, dict(findings.whole), now)
        for node_id, shards in findings.lost:
            self._lose(node_id, Holding(object_id, shards), now)
        if findings.lost:
            self._on_lost(object_id, {node_id for node_id, _ in findings.lost}, now)
        elif row.object.verified_us and not self._still_lacks(row):
            self._proved(object_id)

    def close_step(self, now: Now) -> None:
        if self._walk_ms <= now.mono_ms:
            self._turn_page(now)
        if self._under_way or self._next_ms > now.mono_ms:
            return
        together, read_bytes = list[str](), 0
        for object_id, row in self._candidates(now):
            together.append(object_id)
            read_bytes += part_bytes(row)
            if len(together) == TOGETHER_MAX or read_bytes >= TOGETHER_BYTES_MAX:
                break
        if together:
            self._under_way = tuple(together)
            pause_ms = max(PAUSE_MS, read_bytes * 1_000 // PACE_BYTES_PER_S, self._apart_ms(together))
            self._next_ms = now.mono_ms + pause_ms
            self._draft.send(Audit(self._under_way))

    # ---- which

    def _candidates(self, now: Now) -> Iterator[tuple[str, objects_pb2.ObjectRow]]:
        """What is due and can be told, as it is asked for; what cannot waits for its next turn."""
        while found := self._soon.take_due(now.mono_ms, 1):
            row = self._outbox.find_sound(found[0])
            if row is None:
                self._proved(found[0])
                continue
            self._wait_longer(found[0], now)  # until it is proved
            if self._tells(row):
                yield found[0], row
        while self._due:
            object_id = next(iter(self._due))
            del self._due[object_id]
            row = self._outbox.find_sound(object_id)
            if row is not None and self._tells(row):
                yield object_id, row

    def _tells(self, row: objects_pb2.ObjectRow) -> bool:
        """Whether enough of its hosts are alive; where its bytes are here, one is."""
        alive = [ack for ack in row.object.acks if self._hosts.is_alive(ack.node_id)]
        shards = sum(len(ack.shards) or 1 for ack in alive)
        return row.object.state == DURABLE and shards > (0 if row.object.local else row.object.shards_needed or 1)

    def _turn_page(self, now: Now) -> None:
        """What it finds is looked at before the next."""
        if self._due:
            self._walk_ms = now.mono_ms + PAGE_MS
            return
        start, self._walk, self._walk_ms = self._walk, b"", now.mono_ms + WALK_AGAIN_MS
        for count, (key, _) in enumerate(sound(self._draft.committed, OBJECTS, start)):
            if count == PAGE_ROWS:
                self._walk, self._walk_ms = key, now.mono_ms + PAGE_MS
                return
            row = self._outbox.find_sound(key.decode())
            if row is not None and self._is_due(row, now):
                self._due[key.decode()] = None

    def _is_due(self, row: objects_pb2.ObjectRow, now: Now) -> bool:
        """In the last quarter of its days, each object at its own moment; at once where the clock has gone back."""
        object_id = row.object.object_id
        if self._draft.get(UNPROVED, object_id.encode()) is not None:
            return object_id not in self._delays
        if row.object.state != DURABLE or not self._days:
            return False
        last_us = max((ack.verified_us for ack in row.object.acks), default=0) or row.object.created_us
        chance = hashlib.blake2b(object_id.encode(), digest_size=1).digest()[0]
        return not 0 <= now.utc_us - last_us < self._days * DAY_US * (768 + chance) // 1_024

    # ---- inside

    def _apart_ms(self, object_ids: Sequence[str]) -> int:
        """For roads that are slow."""
        rows = [row for object_id in object_ids if (row := self._outbox.find_sound(object_id)) is not None]
        asked = {ack.node_id for row in rows for ack in row.object.acks}
        return max((self._hosts.pace(node).apart_ms(len(rows) * PROOF_BYTES) for node in asked), default=0)

    def _still_lacks(self, row: objects_pb2.ObjectRow) -> bool:
        """Whether somebody who lost something of it is still to be brought that; of copies another may have been."""
        made, epoch = row.object, Epoch.decode(row.epoch.body)
        if not epoch.layout and len(made.acks) >= row.copies_wanted and made.acked_milli >= made.required_milli:
            return False
        losers = self._losers.get(made.object_id, set())
        return any(epoch.shards.get(node) for node in losers - {ack.node_id for ack in made.acks})

    def _on_lost(self, object_id: str, losers: set[str], now: Now) -> None:
        if losers.isdisjoint(self._losers.get(object_id, ())):
            self._losers.pop(object_id, None)
            self._delays.pop(object_id, None)
        self.on_soon(object_id, now)
        if object_id in self._delays:
            self._losers[object_id] = losers

    def _wait(self, object_id: str, due_ms: int) -> None:
        self._delays.setdefault(object_id, SOON_MS)
        self._soon.set(object_id, due_ms)

    def _wait_longer(self, object_id: str, now: Now) -> None:
        self._delays[object_id] = delay_ms = min(SOON_RETRY_MAX_MS, 2 * self._delays[object_id])
        self._soon.set(object_id, now.mono_ms + delay_ms)

    def _proved(self, object_id: str) -> None:
        """Or it is deleted."""
        self._draft.delete(UNPROVED, object_id.encode())
        self._delays.pop(object_id, None)
        self._losers.pop(object_id, None)
        self._soon.cancel(object_id)


def part_bytes(row: objects_pb2.ObjectRow) -> int:
    """Of a copy or a shard, nearly."""
    return -(-stored_bytes(row.object) // max(1, row.object.shards_needed))
