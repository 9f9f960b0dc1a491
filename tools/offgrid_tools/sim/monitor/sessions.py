"""The rules of sessions: what was answered is there once, in order and as it was said, until retention may drop it; a
state is the fold of all that was said; what is pinned stays; what is purged nobody reads any more.

The monitor opens each block as it becomes durable, with the machine's own ring of keys, and so knows what is in a
session whoever heard of it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from offgrid.reducers import Recorded, SessionReducer, show_state
from offgrid.v1 import state_pb2
from offgrid_node.keys.blocks import open_block
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.state.sessions.blocks import BLOCK, Entry, bound_to, decode
from offgrid_node.protocol.state.sessions.tables import (
    BLOCKS,
    PASSED,
    PURGING,
    SESSIONS,
    SNAPSHOTS,
    snapshots_of,
)
from offgrid_node.protocol.state.summaries.tables import SUMMARIES, summarised_upto
from offgrid_node.protocol.state.tables import NUMBER_BYTES, number_of
from offgrid_node.storage.memory_session_keys import MemorySessionKeys
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Journaled, Rules, Written

MARK = "said by "  # in all that anybody says: it is in clear nowhere


class Said(msgspec.Struct):
    """What is known of a session. `events` are all that were ever durable; `blocks` those that are kept, by the number
    of their first event: how many, and the number of the journal's event that tells of it."""

    node: str
    events: list[Entry] = msgspec.field(default_factory=list)
    texts: set[bytes] = msgspec.field(default_factory=set)
    blocks: dict[int, tuple[int, int]] = msgspec.field(default_factory=dict)
    row: state_pb2.Session = msgspec.field(default_factory=state_pb2.Session)
    answered: int = 0  # somebody was told that so many are recorded
    pinned: bool | None = False  # None: nobody knows
    pinning: int = 0  # people who are not answered yet
    ending: bool = False
    ended: bool = False  # and somebody was told so
    purging: bool = False
    purged: bool = False  # likewise


