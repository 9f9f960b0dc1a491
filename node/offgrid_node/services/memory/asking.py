"""Asks what is remembered: of events as long as they are there, and of summaries beyond.

A walk goes through the journal, then through each session, in the order of numbers: over summaries, and over events
where there are none, as behind the newest. Where a summary alone cannot answer, its events are looked at one by one if
they are all there still; else the answer says how far it may be off. How much is looked at for one page is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol

import msgspec

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition
from offgrid_node.protocol.sound import sound
from offgrid_node.protocol.state.sessions.blocks import BLOCK, Entry, decode
from offgrid_node.protocol.state.sessions.imports import is_importing
from offgrid_node.protocol.state.sessions.tables import BLOCKS, SESSIONS, block_key
from offgrid_node.protocol.state.summaries import journal_facts, session_facts
from offgrid_node.protocol.state.summaries.machine import MOVED
from offgrid_node.protocol.state.summaries.summary import Facts, Summary
from offgrid_node.protocol.state.summaries.tables import JOURNAL, SUMMARIES, summary_key
from offgrid_node.protocol.state.tables import NUMBER_BYTES, number_key, number_of
from offgrid_node.services.memory.opening import opened
from offgrid_node.services.memory.walking import WINDOW_EVENTS, KeysOf
from offgrid_node.services.sessions.reading import Reading
from offgrid_node.services.sessions.vault import KEYLESS, Vault
from offgrid_node.storage.store import Store

EVENTS_MAX = 2 * WINDOW_EVENTS  # looked at for one page
STEPS_MAX = 1_024  # summaries, and sessions, likewise
READ_MAX = WINDOW_EVENTS + 1_000  # of a summary's events; of several windows together they are hardly there


class Seen(NamedTuple):
    """One event."""

    number: int
    timestamp_us: int
    facts: Facts


class Question(Protocol):
    """What is asked, and gathers its own answer."""

    journal: bool
    sessions: bool

    def of_summary(self, scope: str, row: state_pb2.SummaryRow, summary: Summary) -> bool:
        """Whether it has its answer from that; if not, the events are given to it, or `without`."""
        ...

    def of_events(self, scope: str, row: state_pb2.SummaryRow | None, events: Iterable[Seen]) -> None: ...

    def without(self, scope: str, row: state_pb2.SummaryRow, summary: Summary) -> None:
        """They are gone."""
        ...


class Place(NamedTuple):
    """Where a page begins: with that number of that scope."""

    scope: str
    number: int

    def encode(self) -> bytes:
        return self.scope.encode() + number_key(self.number)

    @classmethod
    def decode(cls, position: bytes) -> Place:
        return cls(position[:-NUMBER_BYTES].decode(errors="replace"), number_of(position[-NUMBER_BYTES:]))


class _PageFull(Exception):
    def __init__(self, scope: str, number: int) -> None:
        super().__init__()
        self.place = Place(scope, number)


class _Page(msgspec.Struct):
    question: Question
    since_us: int
    until_us: int
    basis: state_pb2.AskBasis = msgspec.field(default_factory=state_pb2.AskBasis)
    looked: int = 0
    steps: int = 0

    def step(self, scope: str, number: int) -> None:
        if self.steps >= STEPS_MAX or self.looked >= EVENTS_MAX:
            raise _PageFull(scope, number)
        self.steps += 1

    def wanted(self, oldest_us: int, newest_us: int) -> bool:
        return self.since_us <= newest_us and oldest_us <= self.until_us

    def give(self, scope: str, row: state_pb2.SummaryRow | None, events: list[Seen]) -> None:
        self.looked += len(events)
        self.basis.events += len(events)
        within = [each for each in events if self.since_us <= each.timestamp_us <= self.until_us]
        self.question.of_events(scope, row, within)


Look = Callable[[_Page, str, int, int], None]
"""At the events of a scope from one number to another, as far as they are there."""


class Asking:
    """Over committed rows; may run in any thread."""

    def __init__(self, store: Store, vault: Vault, keys_of: KeysOf) -> None:
        self._store, self._vault, self._keys_of = store, vault, keys_of
        self._reading = Reading(store, vault)

    def page(
        self, question: Question, session_id: str, since_us: int, until_us: int, place: Place | None
    ) -> tuple[state_pb2.AskBasis, Place | None]:
        """What this page's answer rests on, and where the next one begins; the answer itself `question` has.

        Raises FailedPrecondition (SummariesMoved) where summaries were joined since the page before."""
        page = _Page(question, since_us, until_us)
        try:
            if question.journal and not session_id and (place is None or place.scope == JOURNAL):
                self._journal(page, place.number if place is not None else 1)
            if question.sessions:
                self._sessions(page, session_id, place if place is not None and place.scope != JOURNAL else None)
        except _PageFull as full:
            return page.basis, full.place
        return page.basis, None

    # ---- the journal

    def _journal(self, page: _Page, number: int) -> None:
        newest = self._store.journal_seq
        self._scope(page, JOURNAL, number, newest, self._look_at_journal)
        page.basis.recorded += newest

    def _look_at_journal(self, page: _Page, scope: str, first: int, last: int) -> None:
        kept = self._store.events(first - 1)
        while found := [*self._journal_events(islice(kept, READ_MAX), last)]:
            page.step(JOURNAL, found[0].number)
            page.give(JOURNAL, None, found)

    def _journal_events(self, raw: Iterable[tuple[int, bytes]], last: int) -> Iterator[Seen]:
        for seq, each in raw:
            if seq > last:
                return
            event = state_pb2.Event.FromString(each)
            yield Seen(seq, event.timestamp_us, journal_facts.facts_of(event))

    # ---- sessions

    def _sessions(self, page: _Page, session_id: str, place: Place | None) -> None:
        start, damaged = place.scope if place is not None else session_id, list[bytes]()
        rows = sound(self._store.scan, SESSIONS, start.encode(), prefix=session_id.encode(), on_damaged=damaged.append)
        for key, value in rows:
            session = state_pb2.SessionRow.FromString(value).session
            number = place.number if place is not None and place.scope == key.decode() else 1
            page.step(session.session_id, number)
            if session.purged_us or is_importing(session):
                continue
            if not self._vault.has(session.session_id):
                page.basis.unreadable += 1
                continue
            try:
                self._scope(page, session.session_id, number, session.recorded, self._look_at_session)
            except FailedPrecondition as fault:
                if fault.reason != KEYLESS:
                    raise
                continue  # shredded meanwhile
            page.basis.recorded += session.recorded
        page.basis.unreadable += len(damaged)

    def _look_at_session(self, page: _Page, scope: str, first: int, last: int) -> None:
        for _, value in sound(self._store.scan, BLOCKS, block_key(scope, first), prefix=scope.encode()):
            block = state_pb2.BlockRow.FromString(value)
            if block.first > last:
                return
            page.step(scope, block.first)
            if not page.wanted(block.first_us, block.last_us):
                page.basis.events += block.count  # none of them was then
                continue
            try:
                entries = decode(self._vault.open(scope, BLOCK, block.sealed))
            except Corrupt:
                continue
            found = [Seen(n, each.timestamp_us, self._facts(each)) for n, each in enumerate(entries, block.first)]
            page.give(scope, None, found)

    def _facts(self, entry: Entry) -> Facts:
        return session_facts.facts_of(entry, self._keys_of(entry.kind))

    # ---- summaries

    def _scope(self, page: _Page, scope: str, number: int, newest: int, look: Look) -> None:
        """From that number on: summaries, and events where there are none. `basis` lacks what cannot be read."""
        if self._is_amid(scope, number):
            raise FailedPrecondition("summaries were joined meanwhile: ask again", reason=MOVED)
        at = number
        for _, value in sound(self._store.scan, SUMMARIES, summary_key(scope, number), prefix=scope.encode()):
            row = state_pb2.SummaryRow.FromString(value)
            if row.first > at:
                look(page, scope, at, row.first - 1)
            page.step(scope, row.first)
            at = row.last + 1
            if page.wanted(row.oldest_us, row.newest_us):
                self._one(page, scope, row)
            else:
                page.basis.summarised += row.count
        look(page, scope, at, newest)

    def _is_amid(self, scope: str, number: int) -> bool:
        """Whether a summary has that number, and others before it."""
        rows = self._store.scan(SUMMARIES, prefix=scope.encode(), end=summary_key(scope, number), reverse=True)
        try:
            before = next(rows, None)
        except Corrupt:
            return False
        return before is not None and state_pb2.SummaryRow.FromString(before[1]).last >= number

    def _one(self, page: _Page, scope: str, row: state_pb2.SummaryRow) -> None:
        try:
            summary = opened(self._vault, scope, row)
        except Corrupt:
            summary = None
        if summary is not None and page.question.of_summary(scope, row, summary):
            page.basis.summarised += row.count
            return
        events = self._events_of(scope, row)
        if events is not None:
            page.give(scope, row, events)
        elif summary is not None:
            page.basis.summarised += row.count
            page.question.without(scope, row, summary)

    def _events_of(self, scope: str, row: state_pb2.SummaryRow) -> list[Seen] | None:
        """All of them; None where some are gone, cannot be read, or are more than are looked at."""
        if row.count > READ_MAX:
            return None
        try:
            if scope == JOURNAL:
                found = [*self._journal_events(self._store.events(row.first - 1), row.last)]
            else:
                found = [*self._session_events(scope, row.first, row.last)]
        except Corrupt:
            return None
        return found if len(found) == row.count == row.last - row.first + 1 else None

    def _session_events(self, scope: str, first: int, last: int) -> Iterator[Seen]:
        for part in self._reading.after(scope, first - 1):
            for number, entry in part.events:
                if number > last:
                    return
                yield Seen(number, entry.timestamp_us, self._facts(entry))
