"""The log as the write-ahead log of slots (as in ARIES: the log first, pages when there is time).

Whatever counts in a slot stands in blocks, this node's own words too, and a block is a row in the batch of the step
that takes it in or makes it. So where a step changes many slots their rows can wait: most of them will have ended
before they are written, and then they never are. The row AHEAD_KEY says up to which position of the log all is in rows;
what stands behind it is counted again after a restart. To count a thing twice changes nothing, and what has ended since
is passed over, for accounts are written in every step.

Not all of a slot follows from votes, confirms and transactions: what is torn, disputed or from an epoch that is over is
written at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import Item, decode_item
from offgrid_node.protocol.ledger.marking import Marking, spelled
from offgrid_node.protocol.ledger.records import Header
from offgrid_node.protocol.ledger.slots import Slots
from offgrid_node.protocol.ledger.tables import AHEAD_KEY, LOG, META, number_key, number_of

AT_ONCE_MAX = 8  # slots: so few are written in the step that changes them, so what is shown is what is known
WAIT_MS = 1_000  # what is shown is never older
BLOCKS_MAX = 64  # behind what the rows say: at most so many are counted again


class Counts(Protocol):
    """What is asked of the witness."""

    def recount(self, items: Iterable[Item], bit: int, now: Now) -> None: ...


class Ahead:
    """Decides when slots become rows."""

    def __init__(
        self, draft: Draft, slots: Slots, chains: Chains, marking: Marking, epochs: Epochs, salt: bytes
    ) -> None:
        self._draft, self._slots, self._chains = draft, slots, chains
        self._marking, self._epochs, self._salt = marking, epochs, salt
        self._written = 0  # position of the log up to which everything is in rows
        self._due_ms: int | None = None  # when what waits is written at the latest

    def load(self, witness: Counts, now: Now) -> None:
        """Counts again what the rows of slots do not tell."""
        row = self._draft.get(META, AHEAD_KEY)
        self._written = number_of(row) if row is not None else 0
        for _, raw in self._draft.committed(LOG, number_key(self._written + 1)):
            block = ledger_pb2.Block.FromString(raw)
            bit = self._epochs.bit_of(Header.decode(block.header.body))
            items: Iterable[Item] = (decode_item(item, self._salt) for item in block.items)
            if bit:  # else what it marks says nothing
                items = spelled(items, self._marking.places_in)
            witness.recount(items, bit, now)
        if self._slots.changed:
            self._due_ms = now.mono_ms

    def deadline_ms(self) -> int | None:
        return self._due_ms

    def flush(self, now: Now) -> None:
        """The end of a step: slots become rows, or wait."""
        slots, behind = self._slots, self._chains.end - self._written
        due = self._due_ms is not None and self._due_ms <= now.mono_ms
        if not due and behind < BLOCKS_MAX and slots.changed > AT_ONCE_MAX and not slots.full:
            slots.flush_torn()
            if self._due_ms is None:
                self._due_ms = now.mono_ms + WAIT_MS
            return
        slots.flush()
        if self._due_ms is not None or behind >= BLOCKS_MAX:
            self._written, self._due_ms = self._chains.end, None
            self._draft.put_bytes(META, AHEAD_KEY, number_key(self._written))
