"""What must always hold of a node's ledger rows: nothing is made and nothing is lost.

Pure questions over committed rows, for tests, the simulator and `offgrid ledger verify` to come.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.accounts import Account, Totals
from offgrid_node.protocol.ledger.tables import ACCOUNTS, META, TOTALS_KEY


class Sums(msgspec.Struct, frozen=True):
    """In millionths."""

    balances_micro: int
    fees_micro: int
    supply_micro: int

    @property
    def conserved(self) -> bool:
        return self.balances_micro + self.fees_micro == self.supply_micro


def sums(rows: Rows) -> Sums:
    """All accounts together; zeros while the ledger is not open."""
    row = rows.get(META, TOTALS_KEY)
    totals = Totals.decode(row) if row is not None else Totals()
    balances = sum(account.balance_micro for _, account in accounts(rows))
    return Sums(balances, totals.fees_micro, totals.supply_micro)


def accounts(rows: Rows) -> Iterator[tuple[str, Account]]:
    """Every account by its node id."""
    for key, value in rows.scan(ACCOUNTS):
        yield base32(key), Account.decode(value)


def overdrawn(rows: Rows) -> list[str]:
    """Accounts below zero: allowed for a while, until the credits that the witnesses had seen are final here too."""
    return [node for node, account in accounts(rows) if account.balance_micro < 0]
