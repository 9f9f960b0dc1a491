"""What it costs on the wire to settle many receipts of many hosts: real machines of one core, its hosts and witnesses.

The core books receipts in batches, as hosts bring them; what leaves any node until every host is paid is counted: the
funds of the holds, the vouchers that are really sent, each host's post, and the votes and confirms of all of these, as
blocks that each author says once, and vouchers with their answers. What gossip adds on top is another figure's.
"""

from __future__ import annotations

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Call
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.commands import Settle
from offgrid_node.protocol.ledger.delivery import GATHER_MS
from offgrid_node.protocol.ledger.settings import SETTLEMENT_INTERVAL_MS
from offgrid_node.protocol.ledger.tables import ACCOUNTS
from offgrid_tools.ledgersim.keys import START_MICRO
from offgrid_tools.ledgersim.whole.node import SETTLE_MS
from offgrid_tools.ledgersim.whole.world import World

CALM_MS = 10_000  # after the start, until all witnesses have met
WITNESSES, AMOUNT_MICRO = 4, 5
ANSWER_BYTES = 16  # a voucher's, with its framing


class Settled(msgspec.Struct, frozen=True):
    """Bytes of all nodes together."""

    hosts: int
    receipts: int
    block_bytes: int
    voucher_bytes: int
    vouchers: int
    paid_once: bool  # every host has just what its receipts add up to

    @property
    def bytes_per_host(self) -> float:
        return (self.block_bytes + self.voucher_bytes) / self.hosts


class _Counted(World):
    """A world that counts what is said in it."""

    def __init__(self, seed: int, hosts: int) -> None:
        self.blocks: dict[bytes, int] = {}
        self.voucher_bytes = self.vouchers = 0
        super().__init__(seed, WITNESSES, observers=hosts + 1, settle_ms=SETTLEMENT_INTERVAL_MS)

    def carry(self, sender: str, call: Call, on_end: object) -> None:
        if isinstance(call.request, ledger_pb2.PushBlocksRequest):
            for block in call.request.blocks:
                self.blocks[block.header.body] = block.ByteSize()
        elif isinstance(call.request, ledger_pb2.DeliverVouchersRequest):
            self.voucher_bytes += call.request.ByteSize() + ANSWER_BYTES
            self.vouchers += len(call.request.vouchers)
        super().carry(sender, call, on_end)  # type: ignore[arg-type]


def settle_receipts(hosts: int = 64, receipts: int = 10_000, batches: int = 2, seed: int = 1) -> Settled:
    """`receipts` in so many batches, each host's share in each; then every host settles by hand, once."""
    world = _Counted(seed, hosts)
    world.open()
    world.run(CALM_MS)
    core, payees = world.nodes[world.names[WITNESSES]], world.names[WITNESSES + 1 :]
    world.blocks.clear()
    earned = dict.fromkeys(payees, 0)
    for batch in range(batches):
        costs = []
        for number in range(receipts * batch // batches, receipts * (batch + 1) // batches):
            payee = payees[number % hosts]
            costs.append(CostIncurred(f"j-{number}", 1, payee, AMOUNT_MICRO, "compute"))
            earned[payee] += AMOUNT_MICRO
        core.step(costs)
        world.run(GATHER_MS * 3 ** (batch + 1))  # the second voucher is gathered for twice as long as the hold is old
    for payee in payees:
        world.nodes[payee].ask(Settle(b""))
    world.run(SETTLE_MS)
    paid = {}
    for payee in payees:
        row = core.store.get(ACCOUNTS, node_id_bytes(payee))
        paid[payee] = Account.decode(row).balance_micro - START_MICRO if row is not None else 0
    return Settled(
        hosts, receipts, sum(world.blocks.values()), world.voucher_bytes, world.vouchers, paid_once=paid == earned
    )
