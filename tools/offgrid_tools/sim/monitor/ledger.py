"""Rules of the ledger.

- signed once: no honest node signs two blocks of one height; a block is durable at its author before it leaves. What
  witnesses say is ballots.py's;
- one value: nothing is final without a quorum of confirms at one ballot. What is final in a slot is so for ever and
  everywhere, slots follow each other, and nobody spends what final slots had not given him by then;
- void: a transaction is void only where another one, or nothing, is final in its slot;
- conserved: at every commit of every node all balances and the fees make up the supply;
- booked once: what a job cost is booked when its result is accepted, at its award's price, and promised in
  one place at a time, never beyond its hold, and paid at most once;
- acked: a transfer that was acknowledged moves its money once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, jobs_pb2, ledger_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account, Totals
from offgrid_node.protocol.ledger.checkpoints import Checkpoint, Witnesses
from offgrid_node.protocol.ledger.items import Report, Statement, TxItem, decode_item
from offgrid_node.protocol.ledger.marking import Places, places_of, spelled
from offgrid_node.protocol.ledger.records import HEADER_KIND, Header, LedgerGenesis, Tx, tx_id_of
from offgrid_node.protocol.ledger.rewards import rewards
from offgrid_node.protocol.ledger.sources import HoldSource, HoldTerms
from offgrid_node.protocol.ledger.tables import (
    ACCOUNTS,
    AHEAD_KEY,
    BOOKINGS,
    CHECKPOINTS,
    GENESIS_KEY,
    GIVEN,
    LOG,
    META,
    MUTE_KEY,
    NUMBER_BYTES,
    PLACES,
    SLOTS,
    TOTALS_KEY,
    TRANSFERS,
    TXS,
    number_of,
)
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.sim.monitor.ballots import Ballots, Slot
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Passed, Rules, Written

FINAL, VOID = ledger_pb2.TX_STATE_FINAL, ledger_pb2.TX_STATE_VOID
HOLD_ENDED = ledger_pb2.HOLD_STATE_ENDED


class LedgerRules(Rules):
    """Of what witnesses and owners sign, and of what each node's rows say has moved."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._genesis: LedgerGenesis | None = None
        self._ballots = Ballots(evidence)
        self._blocks: dict[bytes, Header] = {}  # by header body: all that were ever signed and seen
        self._digests: dict[bytes, bytes] = {}
        self._places: dict[bytes, Places] = {}  # of those blocks, by digest
        self._txs: dict[bytes, Tx] = {}
        self._final: dict[Slot, bytes] = {}
        self._next: dict[bytes, int] = {}
        self._balances: dict[bytes, int] = {}  # by final slots alone, as they became final anywhere
        self._held: dict[str, dict[bytes, int]] = {}  # node → account → balance, by its rows
        self._sums: dict[str, int] = {}
        self._fees: dict[str, int] = {}
        self._signed_for: dict[tuple[str, str], bytes] = {}  # (node, transfer) → transaction
        self._booked: dict[tuple[str, bytes], ledger_pb2.Booking] = {}  # by node and job
        self._given: dict[tuple[str, bytes], ledger_pb2.GivenHold] = {}  # by node and hold
        self._left: list[tuple[str, ledger_pb2.Booking]] = []  # as they were, which left their holds in this batch
        self._pool_micro = 0  # fees of what is final that nobody has got
        self._unrewarded: list[Witnesses] = []  # of epochs that ended in this batch
        self._moved: set[str] = set()  # nodes whose accounts this transaction has changed
        self._voided: dict[bytes, Slot] = {}  # transactions that it has made void
        self._accepted: dict[tuple[str, str], ledger_pb2.Transaction] = {}  # (node, request) → as acked

    @property
    def genesis(self) -> LedgerGenesis | None:
        """None as long as the ledger is not open anywhere."""
        return self._genesis

    def requests(self) -> Mapping[type[Message], Passed]:
        return {ledger_pb2.PushBlocksRequest: self._pushed}

    def lies(self) -> Mapping[type[Message], Passed]:
        return {ledger_pb2.PushBlocksRequest: self._lied}

    def rows(self) -> Mapping[str, Written]:
        return {
            META: self._on_meta,
            CHECKPOINTS: self._on_checkpoint,
            LOG: self._on_block,
            SLOTS: self._on_slot,
            TXS: self._on_tx,
            ACCOUNTS: self._on_account,
            TRANSFERS: self._on_transfer,
            BOOKINGS: self._on_booking,
            GIVEN: self._on_given,
        }

    # ---- what leaves a node

    def _pushed(self, source: str, target: str, request: ledger_pb2.PushBlocksRequest) -> None:
        for block in request.blocks:
            header = self._blocks.get(block.header.body)
            if header is None:
                raise Violation(f"{self._evidence.name_of(source)} sends a block that no disk has")
            own = header.author_id == source and source not in self._evidence.dishonest
            if own and self._evidence.row(source, PLACES, self._digests[block.header.body]) is None:
                raise Violation(f"{self._evidence.name_of(source)} sends a block that its own disk does not have")

    def _lied(self, source: str, target: str, request: ledger_pb2.PushBlocksRequest) -> None:
        for block in request.blocks:
            if block.header.body not in self._blocks:
                self._take_in(source, block, honest=False)

    # ---- what becomes durable

    def _on_meta(self, node: str, key: bytes, value: bytes | None) -> None:
        if key == GENESIS_KEY and value is not None:
            genesis = LedgerGenesis.decode(common_pb2.Signed.FromString(value).body)
            if self._genesis is not None and genesis != self._genesis:
                raise Violation(f"{self._evidence.name_of(node)} holds another ledger's genesis")
            if self._genesis is None:
                self._genesis = genesis
                self._ballots.open(genesis)
                self._balances = {node_id_bytes(account): amount for account, amount in genesis.balances}
        elif key == TOTALS_KEY and value is not None:
            self._fees[node] = Totals.decode(value).fees_micro
        elif key == AHEAD_KEY and value is not None:
            self._ballots.wrote_all(node)

    def _on_checkpoint(self, node: str, key: bytes, value: bytes | None) -> None:
        if value is None or node in self._evidence.dishonest:
            return
        body = Checkpoint.decode(ledger_pb2.CheckpointRow.FromString(value).body)
        witnesses = self._ballots.ended(body)
        if witnesses is not None:
            self._unrewarded.append(witnesses)

    def _on_block(self, node: str, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        block = ledger_pb2.Block.FromString(value)
        if block.header.body not in self._blocks:
            header = Header.decode(block.header.body)
            if header.author_id != node:
                raise Violation(f"{self._evidence.name_of(node)} has a block of another that nobody ever sent")
            self._take_in(node, block, honest=node not in self._evidence.dishonest)

    def _on_slot(self, node: str, key: bytes, value: bytes | None) -> None:
        if value is not None:
            self._ballots.wrote(node, Slot(key[:-NUMBER_BYTES], number_of(key)))

    def _take_in(self, author: str, block: ledger_pb2.Block, *, honest: bool) -> None:
        header = Header.decode(block.header.body)
        if header.author_id != author:
            return
        self._blocks[block.header.body] = header
        self._digests[block.header.body] = digest_of(HEADER_KIND, self._evidence.salt, block.header.body)
        if honest:
            self._evidence.sign("block", author, "", header.height, block.header.body)
        items = [decode_item(data, self._evidence.salt) for data in block.items]
        self._places[self._digests[block.header.body]] = places_of(items)
        for item in spelled(items, lambda digest: self._places.get(digest, ())):
            match item:
                case TxItem(tx, _, _, digest):
                    self._txs[digest] = tx
                    if honest and tx.source.signer == header.author:
                        self._evidence.sign("transaction", author, tx.src.hex(), tx.seq, digest)
                case Statement() as statement:
                    self._ballots.stated(author, header.epoch, statement, honest=honest)
                case Report() as report:
                    self._ballots.reported(author, header.epoch, report, honest=honest)

    def _on_tx(self, node: str, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        row = ledger_pb2.TxRow.FromString(value)
        if row.state == VOID:
            voided = Tx.decode(row.signed.body)
            self._voided[key] = Slot(voided.src, voided.seq)
        if row.state != FINAL:
            return
        tx = self._txs.get(key)
        if tx is None:
            raise Violation(f"{self._evidence.name_of(node)} holds final what nobody ever sent")
        slot = Slot(tx.src, tx.seq)
        known = self._final.get(slot)
        if known is None:
            self._become_final(slot, key, tx)
        elif known != key:
            raise Violation(f"two transactions are final in slot {slot}: {tx_id_of(known)} and {tx_id_of(key)}")

    def _become_final(self, slot: Slot, digest: bytes, tx: Tx) -> None:
        if not self._ballots.is_final(slot, digest):
            raise Violation(f"slot {slot} is final without a quorum of confirms at one ballot")
        self._skip_to(slot)
        if tx.seq != self._next.get(tx.src, 0):
            raise Violation(f"slot {slot} is final before the one that comes first")
        if tx.total_micro > self._balances.get(tx.src, 0):
            raise Violation(f"slot {slot} spends {tx.total_micro} of {self._balances.get(tx.src, 0)}")
        self._final[slot] = digest
        self._next[tx.src] = tx.seq + 1
        self._balances[tx.src] -= tx.total_micro
        self._pool_micro += tx.fee_micro
        for account, amount in tx.outputs:
            self._balances[account] = self._balances.get(account, 0) + amount

    def _skip_to(self, slot: Slot) -> None:
        """The account's slots before this one in which nothing moved."""
        while (seq := self._next.get(slot.account, 0)) < slot.seq:
            before = Slot(slot.account, seq)
            noop = self._ballots.noop(before)
            if not self._ballots.is_final(before, noop):
                return
            self._final[before], self._next[slot.account] = noop, seq + 1

    def _on_account(self, node: str, key: bytes, value: bytes | None) -> None:
        held = self._held.setdefault(node, {})
        account = Account.decode(value) if value is not None else None
        balance = account.balance_micro if account is not None else 0
        if account is not None:
            self._skip_to(Slot(key, account.next_seq))
            if self._next.get(key, 0) < account.next_seq:
                slot = Slot(key, self._next.get(key, 0))
                raise Violation(f"{self._evidence.name_of(node)} is past slot {slot}, and nothing is final there")
            last = Slot(key, account.next_seq - 1)
            if account.next_seq and self._final[last] != account.head:
                raise Violation(f"two values are final in slot {last}: {self._evidence.name_of(node)} has another one")
        self._sums[node] = self._sums.get(node, 0) + balance - held.get(key, 0)
        held[key] = balance
        self._moved.add(node)

    def on_batch(self, node: str) -> None:
        """Whatever is void, another one has its slot; money is conserved at the end of every transaction."""
        ended, self._unrewarded = self._unrewarded, []
        for witnesses in ended:  # after what the end itself has made final
            shares, self._pool_micro = rewards(self._pool_micro, witnesses)
            for name, amount in shares.items():
                account = node_id_bytes(name)
                self._balances[account] = self._balances.get(account, 0) + amount
        left, self._left = self._left, []
        for payer, booking in left:
            given = self._given.get((payer, booking.hold))
            if given is None or given.state != HOLD_ENDED or booking.place < given.paid:
                raise Violation(f"job {booking.job_id} is promised twice")
        voided, self._voided = self._voided, {}
        for digest, slot in voided.items():
            if self._final.get(slot, digest) == digest:
                name = self._evidence.name_of(node)
                raise Violation(f"{name} holds {tx_id_of(digest)} void, and no other one is final in slot {slot}")
        if node not in self._moved:
            return
        self._moved.discard(node)
        assert self._genesis is not None
        total = self._sums[node] + self._fees.get(node, 0)
        if total != self._genesis.supply_micro:
            name = self._evidence.name_of(node)
            raise Violation(f"{name}: balances and fees are {total}, the supply is {self._genesis.supply_micro}")

    def on_restored(self, node: str) -> None:
        """An older disk: its sums begin anew with the next account that changes there."""
        self._held.pop(node, None)
        self._sums.pop(node, None)
        for key, value in self._evidence.stores[node].scan(ACCOUNTS):
            self._on_account(node, key, value)
        totals = self._evidence.row(node, META, TOTALS_KEY)
        self._fees[node] = Totals.decode(totals).fees_micro if totals is not None else 0

    # ---- the owner's side

    def _on_transfer(self, node: str, key: bytes, value: bytes | None) -> None:
        row = ledger_pb2.TransferRow.FromString(value or b"")
        known = self._signed_for.setdefault((node, row.transfer_id), row.tx_digest)
        if known and known != row.tx_digest:
            raise Violation(f"transfer {row.transfer_id} was signed twice")
        self._signed_for[node, row.transfer_id] = row.tx_digest

    def on_accepted(self, node: str, request_id: str, transaction: ledger_pb2.Transaction) -> None:
        """A user holds this answer: from now on the transfer is under way, whatever happens."""
        known = self._accepted.setdefault((node, request_id), transaction)
        if known.transfer_id != transaction.transfer_id:
            raise Violation(f"request {request_id} made two transfers: {known.transfer_id}, {transaction.transfer_id}")
        self._check_transfer(node, transaction.transfer_id)

    def on_shown_final(self, node: str, transaction: ledger_pb2.Transaction) -> None:
        """A user was told that it is final."""
        if self._moved_by(node, transaction) is None:
            raise Violation(f"{transaction.transfer_id} was shown as final and is not")

    def _moved_by(self, node: str, transaction: ledger_pb2.Transaction) -> Tx | None:
        """The final transaction that is this transfer."""
        digest = self._signed_for.get((node, transaction.transfer_id), b"")
        tx = self._txs.get(digest)
        if tx is None or self._final.get(Slot(tx.src, tx.seq)) != digest:
            return None
        outputs = tuple((node_id_bytes(output.account), output.amount_micro) for output in transaction.outputs)
        if (tx.src, tx.outputs) != (node_id_bytes(node), outputs):
            raise Violation(f"{transaction.transfer_id} is not what was asked for")
        return tx

    def check_store(self, node: str) -> None:
        for (payer, _), transaction in self._accepted.items():
            if payer == node:
                self._check_transfer(node, transaction.transfer_id)

    def _check_transfer(self, node: str, transfer_id: str) -> None:
        if self._evidence.row(node, TRANSFERS, transfer_id.encode()) is None:
            raise Violation(f"transfer {transfer_id} was acknowledged and is not in the store")

    # ---- what jobs cost

    def on_cost(self, node: str, job: jobs_pb2.Job) -> None:
        """A core has accepted this job's result, durably."""
        value = self._evidence.row(node, BOOKINGS, job.job_id.encode())
        booking = ledger_pb2.Booking.FromString(value or b"")
        if value is None or (booking.amount_micro, booking.payee) != (job.price_micro, job.host):
            raise Violation(f"job {job.job_id} cost {job.price_micro} and is booked with {booking.amount_micro}")

    def _on_booking(self, node: str, key: bytes, value: bytes | None) -> None:
        booking = ledger_pb2.Booking.FromString(value or b"")
        known = self._booked.setdefault((node, key), booking)
        if (known.amount_micro, known.payee) != (booking.amount_micro, booking.payee):
            raise Violation(f"job {key.decode()} is booked with {known.amount_micro} and with {booking.amount_micro}")
        if known.hold and (known.hold, known.place) != (booking.hold, booking.place):
            self._left.append((node, known))
        if booking.owed and booking.hold:
            raise Violation(f"job {key.decode()} is owed and promised")
        self._booked[node, key] = booking

    def _on_given(self, node: str, key: bytes, value: bytes | None) -> None:
        """A hold of this node's as the payer: only more is promised out of it, never more than there is."""
        given, known = ledger_pb2.GivenHold.FromString(value or b""), self._given.get((node, key))
        terms = HoldTerms.decode(given.terms)
        if terms.account != key or given.amount_micro > terms.room_micro:
            raise Violation(f"{given.amount_micro} is promised out of a hold of {terms.room_micro}")
        if known is not None and (given.amount_micro < known.amount_micro or given.count < known.count):
            raise Violation(f"{self._evidence.name_of(node)} takes back what it has promised")
        self._given[node, key] = given

    # ---- the end

    def unsettled(self, nodes: Sequence[str]) -> str:
        """What the honest nodes do not agree on yet, or still owe though they could pay; empty when nothing."""
        if self._genesis is None:
            return ""
        if torn := next(filter(None, (self._ballots.torn(node) for node in nodes)), ""):
            return f"slot {torn} is torn and does not end"
        expected = {account: balance for account, balance in self._balances.items() if balance}
        for node in nodes:
            if {account: balance for account, balance in self._held.get(node, {}).items() if balance} != expected:
                return f"{self._evidence.name_of(node)} has not all final slots yet"
        for (node, request_id), transaction in self._accepted.items():
            if self._moved_by(node, transaction) is None:
                return f"transfer {request_id} of {self._evidence.name_of(node)} is not final yet"
        return self._unpaid(nodes)

    def _unpaid(self, nodes: Sequence[str]) -> str:
        """A booking that its node could pay; what was paid must be just what was owed. One that does not know any more
        what it has promised to a payee waits for that one's word, or for the end of its hold: for days, where the payee
        is no member now."""
        assert self._genesis is not None
        sums: dict[tuple[str, bytes], dict[int, int]] = defaultdict(dict)
        for (node, key), booking in self._booked.items():
            payer, payee = node_id_bytes(node), node_id_bytes(booking.payee)
            room = self._balances.get(payer, 0) - 2 * self._genesis.fee_micro
            if booking.owed and {node, booking.payee} <= {*nodes} and booking.amount_micro <= room:
                return f"{self._evidence.name_of(node)} owes {payee.hex()[:8]} for job {key.decode()}"
            if booking.hold:
                places = sums[node, booking.hold]
                if booking.place in places:
                    raise Violation(f"two bookings are promised in one place: {key.decode()} is one")
                places[booking.place] = booking.amount_micro
        for (node, hold), places in sums.items():
            given = self._given.get((node, hold))
            if given is None:
                raise Violation(f"{self._evidence.name_of(node)} promises out of a hold that it does not have")
            count, amount = given.count, given.amount_micro
            if given.state == HOLD_ENDED:
                count, amount = given.paid, self._got(hold, given)
            if given.frozen:
                continue  # what its payer has forgotten nobody can add up
            if sorted(places) != list(range(count)) or sum(places.values()) != amount:
                raise Violation(f"hold {hold.hex()} pays {amount} for {count} bookings, and booked are {places}")
        return ""

    def _got(self, hold: bytes, given: ledger_pb2.GivenHold) -> int:
        """What the end of a hold has paid to its payee."""
        tx = self._txs.get(given.ended)
        if tx is None or self._final.get(Slot(tx.src, tx.seq)) != given.ended or not isinstance(tx.source, HoldSource):
            raise Violation(f"hold {hold.hex()} has ended by what is not final, or is no end of a hold")
        return tx.source.act.amount_micro

    def forgetful(self, node: str) -> str:
        """Restored from a backup: it must say nothing any more if others hold blocks of it that its disk does not know,
        which it learns when it meets them. Empty when all is well."""
        own = [digest for body, digest in self._digests.items() if self._blocks[body].author_id == node]
        lost = [digest for digest in own if self._evidence.row(node, PLACES, digest) is None]
        held = [
            digest for digest in lost if any(store.peek(PLACES, digest) for store in self._evidence.stores.values())
        ]
        if held and self._evidence.row(node, META, MUTE_KEY) is None:
            return f"{self._evidence.name_of(node)} lost {len(held)} of its blocks and is not mute"
        return ""
