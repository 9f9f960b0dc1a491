"""The state domain's machine: cuts the journal into segments, which become objects of this node's own.

A segment has the rows that changed since the one before it, as they all were at one moment, and the journal's events
since. Applied in order over nothing, from one with which all rows began to be written down (the base), they give the
rows of that moment: what is written down while rows go on changing is out of date at once, but each change has a
segment of its own behind it (a fuzzy checkpoint with a redo log, as in ARIES, Mohan et al. 1992). When the segments
since the base outweigh it, or are many, or one of them is lost, the next base begins, and once that is whole and
durable the old ones go.

Whether there is a newer journal of this node is asked of hosts (`newest.py`); then nothing is cut any more.

A segment is cut when the journal has grown, and the journal says nothing of segments: the rows by which one becomes an
object travel with the next one, and an idle node falls silent. Without a host in sight nothing is cut, nor where slow
roads alone lead to hosts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Effect, Rows, Signer, Verifier, Woke
from offgrid_node.protocol.errors import Corrupt, Internal, Unavailable
from offgrid_node.protocol.events import (
    HOST,
    DropSegment,
    ObjectAdded,
    ObjectAstray,
    PeerDown,
    PeerUp,
    SegmentAstray,
    SegmentDurable,
    SegmentLost,
)
from offgrid_node.protocol.objects.errands import KeepSegment, SegmentKept
from offgrid_node.protocol.objects.segments import SegmentHead
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.protocol.pace import Paces, all_free
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.sound import row_name
from offgrid_node.protocol.state.cutting import History, segment_of
from offgrid_node.protocol.state.newest import HeadTag, LifeTag, Newest
from offgrid_node.protocol.state.tables import (
    CHANGES,
    JOURNAL,
    NOTING_KEY,
    SEGMENTS,
    STATE_KEY,
    Newer,
    number_key,
    number_of,
)

INTERVAL_MS = 2_000  # from an event to the segment that has it, so that many share one
SEGMENT_BYTES = 1024 * 1024  # of changed rows, from which on one is cut at once
OPEN_MAX = 4  # segments that wait for their acks; then none is cut before one has them
SINCE_BYTES_MIN = 4 * 1024 * 1024  # behind a base before the next one is worth while
SINCE_MAX = 256  # segments, likewise, so that a restored node has not too many to ask for
SINCE_EACH_BYTES = 16 * 1024  # of a large base one more for each, so that a base costs no segment more than that; but
SINCE_MAX_LARGE = 4_096  # at most
RETRY_MS, TROUBLE_RETRY_MS = 5_000, 60_000
LOOK_MS = 30_000  # at the roads to hosts
BASE_RETRY_MS = 3_600_000  # of a base that a damaged row kept from being made
ASTRAY_MAX = 1_000  # segments that wait for this life's first base
TOKEN_BYTES = 8
ACCEPTED, DURABLE = objects_pb2.OBJECT_STATE_ACCEPTED, objects_pb2.OBJECT_STATE_DURABLE


class Stirred(msgspec.Struct, frozen=True):
    """The journal has grown since the last segment was cut, or this machine was loaded."""


class StateSettings(msgspec.Struct, frozen=True):
    """`required_milli` of acks are to make a segment durable, where the hosts of now weigh so much. `salt` is the
    mesh's; `key_number`: how many keys went before the signer's."""

    signer: Signer
    verify: Verifier
    salt: bytes
    required_milli: int
    interval_ms: int = INTERVAL_MS
    key_number: int = 0
    paces: Paces = all_free

    @property
    def node_id(self) -> str:
        return self.signer.node_id


class _Cut(msgspec.Struct, frozen=True):
    """A segment under way: how things stand once it is there, and the notes that it makes good. `scanned`: it is of a
    base in the making."""

    token: bytes
    row: state_pb2.JournalRow
    notes: list[int]
    scanned: bool


def _hear(rows: Rows, segment: state_pb2.SegmentRow) -> None:
    """What came of it while this node ran without this machine, which was not told. Of a row that is damaged nobody can
    say so."""
    try:
        row = rows.get(OBJECTS, segment.object_id.encode()) if not segment.lost else None
    except Corrupt:
        return
    made = objects_pb2.ObjectRow.FromString(row).object if row is not None else None
    if made is not None and made.state != ACCEPTED:
        segment.durable = made.state == DURABLE and (made.local or bool(made.acks))
        segment.lost = not segment.durable


class StateMachine:
    """The journal's replication at one node."""

    def __init__(self, settings: StateSettings, history: History) -> None:
        self._settings, self._history, self._draft = settings, history, Draft()
        signer, verify, number = settings.signer, settings.verify, settings.key_number
        self._newest = Newest(
            signer, verify, settings.salt, number, self._draft, self._safe_base, self._drop_at, settings.paces
        )
        self._row = state_pb2.JournalRow()
        self._segments: dict[int, state_pb2.SegmentRow] = {}
        self._hosts: dict[str, int] = {}  # alive, with their weights
        self._astray: dict[str, None] = {}  # segments of lives before that hosts keep
        self._cut: _Cut | None = None
        self._due_ms: int | None = None
        self._no_base_before_ms = 0
        self._look_ms = 0  # not before it is it looked again whether a host is within reach
        self.trouble = ""  # what could not be cut when that was last tried, and why

    def load(self, rows: Rows, now: Now) -> None:
        self._draft.load(rows)
        self._history.find_notes()
        self._row = self._draft.row(JOURNAL, STATE_KEY, state_pb2.JournalRow) or state_pb2.JournalRow(life=1)
        self._segments = {number_of(key): state_pb2.SegmentRow.FromString(value) for key, value in rows.scan(SEGMENTS)}
        for segment in self._segments.values():
            _hear(rows, segment)
        self.trouble = self._left_behind(self._row)
        self._due_ms = now.mono_ms + self._settings.interval_ms
        self._newest.load(rows)

    # ---- questions

    @property
    def newer(self) -> Newer | None:
        """What this store should know of and does not; nothing is cut any more, and the node had better stop."""
        return self._newest.newer

    @property
    def safe_events(self) -> int:
        """Up to which event of the journal a node that lost its disk now would come back."""
        row = self._safe()
        return row.events if row is not None else 0

    @property
    def far_hosts(self) -> int:
        """How many hosts are alive where none is near enough for the journal; 0 where one is."""
        return 0 if self._within_reach() else len(self._hosts)

    @property
    def waiting(self) -> int:
        """Segments that wait for their acks."""
        return sum(not row.durable and not row.lost for row in self._segments.values())

    @property
    def lost(self) -> int | None:
        """The newest segment that is lost, until all rows are at hosts anew."""
        return max((number for number, row in self._segments.items() if row.lost), default=None)

    def deadline_ms(self) -> int | None:
        return min((due for due in (self._cut_due_ms, self._newest.deadline_ms) if due is not None), default=None)

    @property
    def _cut_due_ms(self) -> int | None:
        if self._cut is not None or not self._hosts or self.waiting >= OPEN_MAX or self.newer is not None:
            return None
        return max(self._due_ms, self._look_ms) if self._due_ms is not None else None

    # ---- inputs

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        self._draft.begin(now)
        for event in inputs:
            match event:
                case Stirred():
                    if self._due_ms is None:
                        self._due_ms = now.mono_ms + self._settings.interval_ms
                case SegmentKept():
                    self._on_kept(event, now)
                case SegmentDurable(number):
                    self._on_durable(number)
                case SegmentLost(number):
                    self._on_lost(number, now)
                case ObjectAstray():
                    self._newest.on_object(self._row)
                case SegmentAstray():
                    self._on_astray(event)
                case PeerUp(node_id, _, roles, weight_milli):
                    self._hosts.pop(node_id, None)
                    if HOST in roles and node_id != self._settings.node_id:
                        self._hosts[node_id] = weight_milli
                        self._newest.ask(node_id, self._row, self._segments)
                case Answered(HeadTag()):
                    self._newest.on_told(event, self._row, self._segments, now)
                case Answered(LifeTag()):
                    pass  # one that has not heard of it is told again when it is asked again
                case PeerDown(node_id):
                    self._hosts.pop(node_id, None)
                    self._newest.on_gone(node_id)
                case Woke():
                    pass  # what is due is looked at when the step closes
                case _:
                    raise Internal(f"the state machine does not know {type(event).__name__}")
        self._newest.ask_again(self._row, self._segments, now)
        due_ms = self._cut_due_ms
        full = self._history.noted_bytes >= SEGMENT_BYTES and self._look_ms <= now.mono_ms
        if due_ms is not None and (due_ms <= now.mono_ms or full):
            if self._within_reach():
                self._try_cut(now, rng)
            else:
                self._look_ms = now.mono_ms + LOOK_MS
        return self._draft.take()

    # ---- a segment

    def _within_reach(self) -> dict[str, int]:
        """Hosts that slow roads do not part from this node, with their weights: a journal is too much for those."""
        return {node: weight for node, weight in self._hosts.items() if self._settings.paces(node).free}

    def _try_cut(self, now: Now, rng: Rng) -> None:
        """A row that cannot be read keeps a new base from being made: without that row it would not be whole, and what
        hosts have of it would go with the old one. What changes goes on behind that, and of what has changed and cannot
        be read hosts have what was before. Where there is no base the journal is not cut, and nothing else is kept from
        anything."""
        try:
            self._begin_cut(now, rng)
            if now.mono_ms >= self._no_base_before_ms:
                self.trouble = self._left_behind(self._cut.row if self._cut is not None else self._row)
        except (Corrupt, Unavailable) as fault:
            self.trouble = f"the journal is not brought to hosts: {fault.message}"
            self._cut, self._due_ms = None, now.mono_ms + TROUBLE_RETRY_MS
            self._history.find_notes()
            if isinstance(fault, Corrupt) and self._row.scan_base and self._row.base:
                self.trouble = f"what changes is brought to hosts, but the whole journal not anew: {fault.message}"
                self._end_scan()
                self._no_base_before_ms = now.mono_ms + BASE_RETRY_MS
                self._due_ms = now.mono_ms

    def _left_behind(self, row: state_pb2.JournalRow) -> str:
        if not row.damaged:
            return ""
        first = row.damaged[0]
        more = f" and {len(row.damaged) - 1} more" if len(row.damaged) > 1 else ""
        what = f"{row_name(first.table, first.key)}{more}"
        return f"the journal is brought to hosts but for damaged rows, which they have as they were before: {what}"

    def _begin_cut(self, now: Now, rng: Rng) -> None:
        self._due_ms = None
        own = self._settings.signer.public_key
        if not self._history.noting:
            self._history.begin()
            self._draft.put_bytes(JOURNAL, NOTING_KEY, b"\1")
            self._row.base, self._row.public_key = 0, own  # what has changed since, nobody knows
            self._begin_scan()
        elif self._row.public_key != own:
            self._row.base, self._row.public_key = 0, own  # whoever has the new key alone opens nothing of before
            self._begin_scan()
        elif self._is_broken:
            self._row.base = 0
            self._begin_scan()
        elif not self._row.scan_base and now.mono_ms >= self._no_base_before_ms and self._wants_base():
            self._begin_scan()
        if not self._row.scan_base and self._row.events == self._history.journal_seq:
            return
        names, notes = self._history.take()
        row = state_pb2.JournalRow()
        row.CopyFrom(self._row)
        row.number += 1
        segment = segment_of(self._history, row, names)
        self._cut = _Cut(rng.randbytes(TOKEN_BYTES), row, notes, bool(self._row.scan_base))
        head = SegmentHead(self._settings.node_id, row.life, row.number, row.base, row.events, "", row.object_id)
        near = sorted(self._within_reach())
        self._newest.ask(near[row.number % len(near)], self._row, self._segments)
        self._draft.send(KeepSegment(self._cut.token, segment, head))

    def _begin_scan(self) -> None:
        row = self._row
        row.scan_base, row.scan_table, row.scan_key = row.number + 1, "", b""
        row.scan_events, row.scan_events_end = 0, row.events
        row.base_bytes, row.since_bytes = 0, 0
        self._draft.put(JOURNAL, STATE_KEY, row)

    def _end_scan(self) -> None:
        """It came to no end; what it has written lies behind the base of before, like all changes."""
        row = self._row
        row.scan_base, row.scan_table, row.scan_key, row.scan_events, row.scan_events_end = 0, "", b"", 0, 0
        self._draft.put(JOURNAL, STATE_KEY, row)

    def _wants_base(self) -> bool:
        """Whether what lies behind the base outweighs it: so all that is sent in time is some three times the rows."""
        row = self._row
        most = min(max(SINCE_MAX, row.base_bytes // SINCE_EACH_BYTES), SINCE_MAX_LARGE)
        return row.since_bytes > max(SINCE_BYTES_MIN, row.base_bytes) or row.number - row.base > most

    @property
    def _is_broken(self) -> bool:
        """Whether one is lost on which the next would lean."""
        return self.lost is not None and self.lost >= (self._row.scan_base or self._row.base or self.lost + 1)

    def _on_kept(self, event: SegmentKept, now: Now) -> None:
        cut = self._cut
        if cut is None or cut.token != event.token:
            return  # of machines that are no more
        self._cut = None
        if event.manifest is None or event.body is None:
            self._history.find_notes()  # what was taken
            self._due_ms = now.mono_ms + RETRY_MS
            return
        row = self._row = cut.row
        row.object_id = event.body.object_id
        if cut.scanned:
            row.base_bytes += event.sealed_bytes
        else:
            row.since_bytes += event.sealed_bytes
        self._segments[row.number] = state_pb2.SegmentRow(object_id=row.object_id, base=row.base, events=row.events)
        for number in cut.notes:
            self._draft.delete(CHANGES, number_key(number))
        self._draft.put(JOURNAL, STATE_KEY, row)
        self._draft.put(SEGMENTS, number_key(row.number), self._segments[row.number])
        required = min(self._settings.required_milli, max(1, sum(self._within_reach().values())))
        self._draft.tell("objects", ObjectAdded(event.manifest, event.body, "", required))
        if row.scan_base or row.events < self._history.journal_seq:
            self._due_ms = now.mono_ms + (0 if row.scan_base else self._settings.interval_ms)

    def _on_durable(self, number: int) -> None:
        row = self._segments.get(number)
        if row is None:
            return
        row.durable = True
        self._draft.put(SEGMENTS, number_key(number), row)
        safe = self._safe()
        for old in [number for number in self._segments if safe is not None and number < safe.base]:
            self._draft.delete(SEGMENTS, number_key(old))
            object_id = self._segments.pop(old).object_id
            self._newest.remember(old, object_id)
            self._draft.tell("objects", DropSegment(object_id))
        self._drop_astray()

    def _on_lost(self, number: int, now: Now) -> None:
        """The chain ends before it, and all rows are written down anew. It goes with those before the next base."""
        row = self._segments.get(number)
        if row is None or row.lost:
            return
        row.durable, row.lost = False, True
        self._draft.put(SEGMENTS, number_key(number), row)
        self._due_ms = now.mono_ms

    def _on_astray(self, event: SegmentAstray) -> None:
        """One of a life before. Of more than ASTRAY_MAX hosts tell again."""
        if event.life < self._row.life and len(self._astray) < ASTRAY_MAX:
            self._astray[event.object_id] = None
            self._drop_astray()

    def _drop_astray(self) -> None:
        """Once this life has a base of its own that is safe: till then they may be of use."""
        safe = self._safe() if self._astray else None
        if safe is not None and safe.base == self._row.base:
            for object_id in self._astray:
                self._draft.tell("objects", DropSegment(object_id))
            self._astray.clear()

    def _drop_at(self, object_id: str, host: str) -> None:
        """It shows it still."""
        self._draft.tell("objects", DropSegment(object_id, host))

    def _safe_base(self) -> int:
        safe = self._safe()
        return safe.base if safe is not None else 0

    def _safe(self) -> state_pb2.SegmentRow | None:
        """The newest segment that is durable with all that it needs."""
        found, durable_from = None, 0
        for number, row in sorted(self._segments.items()):
            durable_from = (durable_from or number) if row.durable else 0
            if durable_from and durable_from <= row.base:
                found = row
        return found
