"""Slots that are not final yet: what was seen, what this node has said, and who has said what.

A slot is (account, sequence number). This node's own vote and confirm are durable before anybody sees them: in the log,
by the block that carries them, and in the slot's row, written by then or made anew from the log (ahead.py).

Of others EVERY statement counts, also of a witness that says two things. Two quorums still share an honest witness,
which says one; and what counts then depends on nothing but which blocks are known, not on their order, so nodes that
know the same blocks find the same slots final.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import msgspec

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.tables import NUMBER_BYTES, SLOTS, TALLIES, number_of, slot_key

HELD_MAX = 16_384  # slots in memory; all are in their rows
INLINE_TALLIES = 8  # in the slot's own row; liars can cause more, and those get rows of their own
_HEAD = struct.Struct(">B32s32s32sBB")
_TALLY = struct.Struct(">QQ")
NOTHING = bytes(32)
VERSION = 1


class Tally(msgspec.Struct):
    """Masks of witnesses, for one transaction."""

    voted: int = 0
    confirmed: int = 0

    def encode(self) -> bytes:
        return _TALLY.pack(self.voted, self.confirmed)

    @classmethod
    def decode(cls, row: bytes) -> Tally:
        return cls(*_TALLY.unpack(row))


class Slot(msgspec.Struct):
    """`first` is the transaction seen first, the only one that this node may vote for; `voted` and `confirmed` are this
    node's own statements at ballot 0. `doubled`: a second transaction was seen. `disputed`: something was said of it at
    a higher ballot, or its owner wants it to end (disputes.py). `aside`: something cannot be counted yet (aside.py).
    `carried`: its transactions are from an epoch that is over; whoever begins there now has not got their blocks."""

    account: bytes
    seq: int
    first: bytes = NOTHING
    voted: bytes = NOTHING
    confirmed: bytes = NOTHING
    doubled: bool = False
    disputed: bool = False
    aside: bool = False
    carried: bool = False
    stored: bool = False  # whether it has a row
    tallies: dict[bytes, Tally] = msgspec.field(default_factory=dict)

    @property
    def key(self) -> bytes:
        return slot_key(self.account, self.seq)

    def tally(self, tx_digest: bytes) -> Tally:
        tally = self.tallies.get(tx_digest)
        if tally is None:
            tally = self.tallies[tx_digest] = Tally()
        return tally

    def bind(self, tx_digest: bytes, *, confirms: bool) -> None:
        """This node has said so, and said nothing else before as far as it knows."""
        if confirms and self.confirmed == NOTHING:
            self.confirmed = tx_digest
        elif not confirms and self.voted == NOTHING:
            self.voted = tx_digest

    def encode(self) -> bytes:
        inline = [*self.tallies.items()][:INLINE_TALLIES]
        flags = (
            (self.carried << 4)
            | (self.aside << 3)
            | (self.disputed << 2)
            | ((len(self.tallies) > INLINE_TALLIES) << 1)
            | self.doubled
        )
        parts = [_HEAD.pack(VERSION, self.first, self.voted, self.confirmed, flags, len(inline))]
        for digest, tally in inline:
            parts += digest, tally.encode()
        return b"".join(parts)

    @classmethod
    def decode(cls, key: bytes, row: bytes) -> tuple[Slot, bool]:
        """The slot, and whether it has tallies in rows of their own."""
        _, first, voted, confirmed, flags, count = _HEAD.unpack_from(row)
        doubled, disputed, aside, carried = (bool(flags & bit) for bit in (1, 4, 8, 16))
        account, seq = key[:-NUMBER_BYTES], number_of(key)
        slot = cls(account, seq, first, voted, confirmed, doubled, disputed, aside, carried, stored=True)
        for index in range(count):
            at = _HEAD.size + index * (32 + _TALLY.size)
            slot.tallies[row[at : at + 32]] = Tally.decode(row[at + 32 : at + 32 + _TALLY.size])
        return slot, bool(flags & 2)


class Slots:
    """Rows read when they are asked for, written at the end of a step or of a later one, deleted when the slot is
    final. How many there are is known: as long as all of them are held, none is looked for in vain."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._held: dict[tuple[bytes, int], Slot] = {}
        self._stored = self._stored_held = 0  # slots with a row, and those of them that are in memory
        self._changed: dict[tuple[bytes, int], Slot] = {}  # since they were written
        self._spilled: dict[bytes, set[bytes]] = {}  # tallies changed, of those that have rows of their own

    @property
    def changed(self) -> int:
        """How many are not in their rows as they are now."""
        return len(self._changed)

    @property
    def full(self) -> bool:
        """Whether memory is to be trimmed, once all are in their rows."""
        return len(self._held) > HELD_MAX

    def load(self) -> list[bytes]:
        """The accounts of open slots."""
        accounts = [key[:-NUMBER_BYTES] for key, _ in self._draft.committed(SLOTS, b"")]
        self._stored = len(accounts)
        return accounts

    def accounts(self) -> list[bytes]:
        """Those of open slots, of which this step may know more."""
        committed = (key[:-NUMBER_BYTES] for key, _ in self._draft.committed(SLOTS, b""))
        return [*(account for account, _ in self._held), *committed]

    def get(self, account: bytes, seq: int) -> Slot | None:
        slot = self._held.get((account, seq))
        return slot if slot is not None or self._stored == self._stored_held else self._read(account, seq)

    def make(self, account: bytes, seq: int) -> Slot:
        """The slot to change, which is then to be written."""
        slot = self.get(account, seq)
        if slot is None:
            slot = self._held[account, seq] = Slot(account, seq)
        self._changed[account, seq] = slot
        return slot

    def change(self, slot: Slot) -> None:
        """It is to be written."""
        self._changed[slot.account, slot.seq] = slot

    def _read(self, account: bytes, seq: int) -> Slot | None:
        key = slot_key(account, seq)
        row = self._draft.get(SLOTS, key)
        if row is None:
            return None
        slot, spilled = Slot.decode(key, row)
        if spilled:
            for tally_key, value in self._draft.committed(TALLIES, b"", prefix=key):
                slot.tallies.setdefault(tally_key[len(key) :], Tally.decode(value))
        self._held[account, seq] = slot
        self._stored_held += 1
        return slot

    def state(self, slot: Slot, tx_digest: bytes, bit: int, *, confirms: bool) -> bool:
        """Counts one statement; False when it was counted before."""
        tally = slot.tally(tx_digest)
        before = tally.confirmed if confirms else tally.voted
        if before & bit:
            return False
        if confirms:
            tally.confirmed |= bit
        else:
            tally.voted |= bit
        self._spill(slot, tx_digest)
        return True

    def name(self, slot: Slot, tx_digest: bytes) -> None:
        """A transaction of that slot beside the first: it ends with the slot, though nobody votes for it."""
        slot.tally(tx_digest)
        self._spill(slot, tx_digest)

    def open_ones(self) -> list[Slot]:
        """All that are not final."""
        keys = dict.fromkeys(key for key, _ in self._draft.committed(SLOTS, b""))
        keys.update(dict.fromkeys(slot.key for slot in self._held.values()))
        found = (self.get(key[:-NUMBER_BYTES], number_of(key)) for key in keys)
        return [slot for slot in found if slot is not None]

    def renew(self, slot: Slot, named: Iterable[bytes]) -> None:
        """Forgets what was said there: of these transactions, which are here, the slot still knows."""
        for digest in [*slot.tallies][INLINE_TALLIES:]:
            self._draft.delete(TALLIES, slot.key + digest)
        self._spilled.pop(slot.key, None)
        slot.voted = slot.confirmed = NOTHING
        slot.tallies.clear()
        slot.carried = True
        self._changed[slot.account, slot.seq] = slot
        for digest in named:
            self.name(slot, digest)

    def close(self, slot: Slot) -> None:
        """It is final: its rows go."""
        place, key = (slot.account, slot.seq), slot.key
        self._held.pop(place, None)
        self._changed.pop(place, None)
        self._spilled.pop(key, None)
        if slot.stored:
            self._stored -= 1
            self._stored_held -= 1
            self._draft.delete(SLOTS, key)
        for digest in [*slot.tallies][INLINE_TALLIES:]:
            self._draft.delete(TALLIES, key + digest)

    def flush(self) -> None:
        """What has changed becomes rows."""
        for slot in self._changed.values():
            self._write(slot)
        self._changed.clear()

    def flush_torn(self) -> None:
        """Those alone become rows of which more is known than the log's blocks say at ballot 0."""
        torn = [slot for slot in self._changed.values() if slot.doubled or slot.disputed or slot.carried]
        for slot in torn:
            self._write(slot)
            del self._changed[slot.account, slot.seq]

    def trim(self) -> None:
        """At a new instant: all that was written is committed."""
        if self.full and not self._changed:
            self._held.clear()
            self._stored_held = 0

    def _write(self, slot: Slot) -> None:
        key = slot.key
        if not slot.stored:
            slot.stored = True
            self._stored += 1
            self._stored_held += 1
        self._draft.put_bytes(SLOTS, key, slot.encode())
        spilled = self._spilled.pop(key, None)
        if spilled:
            own_rows = {*[*slot.tallies][INLINE_TALLIES:]}
            for digest in sorted(spilled & own_rows):
                self._draft.put_bytes(TALLIES, key + digest, slot.tallies[digest].encode())

    def _spill(self, slot: Slot, tx_digest: bytes) -> None:
        if len(slot.tallies) > INLINE_TALLIES:
            self._spilled.setdefault(slot.key, set()).add(tx_digest)