class SessionRules(Rules):
    """Of all sessions of all machines, whose rings of keys are in `keys`."""

    def __init__(self, evidence: Evidence, met: Counter[str]) -> None:
        self._evidence, self.met = evidence, met
        self.keys: dict[str, MemorySessionKeys] = {}
        self.safe_seq: dict[str, Callable[[], int | None]] = {}  # what a machine's hosts have; None: they have none
        self.known: dict[str, Said] = {}
        self._told: dict[tuple[str, int], int] = {}  # by session and first event, what number the journal gave it
        self._floor: dict[str, int] = defaultdict(int)

    # ---- what people ask and are told

    def on_started(self, node: str, session: state_pb2.Session) -> None:
        said = self._said(node, session.session_id)
        if said.ended or said.purged or session.ended_us or session.purged_us:
            raise Violation(f"{session.session_id} is begun, and has ended")

    def on_recorded(self, node: str, session: str, first: int, entries: Sequence[Entry]) -> None:
        said, last = self._said(node, session), first + len(entries) - 1
        if said.events[first - 1 : last] != [*entries]:
            raise Violation(f"{session}: events {first} to {last} are not what was recorded")
        said.answered = max(said.answered, last)

    def on_told(self, node: str, session: state_pb2.Session) -> None:
        said = self._said(node, session.session_id)
        if not said.answered <= session.recorded <= len(said.events):
            raise Violation(f"{session.session_id} has {session.recorded} events; {said.answered} were answered")
        if (said.ended and not session.ended_us) or (said.purged and not session.purged_us):
            raise Violation(f"{session.session_id} goes on, and had ended")
        if said.pinned is not None and not said.purging and session.pinned != said.pinned:
            raise Violation(f"{session.session_id} is not pinned as it was answered")

    def on_listed(
        self, node: str, session: str, at: int, page: state_pb2.ListRecordsResponse, *, newest_first: bool
    ) -> int:
        """`at`: the last one before it, 0: none. Returns the last one of the page."""
        said = self._said(node, session)
        row, step = self._row(node, session), -1 if newest_first else 1
        gone = row.recorded - row.kept
        following = (at or row.recorded + 1) - 1 if newest_first else max(at, gone) + 1
        for record in page.records:
            if record.number != following or record.data != said.events[following - 1].data:
                raise Violation(f"{session}: event {following} is not what is listed there")
            following += step
        if not page.next_page_token and gone < following <= row.recorded:
            raise Violation(f"{session}: event {following} is not listed")
        return following - step

    def on_shown(self, node: str, session: str, least: int, shown: state_pb2.ShowStateResponse, *, exact: bool) -> None:
        said = self._said(node, session)
        if not least <= shown.number <= (least if exact else len(said.events)):
            raise Violation(f"{session}: the state at event {shown.number} is shown, {least} were there")
        if shown.digest != _digest(said.events[: shown.number]):
            raise Violation(f"{session}: its state at event {shown.number} is not the fold of its events")

    def on_pinning(self, node: str, session: str) -> None:
        said = self._said(node, session)
        said.pinning, said.pinned = said.pinning + 1, None

    def on_pinned(self, node: str, session: str, *, pinned: bool | None) -> None:
        """None: it was refused."""
        said = self._said(node, session)
        said.pinning -= 1
        said.pinned = pinned if not said.pinning and not said.purging else None

    def on_ending(self, node: str, session: str) -> None:
        self._said(node, session).ending = True

    def on_ended(self, node: str, session: str) -> None:
        self._said(node, session).ended = True

    def on_purging(self, node: str, session: str) -> None:
        said = self._said(node, session)
        said.purging, said.ending, said.pinned = True, True, None

    def on_purged(self, node: str, session: str) -> None:
        self._said(node, session).purged = True
        self.met["sessions purged"] += 1
        self._check_shredded(node, session)

    def check_over(self, node: str, session: str, reason: str) -> None:
        """Somebody is refused because it has ended, or was purged, or is unknown."""
        if not session:
            return  # it was asked for by its name
        said = self._said(node, session)
        over = said.ending or said.row.ended_us if reason == "SessionEnded" else said.row.purged_us
        if not over:
            raise Violation(f"{session} is refused ({reason}), and nothing had become of it")

    def check_gone(self, node: str, session: str) -> None:
        row = self._row(node, session)
        if row.recorded == row.kept:
            raise Violation(f"{session} has all its events, and it is said that some are gone")

    # ---- what becomes durable

    def events(self) -> Mapping[str, Journaled]:
        return {"block": self._on_block_event}

    def rows(self) -> Mapping[str, Written]:
        return {BLOCKS: self._on_block, SESSIONS: self._on_session}

    def _on_block_event(self, node: str, event: state_pb2.Event) -> None:
        self._told[event.block.session_id, event.block.first] = event.seq

    def _on_block(self, node: str, key: bytes, value: bytes | None) -> None:
        session, first = key[:-NUMBER_BYTES].decode(), number_of(key[-NUMBER_BYTES:])
        said = self._said(node, session)
        if value is None:
            self._on_dropped(node, session, said, first)
            return
        entries = self._opened(node, session, value)
        if first != len(said.events) + 1:
            raise Violation(f"{session}: event {first} is recorded behind event {len(said.events)}")
        if said.ended or said.purged:
            raise Violation(f"{session}: event {first} is recorded, and the session had ended")
        for entry in entries:
            if entry.data in said.texts:
                raise Violation(f"{session}: {entry.data[:40]!r} is recorded twice")
            said.texts.add(entry.data)
        self.met["events of sessions"] += len(entries)
        said.events += entries
        said.blocks[first] = len(entries), self._told[session, first]

    def _on_dropped(self, node: str, session: str, said: Said, first: int) -> None:
        count, seq = said.blocks.pop(first)
        row, last = self._row(node, session), first + count - 1
        if row.purged_us:
            return
        if said.pinned:
            raise Violation(f"{session}: events {first} to {last} are dropped, and it is pinned")
        if seq > summarised_upto(self._evidence.stores[node].copy()):
            raise Violation(f"{session}: events {first} to {last} are dropped, and in no summary")
        if any(each < first for each in said.blocks):
            raise Violation(f"{session}: events {first} to {last} are dropped before older ones")
        if self._snapshot(node, session) < last:
            raise Violation(f"{session}: events {first} to {last} are dropped, and no snapshot tells of them")
        self.met["events of sessions dropped"] += count

    def _on_session(self, node: str, key: bytes, value: bytes | None) -> None:
        session = key.decode()
        said, before = self._said(node, session), self.known[session].row
        if value is None:
            if not before.purged_us:
                raise Violation(f"{session} is forgotten, and was not purged")
            return
        row = state_pb2.SessionRow.FromString(value).session
        if row.purged_us and not before.purged_us and not said.purging and (before.kept or said.pinned):
            raise Violation(f"{session} is purged, and nobody wanted that")
        if said.pinned and not row.pinned:
            raise Violation(f"{session} is pinned no more, and nobody wanted that")
        if not row.purged_us and row.recorded != len(said.events):
            raise Violation(f"{session} says that it has {row.recorded} events, and has {len(said.events)}")
        said.row = row

    def on_batch(self, node: str) -> None:
        store = self._evidence.stores[node]
        floor = store.journal_floor
        if floor == self._floor[node]:
            return
        if floor < self._floor[node]:
            raise Violation(f"the journal of {self._name(node)} begins earlier than before")
        if floor > summarised_upto(store.copy()):
            raise Violation(f"{self._name(node)} has dropped events of its journal that are in no summary")
        safe_seq = self.safe_seq[node]()
        if safe_seq is not None and floor > safe_seq:
            raise Violation(f"{self._name(node)} has dropped events of its journal that no host has")
        self._floor[node] = floor

    # ---- what is on the disk

    def check_store(self, node: str) -> None:
        for session, said in self.known.items():
            if said.node == node:
                self._check_kept(node, session, said)
        if self.keys.get(node) is None or not self.known:
            return
        mark = MARK.encode()
        if any(mark in data for data in self._everything(node)):
            raise Violation(f"{self._name(node)} has in clear what was said in a session")

    def _everything(self, node: str) -> Iterator[bytes]:
        store = self._evidence.stores[node].copy()
        yield from store.dump()
        yield from (data for _, data in store.events())
        yield from self._evidence.blobs[node].contents()

    def _check_kept(self, node: str, session: str, said: Said) -> None:
        if said.purged:
            self._check_shredded(node, session)
        row = self._row(node, session)
        if row.purged_us or not row.session_id:
            return
        if row.recorded < said.answered:
            raise Violation(f"{session} has {row.recorded} events; {said.answered} were answered")
        at = row.recorded - row.kept + 1
        floor = self._evidence.stores[node].journal_floor
        for key, value in self._evidence.stores[node].copy().scan(BLOCKS, prefix=session.encode()):
            first = number_of(key[-NUMBER_BYTES:])
            entries = self._opened(node, session, value)
            if first != at or said.events[first - 1 : first - 1 + len(entries)] != entries:
                raise Violation(f"{session}: event {at} is not kept as it was recorded")
            if said.blocks[first][1] <= floor and self._passed(node, session) < first:
                raise Violation(f"{session}: event {first} stays for good: the journal tells of it no more")
            at += len(entries)
        if at != row.recorded + 1:
            raise Violation(f"{session}: event {at} is kept no more, of {row.recorded}")

    def _check_shredded(self, node: str, session: str) -> None:
        if session in self.keys[node]:
            raise Violation(f"{session} is purged, and its key is still there")

    def unfinished(self, node: str) -> str:
        """What is still to come of purges; empty when nothing is."""
        store = self._evidence.stores[node].copy()
        if any(True for _ in store.scan(PURGING)):
            return f"{self._name(node)} has not purged all that it was to"
        for session, said in self.known.items():
            if said.node == node and said.row.purged_us:
                for table in (BLOCKS, SNAPSHOTS, SUMMARIES):
                    if any(True for _ in store.scan(table, prefix=session.encode())):
                        return f"{session} is purged, and has rows in {table}"
        return ""

    # ---- inside

    def _said(self, node: str, session: str) -> Said:
        return self.known.setdefault(session, Said(node))

    def _name(self, node: str) -> str:
        return self._evidence.name_of(node)

    def _row(self, node: str, session: str) -> state_pb2.Session:
        return state_pb2.SessionRow.FromString(self._evidence.row(node, SESSIONS, session.encode()) or b"").session

    def _passed(self, node: str, session: str) -> int:
        return number_of(self._evidence.row(node, PASSED, session.encode()) or bytes(NUMBER_BYTES))

    def _snapshot(self, node: str, session: str) -> int:
        """The event up to which the newest one goes."""
        prefix = snapshots_of(session, SessionReducer.name)
        rows = self._evidence.stores[node].copy().scan(SNAPSHOTS, prefix=prefix)
        return max((number_of(key[-NUMBER_BYTES:]) for key, _ in rows), default=0)

    def _opened(self, node: str, session: str, value: bytes) -> list[Entry]:
        key = self.keys[node].get(session)
        if key is None:
            raise Violation(f"{session}: what it says is kept, and its key is not")
        try:
            return decode(open_block(key, bound_to(session, BLOCK), state_pb2.BlockRow.FromString(value).sealed))
        except Corrupt as fault:
            raise Violation(f"{session}: a block does not open: {fault.message}") from fault


def _digest(events: Sequence[Entry]) -> bytes:
    reducer = SessionReducer()
    state = reducer.initial()
    for number, (at_us, kind, frame, energy, data) in enumerate(events, 1):
        state = reducer.apply(state, Recorded(number, at_us, kind, frame, energy, json.loads(data)))
    return show_state(reducer, state)[1]
