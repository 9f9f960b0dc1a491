"""Transactions that people make, sign and send in steps, the signature wherever the key is.

Two signed transactions for one slot would tear it: it ends at higher ballots, and its owner is shown to all as one who
signs twice. So there is one way to sign for an account, and it is asked who else could have:

- The account's node is up: it alone knows what its wallet has signed, so it signs, and other nodes send its money
  nowhere. What it signs by hand has the slot until that ends, sent or not.
- Its node is down: whoever has the key signs, and any node sends. What is made by hand says so (records.BY_HAND), so
  the account's node takes it for its own when it meets it, and does not think that it was restored from a backup.
"""

from __future__ import annotations

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.commands import SendTransaction, SignTransaction
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.records import BY_HAND, Tx, tx_id_of
from offgrid_node.protocol.ledger.refusals import too_little, wrong_amount
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.transactions import Transactions
from offgrid_node.protocol.ledger.wallet import Wallet
from offgrid_node.protocol.ledger.witness import Witness


class ByHand:
    """Beside the wallet, over its lanes."""

    def __init__(
        self,
        settings: LedgerSettings,
        accounts: Accounts,
        transactions: Transactions,
        witness: Witness,
        wallet: Wallet,
        keys: Keys,
    ) -> None:
        self._settings, self._accounts, self._transactions = settings, accounts, transactions
        self._witness, self._wallet, self._lanes, self._keys = witness, wallet, wallet.lanes, keys

    def on_sign(self, command: SignTransaction, now: Now) -> TxItem:
        """Raises the faults that commands.SignTransaction names."""
        self._wallet.check_free()
        tx = command.tx
        if tx.src not in self._lanes or tx.source.signer != self._settings.account:
            raise InvalidRequest.field("body", f"it takes from {base32(tx.src)}, which is no account of this node's")
        flying = self._lanes.in_flight(tx.src) or self._witness.standing(tx.src) or b""
        if flying == tx.digest(self._settings.salt):
            known = self._transactions.get(flying)
            assert known is not None, "what is in flight is here"
            return known.item
        self._check_by_hand(tx)
        self._check_slot_free(tx.src, flying)
        if tx.total_micro > (free := self._wallet.spendable(tx.src)):
            raise too_little(tx.total_micro, free)
        return self._lanes.sign(tx, now)

    def on_send(self, command: SendTransaction, now: Now) -> None:
        """Raises the faults that commands.SendTransaction names."""
        self._wallet.check_free()
        item, tx = command.item, command.item.tx
        known = self._transactions.get(item.digest)
        if known is not None and (known.row.state != ledger_pb2.TX_STATE_SIGNED or self._witness.names(item)):
            return
        self._check_by_hand(tx)
        if tx.src in self._lanes and tx.source.signer == self._settings.account:
            if (flying := self._lanes.in_flight(tx.src)) != item.digest:
                self._check_slot_free(tx.src, flying)
        elif command.owner_is_up:
            raise FailedPrecondition(
                f"{base32(tx.source.signer)} is up and may have signed another one for this slot: send it there",
                reason="OwnerIsUp",
            )
        standing = self._witness.standing(tx.src)
        if standing not in (None, item.digest):
            raise _taken(tx.src, standing)
        if tx.total_micro > (balance := self._accounts.get(tx.src).balance_micro):
            raise too_little(tx.total_micro, balance)
        if known is None:
            self._transactions.add(item, now)
        if tx.src in self._lanes:
            self._lanes.fly(tx.src, item.digest)
        self._lanes.send(item, now)

    def _check_slot_free(self, account: bytes, flying: bytes) -> None:
        if flying:
            raise _taken(account, flying)
        if waiting := self._wallet.waiting(account):
            raise FailedPrecondition(
                f"{waiting} transfers wait for the next slots of {base32(account)}; once they are final, make it anew",
                reason="SlotTaken",
            )

    def _check_by_hand(self, tx: Tx) -> None:
        """What may be signed, and taken in, of any account: it is made by hand, for its next slot, and pays the fee."""
        account = self._accounts.get(tx.src)
        if tx.request != BY_HAND:
            raise FailedPrecondition(
                "it was not made by hand, so its node's wallet makes and sends it: offgrid transfer", reason="NotByHand"
            )
        if (tx.seq, tx.prev) != (account.next_seq, account.head):
            over = f"its number is {tx.seq}, the next of {base32(tx.src)} is {account.next_seq}"
            raise FailedPrecondition(f"{over} as this node knows it: make it anew, offgrid tx create", reason="NotNext")
        if not self._keys.in_force(tx.source):
            raise FailedPrecondition(
                f"it is for another key of {base32(tx.source.signer)} than the one of now; make it anew: offgrid tx "
                "create",
                reason="OldKey",
            )
        if tx.fee_micro < self._wallet.fee_micro:
            allowed = f"{tx.fee_micro}; this ledger takes no less than {self._wallet.fee_micro}"
            raise wrong_amount(
                "fee_micro", allowed, "FeeTooLow", fee_micro=tx.fee_micro, least_micro=self._wallet.fee_micro
            )


def _taken(account: bytes, digest: bytes) -> FailedPrecondition:
    """Two signed transactions for one slot would tear it."""
    return FailedPrecondition(
        f"transaction {tx_id_of(digest)} stands in the next slot of {base32(account)} and has not ended; "
        "once it has, make this one anew",
        reason="SlotTaken",
        metadata={"tx_id": tx_id_of(digest)},
    )
