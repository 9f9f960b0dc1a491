"""How vouchers get to their payees: the newest of each hold, gathered for a while, one call under way to each payee.

What is promised is durable before its voucher leaves, and a later voucher says all that an earlier one said, so a lost
call costs nothing but time: whoever comes up is told everything again, for it may have lost what it had acked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.commands import VOUCHERS_MAX
from offgrid_node.protocol.ledger.given import GivenHolds

GATHER_MS = 5_000  # a payee's receipts come in batches, and each voucher says all
RETRY_MS = 10_000
CALL_TIMEOUT_MS = 10_000
METHOD = "offgrid.v1.LedgerService/DeliverVouchers"


@dataclass(frozen=True, slots=True)
class VoucherTag:
    """Which of our calls has ended, and what it said: hold, amount, count."""

    node: str
    said: tuple[tuple[bytes, int, int], ...]


class Delivery:
    """Payees alive, and when the next call to each is due."""

    def __init__(self, draft: Draft, given: GivenHolds) -> None:
        self._draft, self._given = draft, given
        self.up: set[str] = set()
        self._due_ms: dict[str, int] = {}
        self._calling: set[str] = set()

    def deadline_ms(self) -> int | None:
        return min((at for node, at in self._due_ms.items() if node in self.up), default=None)

    def on_peer_up(self, node: str, now: Now) -> None:
        self.up.add(node)
        self._calling.discard(node)  # whatever was under way may never end
        self._given.tell_again(node_id_bytes(node))
        self.on_promised(node, now)
        self.ask_unsure(now)

    def on_peer_down(self, node: str) -> None:
        self.up.discard(node)

    def on_promised(self, node: str, now: Now) -> None:
        """There may be more to tell than was told."""
        if node not in self._calling:
            self._due_ms.setdefault(node, now.mono_ms + GATHER_MS)

    def ask_unsure(self, now: Now) -> None:
        """At once, those who have to say first what they hold; soon, those who are to end a hold."""
        for node in sorted(self.up - self._calling):
            payee = node_id_bytes(node)
            if self._given.unsure(payee):
                self._due_ms[node] = now.mono_ms
            elif any(self._given.untold(payee)):
                self.on_promised(node, now)

    def on_answered(self, tag: VoucherTag, answered: Answered, now: Now) -> None:
        self._calling.discard(tag.node)
        for (hold, amount, count), held in zip(tag.said, _held(answered), strict=False):
            self._given.on_told(hold, amount, count, held)
        if any(self._given.untold(node_id_bytes(tag.node))):
            self._due_ms[tag.node] = now.mono_ms + RETRY_MS

    def on_time(self, now: Now) -> None:
        """Before the rows of this step are written: what is told stands in them."""
        for node in [node for node, at in self._due_ms.items() if at <= now.mono_ms and node in self.up]:
            del self._due_ms[node]
            vouchers = [
                (given.terms.account, self._given.voucher(given))
                for given in islice(self._given.untold(node_id_bytes(node)), VOUCHERS_MAX)
            ]
            if vouchers:
                said = tuple((hold, voucher.amount_micro, voucher.count) for hold, voucher in vouchers)
                request = ledger_pb2.DeliverVouchersRequest(vouchers=[voucher for _, voucher in vouchers])
                self._calling.add(node)
                self._draft.send(Call("ledger", node, METHOD, request, VoucherTag(node, said), CALL_TIMEOUT_MS))


def _held(answered: Answered) -> Sequence[int]:
    """What the payee says that it holds, of each voucher in its turn. One whose economy is off takes none, and is
    promised to all the same: it is paid when the hold's time is over."""
    if isinstance(answered.reply, ledger_pb2.DeliverVouchersResponse):
        return answered.reply.held_micro
    return [0] * VOUCHERS_MAX if answered.fault is not None and answered.fault.reason == "EconomyOff" else ()
