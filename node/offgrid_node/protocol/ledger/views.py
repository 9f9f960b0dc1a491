"""The ledger as people read it: accounts, transactions, bookings and the state of it all, worked out of rows.

Handlers ask committed rows, the machine those of its step. Names of accounts are the handlers' business. Amounts are
millionths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes, unbase32
from offgrid_node.protocol.ledger.accounts import Account, Totals
from offgrid_node.protocol.ledger.chains import decode_author
from offgrid_node.protocol.ledger.checkpoints import Checkpoint, Witnesses
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.exposures import accepted, pending
from offgrid_node.protocol.ledger.records import DIGEST_BYTES, LedgerGenesis, Tx, decode_meta, tx_id_of
from offgrid_node.protocol.ledger.slots import Slot, Tally
from offgrid_node.protocol.ledger.tables import (
    ACCOUNTS,
    AUTHORS,
    CHECKPOINTS,
    EPOCH_KEY,
    GENESIS_KEY,
    IN_FLIGHT,
    META,
    OWED,
    SLOTS,
    TALLIES,
    TOTALS_KEY,
    TRANSFERS,
    TRANSFERS_OPEN,
    TXS,
    number_key,
    slot_key,
)

COMMITTEES_MAX = 64  # remembered, of epochs that are asked about


class Reader(Protocol):
    """Rows by key. `Draft` is one, and so is every store."""

    def get(self, table: str, key: bytes) -> bytes | None: ...


class Scanner(Reader, Protocol):
    """… and in their order: committed rows."""

    def scan(self, table: str, start: bytes = b"", *, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...


class UnderWay(NamedTuple):
    """Not final yet, in millionths, by account."""

    going: Counter[bytes]
    coming: Counter[bytes]


class Views:
    """What a key alone finds."""

    def __init__(self, rows: Reader) -> None:
        self._rows = rows
        self._signed: common_pb2.Signed | None = None
        self._genesis: LedgerGenesis | None = None
        self._committees: dict[int, Committee] = {}  # by epoch

    # ---- the ledger

    @property
    def signed_genesis(self) -> common_pb2.Signed | None:
        """None while the ledger is not open."""
        if self._signed is None and (row := self._rows.get(META, GENESIS_KEY)) is not None:
            self._signed = common_pb2.Signed.FromString(row)
        return self._signed

    @property
    def genesis(self) -> LedgerGenesis | None:
        if self._genesis is None and (signed := self.signed_genesis) is not None:
            self._genesis = LedgerGenesis.decode(signed.body)
        return self._genesis

    @property
    def epoch(self) -> ledger_pb2.EpochRow:
        """The one that it is."""
        row = self._rows.get(META, EPOCH_KEY)
        return ledger_pb2.EpochRow.FromString(row) if row is not None else ledger_pb2.EpochRow()

    def witnesses_of(self, epoch: int) -> Witnesses | None:
        """None while the ledger is not open, of an epoch that has not come, and behind what this node began with."""
        if epoch == 0:
            return self.genesis.witnesses if self.genesis is not None else None
        row = self._rows.get(CHECKPOINTS, number_key(epoch - 1))
        return Checkpoint.decode(ledger_pb2.CheckpointRow.FromString(row).body).witnesses if row is not None else None

    def committee_of(self, epoch: int) -> Committee:
        """Without members where it is not known."""
        found = self._committees.get(epoch)
        if found is None:
            found = Committee(self.witnesses_of(epoch) or ())
            if len(self._committees) >= COMMITTEES_MAX:
                self._committees.clear()
            if found.all:
                self._committees[epoch] = found
        return found

    @property
    def committee(self) -> Committee:
        """That of the epoch that it is; without members while the ledger is not open."""
        return self.committee_of(self.epoch.number)

    @property
    def totals(self) -> Totals:
        row = self._rows.get(META, TOTALS_KEY)
        return Totals.decode(row) if row is not None else Totals()

    # ---- accounts

    def account(self, node_id: str) -> Account:
        row = self._rows.get(ACCOUNTS, node_id_bytes(node_id))
        return Account.decode(row) if row is not None else Account(0, 0, b"")

    # ---- transactions

    def transaction(self, tx_id: str) -> ledger_pb2.Transaction | None:
        """By its id, or by its owner's name for it (`t-…`); None when there is none here."""
        if tx_id.startswith("t-"):
            row = self._rows.get(TRANSFERS, tx_id.encode())
            return self.transfer(ledger_pb2.TransferRow.FromString(row)) if row is not None else None
        try:
            digest = unbase32(tx_id)
        except ValueError:
            return None
        return self.by_digest(digest) if len(digest) == DIGEST_BYTES else None

    def by_digest(self, digest: bytes) -> ledger_pb2.Transaction | None:
        row = self._rows.get(TXS, digest)
        return self._told(ledger_pb2.TxRow.FromString(row), digest) if row is not None else None

    def transfer(self, row: ledger_pb2.TransferRow) -> ledger_pb2.Transaction:
        """A transfer of this node's owner: its transaction, or what will be one."""
        if row.tx_digest and (found := self.by_digest(row.tx_digest)) is not None:
            return found
        return ledger_pb2.Transaction(
            tx_id=row.transfer_id,
            transfer_id=row.transfer_id,
            src=base32(row.src),
            outputs=[_output(output.account, output.amount_micro) for output in row.outputs],
            fee_micro=row.fee_micro,
            meta=decode_meta(row.meta),
            state=ledger_pb2.TX_STATE_QUEUED,
            quorum_milli=self.committee.quorum_milli,
            created_us=row.created_us,
        )

    def _told(self, row: ledger_pb2.TxRow, digest: bytes) -> ledger_pb2.Transaction:
        tx, state = Tx.decode(row.signed.body), row.state
        tally, committee = Tally(row.voted, row.confirmed), self.committee_of(row.epoch)
        if state == ledger_pb2.TX_STATE_SIGNED:
            committee = self.committee
            tally = self._tally(tx, digest) or Tally()
            if committee.enough(tally.voted):
                state = ledger_pb2.TX_STATE_CERTIFIED
        return ledger_pb2.Transaction(
            tx_id=tx_id_of(digest),
            src=base32(tx.src),
            seq=tx.seq,
            outputs=[_output(account, amount) for account, amount in tx.outputs],
            fee_micro=tx.fee_micro,
            meta=decode_meta(tx.meta),
            state=state,
            voted_milli=committee.weight(tally.voted),
            confirmed_milli=committee.weight(tally.confirmed),
            quorum_milli=committee.quorum_milli,
            created_us=row.created_us,
            final_us=row.final_us,
            signed=row.signed,
            transfer_id=row.transfer_id,
        )

    def _tally(self, tx: Tx, digest: bytes) -> Tally | None:
        """None where its slot knows nothing of it."""
        key = slot_key(tx.src, tx.seq)
        row = self._rows.get(SLOTS, key)
        if row is None:
            return None
        slot, spilled = Slot.decode(key, row)
        if spilled and digest not in slot.tallies and (own := self._rows.get(TALLIES, key + digest)) is not None:
            return Tally.decode(own)
        return slot.tallies.get(digest) or (Tally() if slot.first == digest else None)


