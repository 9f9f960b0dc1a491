"""A session's events, block by block, opened. What is missing or damaged is named; nothing is given in its place. Those
that retention has dropped, always the oldest, are no longer there and not missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.state.sessions.blocks import BLOCK, Entry, decode
from offgrid_node.protocol.state.sessions.machine import shredded
from offgrid_node.protocol.state.sessions.tables import BLOCKS, SESSIONS, block_key
from offgrid_node.protocol.state.tables import NUMBER_BYTES, number_of
from offgrid_node.services.sessions.vault import Vault
from offgrid_node.storage.store import Store

PASSED_PART = 4  # a byte that is read and not opened takes so many times less

Numbered = tuple[int, Entry]


class Part(NamedTuple):
    """Of one block what was asked for. `looked`: the last number that was looked at, in the order of the walk; `bytes`:
    what that cost, as the bytes that are opened in that time."""

    events: list[Numbered]
    looked: int
    bytes: int


def every(block: state_pb2.BlockRow) -> bool:
    return True


class Reading:
    """Over committed rows. Raises Corrupt where a block is damaged or missing, FailedPrecondition (SessionShredded)."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store, self._vault = store, vault

    def gone(self, session_id: str) -> int:
        """The number of its newest event that is kept no more; 0: all are."""
        return self._span(session_id)[0]

    def after(
        self, session_id: str, number: int, wants: Callable[[state_pb2.BlockRow], bool] = every
    ) -> Iterator[Part]:
        """What is kept behind that number. A block that nobody `wants` is not opened."""
        gone, recorded = self._span(session_id)
        prefix, following = session_id.encode(), max(number, gone) + 1
        start, _ = next(iter(self._before(session_id, following)), (block_key(session_id, 0), b""))
        for key, value in self._store.scan(BLOCKS, start, prefix=prefix):
            block = _block(session_id, key, value)
            last = block.first + block.count - 1
            if last < following:
                continue
            if block.first > following:
                raise _missing(session_id, following, block.first - 1)
            events = self._opened(session_id, block) if wants(block) else []
            yield Part([each for each in events if each[0] >= following], last, _cost(block, events))
            following = last + 1
        if self.gone(session_id) < following <= recorded:
            raise _missing(session_id, following, recorded)

    def before(
        self, session_id: str, number: int, wants: Callable[[state_pb2.BlockRow], bool] = every
    ) -> Iterator[Part]:
        """What comes before that number, the newest first."""
        wanted, gone = number - 1, self.gone(session_id)
        for key, value in self._before(session_id, wanted) if wanted > gone else ():
            block = _block(session_id, key, value)
            last = block.first + block.count - 1
            if last < wanted:
                raise _missing(session_id, last + 1, wanted)
            events = self._opened(session_id, block) if wants(block) else []
            found = [each for each in reversed(events) if each[0] <= wanted]
            yield Part(found, block.first, _cost(block, events))
            wanted = block.first - 1
            if wanted <= gone:
                return
        if wanted > gone:
            raise _missing(session_id, gone + 1, wanted)

    def number_at(self, session_id: str, recorded: int, at_us: int) -> int:
        """Of the newest event that this node had at that time, or of the newest that is kept no more. Blocks' times
        rise, so it is sought between."""
        low, high = self.gone(session_id), recorded  # what is asked for lies between them
        while low < high:
            middle = (low + high) // 2 + 1
            key, value = next(iter(self._before(session_id, middle)), (b"", b""))
            if not key:
                raise _missing(session_id, low + 1, middle)
            block = _block(session_id, key, value)
            last = block.first + block.count - 1
            if last < middle:
                raise _missing(session_id, last + 1, middle)
            if block.had_us <= at_us:
                low = last
            else:
                high = block.first - 1
        return low

    # ---- inside

    def _span(self, session_id: str) -> tuple[int, int]:
        """The numbers of its newest event that is kept no more, and of its newest."""
        row = self._store.get(SESSIONS, session_id.encode())
        session = state_pb2.SessionRow.FromString(row or b"").session
        if session.purged_us:
            raise shredded(session_id)
        return session.recorded - session.kept, session.recorded

    def _before(self, session_id: str, number: int) -> Iterator[tuple[bytes, bytes]]:
        """Rows of blocks that begin before or with that number, the newest first."""
        prefix = session_id.encode()
        return self._store.scan(BLOCKS, prefix=prefix, end=block_key(session_id, number + 1), reverse=True)

    def _opened(self, session_id: str, block: state_pb2.BlockRow) -> list[Numbered]:
        try:
            entries = decode(self._vault.open(session_id, BLOCK, block.sealed))
            if len(entries) != block.count:
                raise Corrupt(f"it holds {len(entries)} events", reason="BlockDamaged")
        except Corrupt as fault:
            text = f"session {session_id}, events {block.first} to {block.first + block.count - 1}: {fault.message}"
            metadata = {"session_id": session_id, "first": str(block.first)}
            raise Corrupt(text, reason=fault.reason, metadata=metadata) from fault
        return [*enumerate(entries, block.first)]


def _cost(block: state_pb2.BlockRow, events: list[Numbered]) -> int:
    return len(block.sealed) // (1 if events else PASSED_PART)


def _block(session_id: str, key: bytes, value: bytes) -> state_pb2.BlockRow:
    block, first = state_pb2.BlockRow.FromString(value), number_of(key[-NUMBER_BYTES:])
    if block.first != first or not block.count:
        text = f"session {session_id}: the block at event {first} says that it begins at event {block.first}"
        raise Corrupt(text, reason="BlockDamaged", metadata={"session_id": session_id, "first": str(first)})
    return block


def _missing(session_id: str, first: int, last: int) -> Corrupt:
    text = f"session {session_id}: events {first} to {last} are missing"
    return Corrupt(text, reason="EventsMissing", metadata={"session_id": session_id, "first": str(first)})
