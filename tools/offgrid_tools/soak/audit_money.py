"""What must be true of money when the killing is over: every acknowledged transfer is final, once; every node says the
same of every account; what jobs cost is booked once and paid; and not one millionth was made or lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress

import msgspec

from offgrid.client import OffgridError
from offgrid.v1 import ledger_pb2
from offgrid_node.local_mesh import LocalMesh
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.audit import overdrawn, sums
from offgrid_node.protocol.ledger.records import Tx, tx_id_of
from offgrid_node.protocol.ledger.tables import TXS
from offgrid_node.storage.store import Store
from offgrid_tools.soak.patience import Patience
from offgrid_tools.soak.paying import Paid

POLL_S = 0.3
FINAL = ledger_pb2.TX_STATE_FINAL


class Money(msgspec.Struct):
    """What the nodes say of the ledger at last."""

    balances: dict[str, ledger_pb2.ListBalancesResponse] = msgspec.field(default_factory=dict)  # by node
    bookings: ledger_pb2.ListBookingsResponse = msgspec.field(default_factory=ledger_pb2.ListBookingsResponse)
    final: dict[str, ledger_pb2.Transaction] = msgspec.field(default_factory=dict)  # by transfer

    def unpaid(self, *, promised: bool) -> list[str]:
        """The jobs that are not paid yet; what is only promised counts when it is asked for."""
        return [each.job_id for each in self.bookings.bookings if each.owed or (promised and each.promised)]

    @property
    def equal(self) -> bool:
        """But for the names of holds, which only who pays out of one or is paid from it knows."""
        views = [_nameless(view) for view in self.balances.values()]
        return all(view == views[0] for view in views)


def settle_money(
    mesh: LocalMesh, core: str, paid: Iterable[Paid], patience: Patience, *, all_paid: bool = False
) -> tuple[Money, list[str]]:
    """Waits until all transfers are final, nothing is owed, with `all_paid` nothing promised either, and all nodes
    agree; says what has not come to that."""
    waiting = {(payment.node, payment.transfer_id): payment for payment in paid}
    money = Money()
    while patience.waits_for([*(transfer_id for _, transfer_id in waiting), *money.unpaid(promised=all_paid)]):
        for node, transfer_id in list(waiting):
            with suppress(OffgridError), mesh[node].client(10) as client:
                transaction = client.ledger.transaction(transfer_id)
                if transaction.state == FINAL:
                    money.final[transfer_id] = transaction
                    del waiting[node, transfer_id]
        with suppress(OffgridError):
            for node in mesh.nodes:
                with mesh[node].client(10) as client:
                    money.balances[node] = client.ledger.balances()
            with mesh[core].client(10) as client:
                money.bookings = client.ledger.bookings()
            unpaid = money.bookings.owed_micro or money.unpaid(promised=all_paid)
            if not waiting and not unpaid and len(money.balances) == len(mesh.nodes) and money.equal:
                return money, []
        time.sleep(POLL_S)
    broken = [f"transfer {transfer_id} of {node} is not final" for node, transfer_id in waiting]
    if left := money.unpaid(promised=all_paid):
        broken.append(f"{core} has not paid {len(left)} jobs, {left[0]} among them")
    if not money.equal:
        broken.append(f"the nodes hold different balances: {_told(money)}")
    return money, broken


def audit_money(money: Money, paid: Iterable[Paid], accepted: Iterable[str]) -> list[str]:
    """The money is all there, each transfer paid what it should, and each accepted job is booked once."""
    broken = []
    for node, view in money.balances.items():
        total = sum(balance.final_micro for balance in view.balances) + view.fees_micro
        if total != view.supply_micro:
            broken.append(f"{node}: balances and fees are {total}, the supply is {view.supply_micro}")
    for payment in paid:
        transaction = money.final.get(payment.transfer_id, ledger_pb2.Transaction())
        if [(output.name, output.amount_micro) for output in transaction.outputs] != [
            (payment.dst, payment.amount_micro)
        ]:
            broken.append(f"transfer {payment.transfer_id} did not pay {payment.amount_micro} to {payment.dst}")
    booked, jobs = Counter(booking.job_id for booking in money.bookings.bookings), set(accepted)
    broken += [f"job {job_id} is accepted and not booked" for job_id in sorted(jobs - booked.keys())]
    broken += [f"job {job_id} is booked {count} times" for job_id, count in booked.items() if count > 1]
    broken += [f"job {job_id} is booked and not accepted" for job_id in sorted(booked.keys() - jobs)]
    return broken


def audit_ledgers(stores: Mapping[str, Store]) -> list[str]:
    """At rest: conserved in every store, nobody overdrawn, and one final transaction per slot, the same everywhere."""
    broken: list[str] = []
    final: dict[tuple[str, int], tuple[str, str]] = {}
    for node, store in stores.items():
        found = sums(store)
        if not found.conserved:
            broken.append(f"{node}: balances {found.balances_micro}, fees {found.fees_micro}, of {found.supply_micro}")
        broken += [f"{node}: {account} is overdrawn" for account in overdrawn(store)]
        for digest, value in store.scan(TXS):
            row = ledger_pb2.TxRow.FromString(value)
            if row.state == FINAL:
                tx, tx_id = Tx.decode(row.signed.body), tx_id_of(digest)
                first = final.setdefault((base32(tx.src), tx.seq), (node, tx_id))
                if first[1] != tx_id:
                    broken.append(
                        f"slot {base32(tx.src)}/{tx.seq}: {first[1]} is final at {first[0]}, {tx_id} at {node}"
                    )
    return broken


def _nameless(view: ledger_pb2.ListBalancesResponse) -> ledger_pb2.ListBalancesResponse:
    nameless = ledger_pb2.ListBalancesResponse()
    nameless.CopyFrom(view)
    for balance in nameless.balances:
        balance.ClearField("name")
    nameless.balances.sort(key=lambda balance: balance.account)
    return nameless


def _told(money: Money) -> str:
    views = {node: {b.name or b.account: b.final_micro for b in view.balances} for node, view in money.balances.items()}
    return "; ".join(f"{node}: {view}" for node, view in views.items())