class Surveys(Views):
    """What has to be looked for: for handlers, over committed rows."""

    def __init__(self, rows: Scanner) -> None:
        super().__init__(rows)
        self._scanner = rows

    def heads(self) -> Iterator[ledger_pb2.Head]:
        """The newest block of each author that is held here."""
        for name, row in self._scanner.scan(AUTHORS):
            author = decode_author(row)
            yield ledger_pb2.Head(author=base32(name), height=author.height, digest=author.digest)

    def pending(self) -> Iterator[Tx]:
        """Transactions whose account's next slot they are in and that are not final; the first PENDING_MAX slots."""
        return (one.tx for one in pending(self._scanner))

    def balance(self, node_id: str, *, own: bool = False) -> ledger_pb2.Balance:
        """Final funds, and what is under way; of an account of this node's `own` also what counts as accepted."""
        name, account, under_way = node_id_bytes(node_id), self.account(node_id), self.under_way()
        return ledger_pb2.Balance(
            account=node_id,
            final_micro=max(0, account.balance_micro),
            pending_out_micro=under_way.going[name],
            pending_in_micro=under_way.coming[name],
            next_seq=account.next_seq,
            accepted_in_micro=sum(one.to((name,)) for one in accepted(self._scanner, (name,))) if own else 0,
        )

    def under_way(self) -> UnderWay:
        """What is going out of and coming into each account; of this node's, what waits here counts as well."""
        going: Counter[bytes] = Counter()
        coming: Counter[bytes] = Counter()
        for tx in self.pending():
            going[tx.src] += tx.total_micro
            for account, amount in tx.outputs:
                coming[account] += amount
        for row in self.queued():
            going[row.src] += row.fee_micro + sum(output.amount_micro for output in row.outputs)
        for digest in self.unsent():
            tx = Tx.decode(self._tx_row(digest).signed.body)
            going[tx.src] += tx.total_micro
        return UnderWay(going, coming)

    def unsent(self) -> Iterator[bytes]:
        """Digests of what was signed here by hand and has not been sent."""
        for _, digest in self._scanner.scan(IN_FLIGHT):
            if self._tally(Tx.decode(self._tx_row(digest).signed.body), digest) is None:
                yield digest

    def _tx_row(self, digest: bytes) -> ledger_pb2.TxRow:
        row = self._rows.get(TXS, digest)
        assert row is not None, "what is in flight is here"
        return ledger_pb2.TxRow.FromString(row)

    def accounts(self, start: bytes = b"") -> Iterator[tuple[bytes, ledger_pb2.Balance]]:
        """By key, in its order: final funds only."""
        for key, row in self._scanner.scan(ACCOUNTS, start):
            account = Account.decode(row)
            yield (
                key,
                ledger_pb2.Balance(
                    account=base32(key), final_micro=max(0, account.balance_micro), next_seq=account.next_seq
                ),
            )

    def queued(self) -> Iterator[ledger_pb2.TransferRow]:
        """This node's transfers that are not signed yet, in their turn."""
        for _, transfer_id in self._scanner.scan(TRANSFERS_OPEN):
            row = self._rows.get(TRANSFERS, transfer_id)
            if row is not None:
                yield ledger_pb2.TransferRow.FromString(row)

    def owed(self) -> bool:
        """Whether any booking waits for a transaction."""
        return next(iter(self._scanner.scan(OWED)), None) is not None


def _output(account: bytes, amount_micro: int) -> ledger_pb2.Output:
    assert len(account) == NODE_ID_BYTES, "an account is the bytes of a node id"
    return ledger_pb2.Output(account=base32(account), amount_micro=amount_micro)
