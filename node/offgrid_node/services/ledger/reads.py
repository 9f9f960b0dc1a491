"""The ledger for whoever reads it: committed rows, in pages, with the names of the members that they are about.

A removed member keeps its account and its name here; who was never a member here has an id only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import InvalidRequest, NotFound
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes, unbase32
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.exposures import Pending, accepted, credit_line, credit_lines, pending
from offgrid_node.protocol.ledger.paid import as_read
from offgrid_node.protocol.ledger.records import DIGEST_BYTES, tx_id_of
from offgrid_node.protocol.ledger.snapshots import page_asked
from offgrid_node.protocol.ledger.tables import (
    BOOKING_INDEX,
    BOOKINGS,
    EVERYBODY,
    IN_FLIGHT,
    LOG,
    NUMBER_BYTES,
    NUMBER_MAX,
    TX_INDEX,
    TXS,
    newest_first,
    number_key,
    number_of,
)
from offgrid_node.protocol.ledger.views import Surveys
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.views import genesis_message
from offgrid_node.services.ledger.naming import AccountNames
from offgrid_node.services.paging import decode_token, take_page
from offgrid_node.services.shelf import Shelf
from offgrid_node.storage.store import Store

BLOCKS_MAX, BLOCKS_BYTES_MAX = 1_000, 1024 * 1024  # in one answer
TX_ID_CHARS = 52  # base32 of 32 bytes
PREFIX_CHARS_MIN = 8  # of a transaction's id
_QUEUED, _SIGNED = b"q", b"s"  # the two parts of a list of transactions, as positions in it begin
_PLACE_AT = 1 + NODE_ID_BYTES + NUMBER_BYTES  # in a position of what is signed: behind its row's key, its place there
_ID_CHARS_MAX = 64
_UNSURE = frozenset({ledger_pb2.TX_STATE_SIGNED, ledger_pb2.TX_STATE_CERTIFIED})


def ledger_summary(rows: Store) -> str:
    """A few words for a node's status; empty while the ledger is not open."""
    surveys = Surveys(rows)
    if surveys.genesis is None:
        return ""
    witnesses = surveys.witnesses_of(surveys.epoch.number) or ()
    return f"{len(witnesses)} witnesses, {sum(1 for _ in surveys.pending())} pending"


