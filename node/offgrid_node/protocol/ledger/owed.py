"""What this node owes and no hold covers yet: a row each, by payee and in the order of booking.

The oldest of each payee are in memory, apart from those of others: one who cannot be paid now, however much it is owed,
keeps nobody else from being paid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ids import NODE_ID_BYTES
from offgrid_node.protocol.ledger.tables import OWED, number_key, number_of

WINDOW_MAX = 256  # bookings of one payee in memory, the oldest first; all are in their rows
_DIGEST_BYTES, _AMOUNT_BYTES = 32, 8


class Owed(msgspec.Struct, frozen=True):
    """One booking that no hold covers yet; in its hold's rows it stands in the same form."""

    number: int
    job_id: str
    payee: bytes
    amount_micro: int
    digest: bytes

    @property
    def key(self) -> bytes:
        return self.payee + number_key(self.number)

    def encode(self) -> bytes:
        return self.digest + self.amount_micro.to_bytes(_AMOUNT_BYTES, "big") + self.payee + self.job_id.encode()

    @classmethod
    def decode(cls, number: int, row: bytes) -> Owed:
        amount_at, payee_at = _DIGEST_BYTES, _DIGEST_BYTES + _AMOUNT_BYTES
        job_at = payee_at + NODE_ID_BYTES
        amount = int.from_bytes(row[amount_at:payee_at], "big")
        return cls(number, row[job_at:].decode(), row[payee_at:job_at], amount, row[:amount_at])


class _Line(msgspec.Struct):
    """What one payee is owed. All up to the number `held` are in the window, and of what comes behind only what is owed
    again; `last` is the highest number."""

    window: dict[int, Owed] = msgspec.field(default_factory=dict)
    micro: int = 0
    held: int = 0
    last: int = 0


class OwedLines:
    """A line for each payee that is owed anything."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._lines: dict[bytes, _Line] = {}
        self.micro = 0

    def load(self) -> None:
        for key, row in self._draft.committed(OWED, b""):
            self._count(Owed.decode(number_of(key), row))

    # ---- questions

    def payees(self) -> list[bytes]:
        return [*self._lines]

    def window(self, payee: bytes) -> list[Owed]:
        """The oldest of a payee's."""
        line = self._lines.get(payee)
        return [*line.window.values()] if line is not None else []

    def oldest(self, payee: bytes) -> Iterator[Owed]:
        """All of a payee's; what has come in this batch, and is in no window, may be left out."""
        line = self._lines.get(payee)
        if line is None:
            return
        yield from line.window.values()
        yield from (owed for owed in self._behind(payee, line.held) if owed.number not in line.window)

    def by_payee(self) -> dict[bytes, tuple[int, int]]:
        """Payee → all that it is owed, and the least of its oldest bookings; who waits longest comes first."""
        lines = [(next(iter(line.window)), payee, line) for payee, line in self._lines.items() if line.window]
        return {
            payee: (line.micro, min(each.amount_micro for each in line.window.values()))
            for _, payee, line in sorted(lines, key=lambda each: each[0])
        }

    # ---- changes

    def add(self, owed: Owed) -> None:
        """A new one: its number is the highest."""
        self._draft.put_bytes(OWED, owed.key, owed.encode())
        self._count(owed)

    def add_again(self, payee: bytes, again: Sequence[Owed]) -> None:
        """What was promised to a payee comes back, in its old place."""
        line = self._lines.setdefault(payee, _Line())
        for owed in again:
            self._draft.put_bytes(OWED, owed.key, owed.encode())
            line.window[owed.number] = owed
            self._add_up(line, owed.amount_micro)
        line.window = dict(sorted(line.window.items()))

    def clear(self, owed: Owed) -> None:
        """A hold covers it now."""
        line = self._lines[owed.payee]
        self._draft.delete(OWED, owed.key)
        line.window.pop(owed.number, None)
        self._add_up(line, -owed.amount_micro)
        if not line.micro:
            del self._lines[owed.payee]

    def refill(self, payee: bytes) -> bool:
        """Whether an empty window has got the payee's next ones."""
        line = self._lines.get(payee)
        if line is None or line.window or line.held == line.last:
            return False
        for owed in self._behind(payee, line.held):
            if len(line.window) == WINDOW_MAX:
                break
            line.window[owed.number] = owed
            line.held = owed.number
        return bool(line.window)

    # ---- inside

    def _count(self, owed: Owed) -> None:
        """Behind a full window all else is read when its turn comes."""
        line = self._lines.setdefault(owed.payee, _Line())
        if line.held == line.last and len(line.window) < WINDOW_MAX:
            line.window[owed.number] = owed
            line.held = owed.number
        line.last = owed.number
        self._add_up(line, owed.amount_micro)

    def _behind(self, payee: bytes, number: int) -> Iterator[Owed]:
        for key, row in self._draft.committed(OWED, payee + number_key(number + 1), prefix=payee):
            if self._draft.get(OWED, key) is not None:  # promised in this batch else
                yield Owed.decode(number_of(key), row)

    def _add_up(self, line: _Line, micro: int) -> None:
        line.micro += micro
        self.micro += micro
