"""Epochs for whoever reads them, and what an admin orders of the next one: names become nodes, and what may be no
committee is refused by the field that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import InvalidRequest, NotFound
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes
from offgrid_node.protocol.ledger.checkpoints import ORDER_KIND, Checkpoint, Order, check_witnesses, cut_account
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.items import OrderItem, decode_item
from offgrid_node.protocol.ledger.pruned_start import seals_of
from offgrid_node.protocol.ledger.pruning import oldest_epoch
from offgrid_node.protocol.ledger.receipts import Final
from offgrid_node.protocol.ledger.records import DIGEST_BYTES
from offgrid_node.protocol.ledger.rewards import rewards
from offgrid_node.protocol.ledger.tables import CHECKPOINTS, ORDERS, SEALS, number_key, number_of
from offgrid_node.protocol.ledger.views import Surveys
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.signing import digest_of, signed_by
from offgrid_node.services.ledger.naming import AccountNames
from offgrid_node.services.ledger.opening import own_weight, resolve, weight_asked
from offgrid_node.services.paging import decode_token, page_bounds, take_page
from offgrid_node.storage.store import Store

EPOCHS_MAX = 20  # in one page: each has up to 64 signatures to check


class EpochReads:
    """Over committed rows."""

    def __init__(
        self,
        store: Store,
        names: AccountNames,
        signer: Signer,
        directory: Callable[[], Directory],
        verify: Verifier,
    ) -> None:
        self._store, self._surveys, self._names = store, Surveys(store), names
        self._signer, self._directory, self._verify = signer, directory, verify

    # ---- questions

    def epochs(self, request: ledger_pb2.ListEpochsRequest) -> ledger_pb2.ListEpochsResponse:
        """Newest first."""
        start = decode_token(request.page_token)
        if start and len(start) != len(number_key(0)):
            raise InvalidRequest.field("page_token", "it belongs to another list; begin again without it")
        end = number_key(number_of(start) + 1) if start else b""

        def rows() -> Iterator[tuple[bytes, ledger_pb2.Epoch]]:
            for key, value in self._store.scan(CHECKPOINTS, end=end, reverse=True):
                yield key, self._epoch(number_of(key), ledger_pb2.CheckpointRow.FromString(value))

        epochs, token = take_page(rows(), min(page_bounds(request.page_size), EPOCHS_MAX))
        return ledger_pb2.ListEpochsResponse(epochs=epochs, next_page_token=token)

    def checkpoint(self, epoch: int) -> ledger_pb2.GetCheckpointResponse:
        """The one with which `epoch` ended, as it is kept here. Raises NotFound."""
        value = self._store.get(CHECKPOINTS, number_key(epoch))
        if value is None:
            ended = self._surveys.epoch.number
            known = f"epochs 0 to {ended - 1} have" if ended else "none has"
            raise NotFound(f"epoch {epoch} has not ended here: {known}", reason="EpochNotFound")
        row = ledger_pb2.CheckpointRow.FromString(value)
        found = ledger_pb2.GetCheckpointResponse(body=row.body, heads=row.heads)
        for witness, digest, signature in seals_of(self._store, epoch):
            found.seals.add(witness=witness, digest=digest, signature=signature)
        return found

    def describe(self, status: ledger_pb2.GetLedgerStatusResponse, why_not: Iterable[str]) -> None:
        """What the status says of the epoch that it is."""
        row, witnesses = self._surveys.epoch, self._surveys.witnesses_of(self._surveys.epoch.number) or ()
        committee = Committee(witnesses)
        status.epoch, status.entered_us = row.number, row.entered_us
        status.oldest_epoch = oldest_epoch(self._store)
        status.wishing.extend(self._named(witnesses, committee.nodes_of(row.wished)))
        status.accused.extend(self._named(witnesses, committee.nodes_of(row.accused)))
        status.waits.extend(why_not)
        status.orders.extend(self.told(item) for item in self._orders())

    def told(self, item: OrderItem) -> ledger_pb2.CommitteeOrder:
        order, committee = item.order, Committee(item.order.witnesses)
        issuer = base32(order.issuer)
        return ledger_pb2.CommitteeOrder(
            epoch=order.epoch,
            witnesses=self._named(order.witnesses),
            issuer=issuer,
            issuer_name=self._names.of(issuer),
            created_us=order.created_us,
            digest=item.digest,
            quorum_milli=committee.quorum_milli,
            faults_survived=committee.faults_survived,
        )

    # ---- orders

    def order(self, request: ledger_pb2.OrderCommitteeRequest, ledger: bytes, now_us: int) -> OrderItem:
        """What the request asks for, signed: on top of the newest order that waits, else of the witnesses of now but
        for those who forked. Raises InvalidRequest and NotFound."""
        directory, waiting = self._directory(), self._orders()
        weights = dict(waiting[0].order.witnesses if waiting else self._standing())
        for index, asked in enumerate(request.add):
            field = f"add[{index}]"
            node = resolve(field, asked.node_id or asked.name, directory)
            if node in weights:
                raise InvalidRequest.field(field, f"{self._called(node)} witnesses already; `weigh` changes its weight")
            weights[node] = weight_asked(field, asked.weight_milli) or own_weight(directory, node)
            if not weights[node]:
                raise InvalidRequest.field(
                    field, f"{self._called(node)} weighs nothing by its membership; give a weight"
                )
        for index, asked in enumerate(request.weigh):
            field = f"weigh[{index}]"
            node = self._witness(field, asked.node_id or asked.name, weights)
            weights[node] = weight_asked(field, asked.weight_milli)
            if not weights[node]:
                raise InvalidRequest.field(field, "a weight of 0; more is allowed, and `remove` takes a witness out")
        for index, text in enumerate(request.remove):
            del weights[self._witness(f"remove[{index}]", text, weights)]
        witnesses = tuple(weights.items())
        try:
            check_witnesses(witnesses)
        except ValueError as error:
            raise InvalidRequest(f"these may be no committee: {error}") from error
        created_us = max(now_us, waiting[0].order.created_us + 1 if waiting else 0)
        own = self._signer.node_id
        epoch, key = self._surveys.epoch.number + 1, directory.key_number(own)
        order = Order(ledger, node_id_bytes(own), key, epoch, witnesses, created_us)
        body = order.encode()
        digest = digest_of(ORDER_KIND, directory.salt, body)
        return OrderItem(order, body, self._signer.sign(digest), digest)

    # ---- inside

    def _witness(self, field: str, text: str, weights: dict[str, int]) -> str:
        node = resolve(field, text, self._directory(), removed=True)
        if node not in weights:
            named = ", ".join(self._called(each) for each in weights)
            raise InvalidRequest.field(field, f"{text!r} is no witness; there are {named}")
        return node

    def _called(self, node: str) -> str:
        return self._names.of(node) or node

    def _standing(self) -> Sequence[tuple[str, int]]:
        """Those of now, without whoever forked, as far as the others weigh a quorum."""
        row = self._surveys.epoch
        witnesses = self._surveys.witnesses_of(row.number) or ()
        committee = Committee(witnesses)
        if not committee.enough(committee.all & ~row.accused):
            return witnesses
        accused = {*committee.nodes_of(row.accused)}
        return [(node, weight) for node, weight in witnesses if node not in accused]

    def _orders(self) -> list[OrderItem]:
        """Those that have force for the next epoch, the newest first."""
        directory, found = self._directory(), list[OrderItem]()
        for _, value in self._store.scan(ORDERS):
            item = decode_item(value, directory.salt)
            assert isinstance(item, OrderItem), "what is kept here is an order"
            issuer = base32(item.order.issuer)
            if directory.is_admin(issuer) and directory.key_number(issuer) == item.order.key:
                found.append(item)
        return sorted(found, key=lambda item: (item.order.created_us, item.digest), reverse=True)

    def _epoch(self, number: int, row: ledger_pb2.CheckpointRow) -> ledger_pb2.Epoch:
        body, salt = Checkpoint.decode(row.body), self._directory().salt
        witnesses, digest = self._surveys.witnesses_of(number) or (), body.digest(salt)
        shares, left = rewards(body.fees_micro, witnesses) if witnesses else ({}, body.fees_micro)
        committee, sealed = Committee(witnesses), dict(self._sealed(body, digest))
        mask = sum(committee.bit_of(node_id_bytes(node)) for node in sealed)
        return ledger_pb2.Epoch(
            epoch=number,
            ended_us=row.final_us,
            witnesses=self._named(witnesses),
            checkpoint=digest,
            body=row.body,
            accounts_root=body.accounts,
            accounts=body.count,
            supply_micro=body.supply_micro,
            fees_micro=body.fees_micro,
            rewards=[
                ledger_pb2.Output(account=node, name=self._names.of(node), amount_micro=amount)
                for node, amount in shares.items()
            ],
            left_micro=left,
            sealed=self._named(witnesses, sealed),
            is_sealed=bool(mask) and committee.one_is_honest(mask),
            order=body.order if any(body.order) else b"",
            next_witnesses=self._named(body.witnesses),
            seals=[sealed[node] for node, _ in witnesses if node in sealed],
        )

    def _sealed(self, body: Checkpoint, digest: bytes) -> Iterator[tuple[str, bytes]]:
        """Whose signature holds: rows have what came in blocks, where it was not checked."""
        directory = self._directory()
        final = Final(body.ledger, cut_account(body.ledger, body.epoch, directory.salt), 0, digest, body.epoch)
        signed = final.digest(directory.salt)
        for key, seal in self._store.scan(SEALS, prefix=number_key(body.epoch)):
            node = base32(key[-NODE_ID_BYTES:])
            if seal[:DIGEST_BYTES] == digest and signed_by(
                directory.keys(node), signed, seal[DIGEST_BYTES:], self._verify
            ):
                yield node, seal[DIGEST_BYTES:]

    def _named(
        self, witnesses: Iterable[tuple[str, int]], only: Iterable[str] | None = None
    ) -> list[ledger_pb2.Witness]:
        chosen = None if only is None else {*only}
        return [
            ledger_pb2.Witness(node_id=node, weight_milli=weight, name=self._names.of(node))
            for node, weight in witnesses
            if chosen is None or node in chosen
        ]