class LedgerReads:
    """Questions; nothing here changes anything."""

    def __init__(self, store: Store, self_id: str, directory: Callable[[], Directory]) -> None:
        self._store, self._self_id, self._directory = store, self_id, directory
        self._surveys, self._shelf = Surveys(store), Shelf(store)
        self.names = AccountNames(store, self_id, directory)

    @property
    def is_open(self) -> bool:
        return self._surveys.signed_genesis is not None

    @property
    def committee(self) -> Committee:
        return self._surveys.committee

    @property
    def epoch(self) -> int:
        """The number of the one that it is."""
        return self._surveys.epoch.number

    def epoch_accounts(self, request: ledger_pb2.ListEpochAccountsRequest) -> ledger_pb2.ListEpochAccountsResponse:
        """What accounts had when an epoch began. Raises NotFound, InvalidRequest."""
        return page_asked(self._store, request)

    @property
    def ledger(self) -> bytes:
        """Its genesis' digest."""
        genesis = self._surveys.genesis
        assert genesis is not None, "asked of an open ledger"
        return genesis.digest(self._directory().salt)

    # ---- the ledger

    def genesis(self) -> ledger_pb2.GetGenesisResponse:
        """The mesh's genesis, and the ledger's once it is open."""
        found, genesis, message = (
            genesis_message(self._directory()),
            self._surveys.genesis,
            self._surveys.signed_genesis,
        )
        if genesis is None or message is None:
            return found
        found.open, found.issuer = True, genesis.issuer
        found.witnesses.extend(self._witnesses(0))
        for account, amount in genesis.balances:
            found.balances.add(account=account, name=self.names.of(account), final_micro=amount)
        found.ledger_genesis.CopyFrom(message)
        found.quorum_milli = self._surveys.committee_of(0).quorum_milli
        found.faults_survived = self._surveys.committee_of(0).faults_survived
        found.fee_micro = genesis.fee_micro
        return found

    def opened_by(self) -> tuple[str, int]:
        """Who has opened the ledger, and when by its clock; only once it is open."""
        genesis = self._surveys.genesis
        assert genesis is not None, "asked of an open ledger"
        return self.names.of(genesis.issuer) or genesis.issuer, genesis.created_us

    def status(self) -> ledger_pb2.GetLedgerStatusResponse:
        """Without what only the machine and the config know."""
        genesis = self._surveys.genesis
        if genesis is None:
            return ledger_pb2.GetLedgerStatusResponse()
        committee, totals = self._surveys.committee, self._surveys.totals
        own = self._surveys.balance(self._self_id, own=True)
        return ledger_pb2.GetLedgerStatusResponse(
            open=True,
            witnesses=self._witnesses(self._surveys.epoch.number),
            quorum_milli=committee.quorum_milli,
            faults_survived=committee.faults_survived,
            heads=self._surveys.heads(),
            pending=sum(1 for _ in self._surveys.pending()),
            fees_micro=totals.fees_micro,
            supply_micro=totals.supply_micro,
            fee_micro=genesis.fee_micro,
            pending_out_micro=own.pending_out_micro,
            pending_in_micro=own.pending_in_micro,
            accepted_in_micro=own.accepted_in_micro,
        )

    # ---- accounts

    def balance(self, node_id: str) -> ledger_pb2.Balance:
        found = self._surveys.balance(node_id, own=node_id in self.names.own())
        found.name = self.names.of(node_id)
        return found

    def wallet(self) -> ledger_pb2.GetWalletResponse:
        """This node's accounts."""
        found, under_way, taken = ledger_pb2.GetWalletResponse(), self._surveys.under_way(), self._accepted()
        for node_id, lane in self.names.own().items():
            account, held = node_id_bytes(node_id), self._surveys.account(node_id)
            flying = self._store.get(IN_FLIGHT, account)
            balance = ledger_pb2.Balance(
                account=node_id,
                name=self.names.of(node_id),
                final_micro=max(0, held.balance_micro),
                pending_out_micro=under_way.going[account],
                pending_in_micro=under_way.coming[account],
                next_seq=held.next_seq,
                accepted_in_micro=sum(one.to((account,)) for one in taken),
            )
            found.accounts.add(lane=lane, balance=balance, in_flight=tx_id_of(flying) if flying else "")
        return found

    def next_slot(self, account: str) -> tuple[int, bytes]:
        """The number of the account's next transaction, and what that must name as the one before."""
        held = self._surveys.account(account)
        return held.next_seq, held.head or self.ledger

    @property
    def fee_micro(self) -> int:
        """The least of this ledger's."""
        return self._surveys.genesis.fee_micro if self._surveys.genesis else 0

    def balances(self, request: ledger_pb2.ListBalancesRequest) -> ledger_pb2.ListBalancesResponse:
        """In the order of the accounts' bytes. What is under way is looked for once for the whole page."""
        under_way = self._surveys.under_way()

        def rows() -> Iterator[tuple[bytes, ledger_pb2.Balance]]:
            for key, found in self._surveys.accounts(decode_token(request.page_token)):
                found.name = self.names.of(found.account)
                found.pending_out_micro, found.pending_in_micro = under_way.going[key], under_way.coming[key]
                yield key, found

        balances, token = take_page(rows(), request.page_size)
        totals = self._surveys.totals
        return ledger_pb2.ListBalancesResponse(
            balances=balances,
            next_page_token=token,
            fees_micro=totals.fees_micro,
            supply_micro=totals.supply_micro,
        )

    def credit_line(self, payer: str) -> ledger_pb2.CreditLine:
        """That of one payer, by its node id; of 0 where there is none."""
        return self._line(node_id_bytes(payer), credit_line(self._store, node_id_bytes(payer)), self._accepted())

    def credit_lines(self) -> ledger_pb2.ListCreditLinesResponse:
        """All that the owner has set; at most one per member."""
        taken = self._accepted()
        return ledger_pb2.ListCreditLinesResponse(
            lines=[self._line(payer, amount, taken) for payer, amount in credit_lines(self._store)]
        )

    # ---- transactions

    def transaction(self, tx_id: str) -> ledger_pb2.Transaction:
        """By its whole id, the beginning of it, or its owner's name for it (`t-…`).

        Raises NotFound, and InvalidRequest for a beginning that is too short or not one transaction's alone.
        """
        found = self._surveys.transaction(tx_id) if len(tx_id) <= _ID_CHARS_MAX else None
        if found is None and 0 < len(tx_id) < TX_ID_CHARS and not tx_id.startswith("t-"):
            digests = self._beginning_with(tx_id)
            if len(digests) > 1:
                raise InvalidRequest.field("tx_id", f"{tx_id!r} begins several transactions; give more of it")
            found = self._surveys.by_digest(digests[0]) if digests else None
        if found is None:
            raise NotFound(
                f"there is no transaction {tx_id[:_ID_CHARS_MAX]!r} here", reason="TransactionNotFound",
                metadata={"tx_id": tx_id[:_ID_CHARS_MAX]},
            )  # fmt: skip
        return self.named(found)

    def transactions(
        self, account: str, size: int, token: str, *, only_open: bool = False
    ) -> ledger_pb2.ListTransactionsResponse:
        """Newest first, of one account (a node id) or of all (""): first what waits here to be signed. With `only_open`
        nothing that is final or void, by account."""
        if only_open:
            found, following = take_page(self._open(account, decode_token(token) or _QUEUED), size)
            return ledger_pb2.ListTransactionsResponse(transactions=found, next_page_token=following)
        start = decode_token(token) or _QUEUED
        owner = node_id_bytes(account) if account else EVERYBODY
        if start[:1] not in (_QUEUED, _SIGNED) or (start[:1] == _SIGNED and start[1 : 1 + len(owner)] != owner):
            raise InvalidRequest.field("page_token", "it belongs to another list; begin again without it")
        found, following = take_page(self._listed(account, owner, start), size)
        return ledger_pb2.ListTransactionsResponse(transactions=found, next_page_token=following)

    def named(self, tx: ledger_pb2.Transaction) -> ledger_pb2.Transaction:
        """The same with names; a transfer that is not signed yet is this node's."""
        tx.src = tx.src or self._self_id
        tx.src_name = self.names.of(tx.src)
        for output in tx.outputs:
            output.name = self.names.of(output.account)
        if tx.state in _UNSURE:
            self._judge(tx)
        return tx

    # ---- bookings

    def bookings(self, request: ledger_pb2.ListBookingsRequest) -> tuple[list[ledger_pb2.Booking], str]:
        """Newest first, all or those of one job, and the next page's token."""
        if request.job_id:
            found = self._shelf.find(BOOKINGS, ledger_pb2.Booking, request.job_id)
            return [self._paid(found)] if found is not None else [], ""

        def rows() -> Iterator[tuple[bytes, ledger_pb2.Booking]]:
            for key, job_id in self._store.scan(BOOKING_INDEX, decode_token(request.page_token)):
                value = self._store.get(BOOKINGS, job_id)
                if value is not None:
                    yield key, self._paid(ledger_pb2.Booking.FromString(value))

        return take_page(rows(), request.page_size)

    # ---- blocks

    def blocks(self, request: ledger_pb2.ListBlocksRequest) -> ledger_pb2.ListBlocksResponse:
        """As they were taken in; one at least where there is one, however large."""
        if request.count > BLOCKS_MAX or request.first > NUMBER_MAX - BLOCKS_MAX:
            raise InvalidRequest.field("count", f"{request.count}; 0 ({BLOCKS_MAX}) to {BLOCKS_MAX} are allowed")
        count = request.count or BLOCKS_MAX
        newest = [
            number_of(key) for key, _ in islice(self._store.scan(LOG, reverse=True), 1 if request.first else count)
        ]
        first = request.first or min(newest, default=1)
        found, size = ledger_pb2.ListBlocksResponse(first=first, newest=max(newest, default=0)), 0
        for key, raw in islice(self._store.scan(LOG, number_key(first)), count):
            size += len(raw)
            if found.blocks and size > BLOCKS_BYTES_MAX:
                break
            found.blocks.append(ledger_pb2.Block.FromString(raw))
            found.positions.append(number_of(key))
        return found

    # ---- inside

    def _witnesses(self, epoch: int) -> list[ledger_pb2.Witness]:
        return [
            ledger_pb2.Witness(node_id=node, weight_milli=weight, name=self.names.of(node))
            for node, weight in self._surveys.witnesses_of(epoch) or ()
        ]

    def _paid(self, booking: ledger_pb2.Booking) -> ledger_pb2.Booking:
        booking.payee_name = self.names.of(booking.payee)
        return as_read(self._store, booking)

    def _judge(self, tx: ledger_pb2.Transaction) -> None:
        """What only this node knows of a transaction that is not final."""
        own, digest = self.names.own(), unbase32(tx.tx_id)
        if tx.src in own:
            tx.unsent = not tx.voted_milli and digest in self._surveys.unsent()
        elif any(output.account in own for output in tx.outputs):
            mine = {node_id_bytes(account) for account in own}
            tx.accepted_micro = sum(one.to(mine) for one in self._accepted() if one.slot.first == digest)

    def _accepted(self) -> list[Pending]:
        return accepted(self._store, {node_id_bytes(account) for account in self.names.own()})

    def _line(self, payer: bytes, amount: int, taken: Sequence[Pending]) -> ledger_pb2.CreditLine:
        own = {node_id_bytes(account) for account in self.names.own()}
        used = sum(one.to(own) for one in taken if one.payer == payer)
        node = base32(payer)
        return ledger_pb2.CreditLine(payer=node, payer_name=self.names.of(node), amount_micro=amount, used_micro=used)

    def _waiting(self, account: str, start: bytes) -> Iterator[tuple[bytes, ledger_pb2.Transaction]]:
        """What waits here to be signed, the newest first."""
        for row in reversed([row for row in self._surveys.queued() if account in ("", base32(row.src))]):
            position = _QUEUED + newest_first(row.number)
            if position >= start:
                yield position, self.named(self._surveys.transfer(row))

    def _open(self, account: str, start: bytes) -> Iterator[tuple[bytes, ledger_pb2.Transaction | None]]:
        if start[:1] == _QUEUED:
            yield from self._waiting(account, start)
            start = _SIGNED
            for digest in self._surveys.unsent():
                found = self._surveys.by_digest(digest)
                if found is not None and account in ("", found.src):
                    yield _SIGNED, self.named(found)
        for one in pending(self._store, start[1:]):
            found = self._surveys.by_digest(one.slot.first)
            mine = found is not None and (account in ("", found.src) or account in {to.account for to in found.outputs})
            yield _SIGNED + one.slot.key, self.named(found) if found is not None and mine else None

    def _listed(self, account: str, owner: bytes, start: bytes) -> Iterator[tuple[bytes, ledger_pb2.Transaction]]:
        if start[:1] == _QUEUED:
            yield from self._waiting(account, start)
            start = _SIGNED
        begin, skipped = start[1:_PLACE_AT], int.from_bytes(start[_PLACE_AT:], "big")
        for key, digests in self._store.scan(TX_INDEX, begin, prefix=owner):
            for at in range(skipped * DIGEST_BYTES if key == begin else 0, len(digests), DIGEST_BYTES):
                found = self._surveys.by_digest(digests[at : at + DIGEST_BYTES])
                if found is not None:
                    yield _SIGNED + key + (at // DIGEST_BYTES).to_bytes(4, "big"), self.named(found)

    def _beginning_with(self, text: str) -> list[bytes]:
        """The digests of up to two transactions whose ids begin so."""
        if len(text) < PREFIX_CHARS_MIN:
            raise InvalidRequest.field("tx_id", f"{text!r} is too short: at least {PREFIX_CHARS_MIN} characters")
        try:
            known = unbase32(text.ljust(TX_ID_CHARS, "a"))[: len(text) * 5 // 8]
        except ValueError:
            return []
        found: list[bytes] = []
        for digest, _ in self._store.scan(TXS, prefix=known):
            if len(digest) == DIGEST_BYTES and base32(digest).startswith(text):
                found.append(digest)
            if len(found) == 2:
                break
        return found
