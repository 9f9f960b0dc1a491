"""What this node signs to end a hold, as its payee or as its payer: durable before it leaves, once for a slot."""

from __future__ import annotations

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.endings import ledger_event
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.records import TX_KIND, Tx, tx_id_of
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.sources import Act, HoldSource, HoldTerms
from offgrid_node.protocol.ledger.transactions import Transactions
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.ledger.witness import Witness
from offgrid_node.protocol.signing import digest_of


class Ends:
    """Signs them; whose turn it is to do so others decide (given.py, taken.py)."""

    def __init__(
        self,
        settings: LedgerSettings,
        draft: Draft,
        accounts: Accounts,
        transactions: Transactions,
        witness: Witness,
        voice: Voice,
        keys: Keys,
    ) -> None:
        self._settings, self._draft, self._accounts, self._transactions = settings, draft, accounts, transactions
        self._witness, self._voice, self._keys = witness, voice, keys

    def is_funded(self, terms: HoldTerms) -> bool:
        """Whether what the terms say is there, by final transactions."""
        return self._accounts.get(terms.account).balance_micro >= terms.funds_micro

    def seq(self, terms: HoldTerms) -> int:
        """The hold's open slot: how many of its slots ended with nothing."""
        return self._accounts.get(terms.account).next_seq

    def own(self, terms: HoldTerms) -> bytes | None:
        """What this node has signed for the hold's open slot, as far as it knows: nothing else may follow there. For
        what it signed by a key that was replaced since nobody votes any more, so that has to be signed anew."""
        account = self._accounts.get(terms.account)
        for known in self._witness.in_slot(terms.account, account.next_seq):
            source = known.item.tx.source
            if source.signer == self._settings.account and self._keys.in_force(source):
                return known.item.digest
        return None

    def last(self, hold: bytes) -> Tx | None:
        """What stands in its last slot, if it is here."""
        account = self._accounts.get(hold)
        known = self._transactions.of_slot(hold, account.next_seq - 1, account.head)
        return known.item.tx if known is not None else None

    def sign(self, terms: HoldTerms, act: Act, now: Now) -> bytes:
        """Ends the hold in its open slot, where this node has signed nothing yet; the transaction's digest."""
        assert self.own(terms) is None, "one transaction of this node's for a slot"
        settings, account = self._settings, self._accounts.get(terms.account)
        source = HoldSource(terms, act, self._keys.number(settings.account))
        tx = Tx(source, account.next_seq, account.head, terms.fee_micro, source.outputs)
        body = tx.encode()
        digest = digest_of(TX_KIND, settings.salt, body)
        item = TxItem(tx, body, settings.signer.sign(digest), digest)
        self._transactions.add(item, now)
        self._draft.record(EventType.TX_CREATED, tx_id_of(digest), ledger=ledger_event(tx, digest, "signed"))
        self._voice.say(item)
        self._witness.follow(item, now)
        return digest
