"""What is signed and not final yet, and how much of what is coming in counts as accepted.

While no quorum can be reached a payee has nothing but the payer's signature, and a payer may sign another transaction
in its place. A credit line says how much of one payer's word the owner of this node takes for money before it is final:
what that owner is ready to lose. What is within it is shown apart from final money and is never spent as such. A
transaction counts whole or not at all, in the order in which they came; one that shows a second one in its slot, or
whose owner asks for the slot's end, counts no more.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import islice
from typing import Protocol

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.records import Tx
from offgrid_node.protocol.ledger.slots import NOTHING, Slot
from offgrid_node.protocol.ledger.tables import ACCOUNTS, CREDIT_LINES, SLOTS, TXS

PENDING_MAX = 10_000  # slots looked through
AMOUNT_BYTES = 8


class Scanner(Protocol):
    """Committed rows, by key and in their order."""

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def scan(self, table: str, start: bytes = b"", *, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...


class Pending(msgspec.Struct, frozen=True):
    """A transaction that stands first in a slot that is not final."""

    slot: Slot
    tx: Tx
    created_us: int

    @property
    def payer(self) -> bytes:
        """Who signed it: of the node's own account, of a lane, or of a hold."""
        return self.tx.source.signer

    def to(self, accounts: Container[bytes]) -> int:
        return sum(amount for payee, amount in self.tx.outputs if payee in accounts)


def pending(rows: Scanner, start: bytes = b"") -> Iterator[Pending]:
    """By account and number, of the first PENDING_MAX slots from `start` on."""
    for key, row in islice(rows.scan(SLOTS, start), PENDING_MAX):
        slot, _ = Slot.decode(key, row)
        held = rows.get(TXS, slot.first) if slot.first != NOTHING else None
        if held is not None:
            known = ledger_pb2.TxRow.FromString(held)
            yield Pending(slot, Tx.decode(known.signed.body), known.created_us)


def credit_line(rows: Scanner, payer: bytes) -> int:
    row = rows.get(CREDIT_LINES, payer)
    return int.from_bytes(row, "big") if row is not None else 0


def credit_lines(rows: Scanner) -> Iterator[tuple[bytes, int]]:
    """Payer and amount."""
    return ((payer, int.from_bytes(row, "big")) for payer, row in rows.scan(CREDIT_LINES))


def accepted(rows: Scanner, own: Container[bytes]) -> list[Pending]:
    """What counts as accepted, of what pays these accounts of this node's."""
    left = dict(credit_lines(rows))
    found: list[Pending] = []
    if not left:
        return found
    coming = [one for one in pending(rows) if one.payer in left and one.to(own) and _holds(rows, one)]
    for one in sorted(coming, key=lambda one: (one.created_us, one.slot.key)):
        amount = one.to(own)
        if amount <= left[one.payer]:
            left[one.payer] -= amount
            found.append(one)
    return found


def _holds(rows: Scanner, one: Pending) -> bool:
    """Whether nothing that is known here keeps it from becoming final: it is its account's next, and covered."""
    row = rows.get(ACCOUNTS, one.tx.src)
    if row is None or one.slot.doubled or one.slot.disputed:
        return False
    account = Account.decode(row)
    at_end = (one.tx.seq, one.tx.prev) == (account.next_seq, account.head)
    return at_end and account.balance_micro >= one.tx.total_micro
