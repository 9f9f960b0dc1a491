"""The accounts of this node's wallet: its own, which is lane 0, and further lanes, each with one transaction in flight.

An account is serial: its next slot is signed when the one before has ended. A busy wallet spreads its money over lanes,
which do not wait for each other (research/ledger.md, section 1). All are this node's, signed by its one key; a lane is
an account like any other, so money comes to it and leaves it by transactions.

What is in flight is a row in the batch that signs it: durable before it leaves, so no crash signs another for its slot.
"""

from __future__ import annotations

from collections.abc import Iterator

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.endings import ledger_event
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.records import TX_KIND, Tx, tx_id_of
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.sources import LaneSource, NodeSource, lane_account, lane_source
from offgrid_node.protocol.ledger.tables import IN_FLIGHT, LANES_KEY, META
from offgrid_node.protocol.ledger.transactions import Known, Transactions
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.ledger.witness import Witness
from offgrid_node.protocol.signing import digest_of

LANES_MAX = 1_024  # besides the node's own account
COUNT_BYTES = 2


class Lanes:
    """By account; the node's own is always there."""

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
        self._settings, self._draft, self._accounts = settings, draft, accounts
        self._transactions, self._witness, self._voice, self._keys = transactions, witness, voice, keys
        self._numbers = {settings.account: 0}  # in the order of the numbers
        self._in_flight: dict[bytes, bytes] = {}
        self._unsent: dict[bytes, None] = {}  # accounts of those that were signed and have not left

    def load(self) -> None:
        self._know(lane_count(self._draft.get(META, LANES_KEY)))
        self._in_flight = dict(self._draft.committed(IN_FLIGHT, b""))
        for account, digest in self._in_flight.items():
            known = self._transactions.get(digest)
            if known is not None and not self._witness.names(known.item):
                self._unsent[account] = None

    # ---- questions

    @property
    def count(self) -> int:
        """Besides the node's own account."""
        return len(self._numbers) - 1

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._numbers)

    def __contains__(self, account: object) -> bool:
        return account in self._numbers

    def source(self, account: bytes) -> NodeSource | LaneSource:
        own = self._settings.account
        return lane_source(own, self._numbers[account], self._keys.number(own))

    def in_flight(self, account: bytes) -> bytes:
        """The digest of what is signed there and has not ended; empty: nothing is."""
        return self._in_flight.get(account, b"")

    def is_unsent(self, account: bytes) -> bool:
        """Whether that has not left."""
        return account in self._unsent

    def free_micro(self, account: bytes) -> int:
        """Final funds without what is in flight."""
        flying = self._in_flight.get(account)
        known = self._transactions.get(flying) if flying else None
        return self._accounts.get(account).balance_micro - (known.item.tx.total_micro if known else 0)

    # ---- changes

    def open(self, count: int) -> None:
        """So many there are from now on; never fewer than before."""
        if count > self.count:
            self._know(count)
            self._draft.put_bytes(META, LANES_KEY, count.to_bytes(COUNT_BYTES, "big"))

    def learn(self, tx: Tx) -> None:
        """Lanes that this node had forgotten: a transaction of its own takes from one, or pays those that come next."""
        own, named = self._settings.account, {account for account, _ in tx.outputs}
        if isinstance(tx.source, LaneSource) and tx.source.lane <= LANES_MAX:
            self.open(tx.source.lane)
        while self.count < LANES_MAX and lane_account(own, self.count + 1) in named:
            self.open(self.count + 1)

    def draft(self, account: bytes, outputs: tuple[tuple[bytes, int], ...], fee_micro: int, meta: bytes,
              request: bytes) -> Tx:  # fmt: skip
        """What would be this account's next transaction."""
        held = self._accounts.get(account)
        return Tx(self.source(account), held.next_seq, held.head, fee_micro, outputs, meta, request)

    def sign(self, tx: Tx, now: Now, *, transfer_id: str = "") -> TxItem:
        """Signs what is the next of its account, in which nothing is in flight: from now on this is."""
        assert tx.src not in self._in_flight, "one transaction of an account at a time"
        body = tx.encode()
        digest = digest_of(TX_KIND, self._settings.salt, body)
        item = TxItem(tx, body, self._settings.signer.sign(digest), digest)
        self._transactions.add(item, now, transfer_id=transfer_id)
        self.fly(tx.src, digest)
        self._unsent[tx.src] = None
        self._draft.record(EventType.TX_CREATED, tx_id_of(digest), ledger=ledger_event(tx, digest, "signed"))
        return item

    def send(self, item: TxItem, now: Now) -> None:
        """It leaves in the block that this step ends with."""
        self._unsent.pop(item.tx.src, None)
        self._voice.say(item)
        self._witness.follow(item, now)

    def take_overtaken(self) -> list[Known]:
        """What was signed and has not left, and whose slot has ended without it: it is in flight no more."""
        flying = [self._transactions.get(self._in_flight[account]) for account in self._unsent]
        over = [known for known in flying if known is not None and known.item.tx.seq < self._next(known)]
        for known in over:
            self.fly(known.item.tx.src, b"")
        return over

    def fly(self, account: bytes, digest: bytes) -> None:
        """This is in flight there, whoever signed it; empty: nothing is."""
        self._unsent.pop(account, None)
        if digest:
            self._in_flight[account] = digest
            self._draft.put_bytes(IN_FLIGHT, account, digest)
        elif self._in_flight.pop(account, None) is not None:
            self._draft.delete(IN_FLIGHT, account)

    def _next(self, known: Known) -> int:
        return self._accounts.get(known.item.tx.src).next_seq

    def _know(self, count: int) -> None:
        own = self._settings.account
        for lane in range(len(self._numbers), count + 1):
            self._numbers[lane_account(own, lane)] = lane


def lane_count(row: bytes | None) -> int:
    return int.from_bytes(row, "big") if row is not None else 0
