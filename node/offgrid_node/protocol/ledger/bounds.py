"""What is kept of others, and which of their blocks are taken in.

A block that speaks of an account without money, or of a slot SEQ_AHEAD_MAX or more beyond the next, is not taken in
yet: an honest author has the money and the slots before final, from blocks that it passes on as well, so its blocks are
in reach once these are here; a liar's never are, anywhere. Of the slot in which an epoch's end is agreed on the ballot
is bounded (recovery.py). And of one witness DIGESTS_MAX digests are kept in a slot, besides those of its transactions
that are here; more are put aside until their transaction is here (aside.py). What is left to rates, not bounded here:
an owner with money may sign many transactions for the slots in reach, and each is kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.ballots import Ballots
from offgrid_node.protocol.ledger.cut_slot import CutSlot
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import Double, Item, Report, Statement, TxItem, Unlock

SEQ_AHEAD_MAX = 128  # slots of one account, beginning with its next


class Bounds:
    def __init__(self, accounts: Accounts, epochs: Epochs, cut: CutSlot, ballots: Ballots) -> None:
        self._accounts, self._epochs, self._cut, self._ballots = accounts, epochs, cut, ballots

    def within_reach(self, items: Iterable[Item], bit: int) -> bool:
        """Whether a block with these, by the witness with this bit, is one to take in now."""
        for item in items:
            ballot = 0
            if isinstance(item, Statement) or isinstance(item, Report):  # noqa: SIM101 - a union takes twice as long
                if not bit:
                    continue
                name, seq, ballot = item.account, item.seq, item.ballot
                if ballot and name == self._epochs.cut:
                    if not self._cut.within_reach(seq, ballot):
                        return False
                    continue
            elif isinstance(item, TxItem):
                name, seq = item.tx.src, item.tx.seq
            elif isinstance(item, Double):
                name, seq = item.first.tx.src, item.first.tx.seq
            elif isinstance(item, Unlock):
                name, seq = item.account, item.seq
            else:
                continue
            account = self._accounts.get(name)
            if seq >= account.next_seq + SEQ_AHEAD_MAX or account.untouched:
                return False
            if ballot and seq >= account.next_seq and not self._ballots.within_reach(name, seq, ballot):
                return False
        return True
