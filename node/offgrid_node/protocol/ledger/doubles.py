"""Two transactions of one owner for one slot: the second changes nothing, but all should know."""

from __future__ import annotations

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import TxItem, double_of
from offgrid_node.protocol.ledger.slots import Slot
from offgrid_node.protocol.ledger.tables import EVIDENCE
from offgrid_node.protocol.ledger.transactions import Transactions
from offgrid_node.protocol.ledger.voice import Voice


class Doubles:
    """Keeps the evidence, and says it where this node is a witness."""

    def __init__(self, draft: Draft, epochs: Epochs, transactions: Transactions, voice: Voice) -> None:
        self._draft, self._epochs, self._transactions, self._voice = draft, epochs, transactions, voice

    def on_double(self, slot: Slot, item: TxItem, *, told: bool) -> None:
        """Where two parties end one hold, or one whose key was replaced signs anew, nobody has lied: that only has to
        end."""
        slot.doubled = True
        first = self._transactions.get(slot.first)
        if first is None:
            return
        evidence = double_of(first.item, item)
        signer, said = item.tx.source.signer, first.item.tx.source
        if (said.signer, said.key) == (signer, item.tx.source.key):
            self._draft.put_bytes(EVIDENCE, slot.account, evidence.encode())
            self._voice.accuse(signer, f"{base32(signer)} signed two transactions for its slot {slot.seq}")
        if self._epochs.own_bit and self._voice.free and not told:
            self._voice.say(evidence)
