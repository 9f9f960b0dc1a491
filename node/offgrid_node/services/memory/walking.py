"""Summarises what has happened since the newest summary, in the order of the journal.

The journal's own events are summarised together with what applications recorded in between: it names each block of
theirs. What a session said is summarised apart, and sealed under the session's key: whoever drops that key has shredded
this as well. What cannot be opened, because it is damaged or its key is gone, is passed over; the rest is not held up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition
from offgrid_node.protocol.state.sessions.blocks import BLOCK, decode
from offgrid_node.protocol.state.sessions.tables import BLOCKS, block_key
from offgrid_node.protocol.state.summaries import journal_facts, session_facts
from offgrid_node.protocol.state.summaries.commands import KeepWindow, Placed
from offgrid_node.protocol.state.summaries.summary import Gathering, Summary, encode
from offgrid_node.protocol.state.summaries.tables import JOURNAL, bound_as, summarised_upto
from offgrid_node.protocol.state.summaries.windows import Window, window_at
from offgrid_node.services.sessions.vault import Vault
from offgrid_node.storage.store import Store

PORTION_EVENTS = 200  # of the journal and of sessions, at a go: some 2 ms; between two the loop has its turn
WINDOW_EVENTS = 16_384  # then a second summary of that window begins; likewise
WINDOW_KEYS = 16_384  # of the journal and of each session

KeysOf = Callable[[str], Sequence[str]]
"""Which properties of a kind are keys."""


class _Scope(msgspec.Struct):
    """What is gathered of the journal, or of a session; `first` and `last` are numbers of events."""

    gathering: Gathering
    first: int
    last: int = 0


class Walk:
    """Over what is committed as it begins, in portions. In memory it holds one window, in clear. `now_us`: what is
    under way then stays for later; None: nothing does."""

    def __init__(self, store: Store, vault: Vault, keys_of: KeysOf, length_us: int, now_us: int | None) -> None:
        self._store, self._vault, self._keys_of = store, vault, keys_of
        self._length_us, self._now_us, self._end = length_us, now_us, store.journal_seq
        self.passed_over = 0  # blocks
        self._begin(summarised_upto(store))

    def _begin(self, after: int) -> None:
        self._after = self._at = after
        self._window: Window | None = None
        self._scopes: dict[str, _Scope] = {}
        self._count = self._keys = 0

    def portion(self) -> KeepWindow | bool:
        """The summaries of a window that is over; else whether there is more. Raises Corrupt where the journal is
        damaged."""
        looked = 0
        for seq, raw in self._store.events(self._at):
            if seq > self._end:
                break
            if looked >= PORTION_EVENTS:
                return True
            event = state_pb2.Event.FromString(raw)
            if self._window is not None and (self._is_full or not self._window.takes(event.timestamp_us)):
                return self._close(self._window)
            self._window = self._window or window_at(event.timestamp_us, self._length_us)
            before = self._count
            self._take(seq, event)
            self._at = seq
            looked += self._count - before
        if self._window is not None and (self._now_us is None or not self._window.takes(self._now_us)):
            return self._close(self._window)
        return False

    @property
    def _is_full(self) -> bool:
        return self._count >= WINDOW_EVENTS or self._keys >= WINDOW_KEYS

    def _take(self, seq: int, event: state_pb2.Event) -> None:
        gathering = self._gathering(JOURNAL, seq, seq)
        before = gathering.keys
        gathering.add(seq, event.timestamp_us, journal_facts.facts_of(event))
        self._count, self._keys = self._count + 1, self._keys + gathering.keys - before
        if event.HasField("block"):
            self._take_block(event.block)

    def _take_block(self, block: state_pb2.BlockEvent) -> None:
        session_id = block.session_id
        try:
            row = self._store.get(BLOCKS, block_key(session_id, block.first))
            if row is None:
                return  # shredded
            entries = decode(self._vault.open(session_id, BLOCK, state_pb2.BlockRow.FromString(row).sealed))
        except (Corrupt, FailedPrecondition):
            self.passed_over += 1
            return
        gathering = self._gathering(session_id, block.first, block.first + len(entries) - 1)
        before = gathering.keys
        for number, entry in enumerate(entries, block.first):
            gathering.add(number, entry.timestamp_us, session_facts.facts_of(entry, self._keys_of(entry.kind)))
        self._count, self._keys = self._count + len(entries), self._keys + gathering.keys - before

    def _gathering(self, scope: str, first: int, last: int) -> Gathering:
        found = self._scopes.get(scope)
        if found is None:
            assert self._window is not None
            found = self._scopes[scope] = _Scope(Gathering(f"{self._window.window_id} {scope}"), first)
        found.last = last
        return found.gathering

    def _close(self, window: Window) -> KeepWindow:
        placed = []
        for name, scope in self._scopes.items():
            row = row_of(scope.gathering.summary(), window, scope.first, scope.last)
            if name != JOURNAL:
                try:
                    row.body = self._vault.seal(name, bound_as(row.first, row.last), row.body)
                except FailedPrecondition:
                    continue  # shredded meanwhile
            placed.append(Placed(name, row))
        made = KeepWindow(self._after, self._at, tuple(placed))
        self._begin(self._at)
        return made


def row_of(summary: Summary, window: Window, first: int, last: int) -> state_pb2.SummaryRow:
    """With the body in clear."""
    return state_pb2.SummaryRow(
        first=first,
        last=last,
        count=summary.count,
        start_us=window.start_us,
        end_us=window.end_us,
        oldest_us=summary.oldest_us,
        newest_us=summary.newest_us,
        body=encode(summary),
    )
