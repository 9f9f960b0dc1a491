"""How vouchers get to their payees: the newest of each hold, gathered for a while, one call under way to each payee.

What is promised is durable before its voucher leaves, and a later voucher says all that an earlier one said, so a lost
call costs nothing but time. So vouchers are gathered for longer and longer while a hold lasts, twice its age, but the
last one comes LEAD_MS before the payee is to post it. Whoever comes up is asked what it holds, for it may have lost
what it had acked; it is told again what it lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.commands import VOUCHERS_MAX
from offgrid_node.protocol.ledger.given import GivenHolds
from offgrid_node.protocol.ledger.settings import LedgerSettings

GATHER_MS = 5_000  # at least: a payee's receipts come in batches, and each voucher says all
LEAD_MS = 2 * GATHER_MS
RETRY_MS = 10_000
CALL_TIMEOUT_MS = 10_000
METHOD = "offgrid.v1.LedgerService/DeliverVouchers"


class VoucherTag(msgspec.Struct, frozen=True):
    """Which of our calls has ended, and what it said: hold, amount, count, of a question what is acked."""

    node: str
    said: tuple[tuple[bytes, int, int], ...]


class Delivery:
    """Payees alive, and when the next call to each is due."""

    def __init__(self, settings: LedgerSettings, draft: Draft, given: GivenHolds) -> None:
        self._settings, self._draft, self._given = settings, draft, given
        self.up: set[str] = set()
        self._due_ms: dict[str, int] = {}
        self._calling: set[str] = set()

    def deadline_ms(self) -> int | None:
        return min((at for node, at in self._due_ms.items() if node in self.up), default=None)

    def on_peer_up(self, node: str, now: Now) -> None:
        self.up.add(node)
        self._calling.discard(node)  # whatever was under way may never end
        self._given.ask_again(node_id_bytes(node))
        self._due_ms[node] = now.mono_ms + GATHER_MS
        self.ask_unsure(now)

    def on_peer_down(self, node: str) -> None:
        self.up.discard(node)

    def on_promised(self, node: str, now: Now) -> None:
        """There may be more to tell than was told."""
        if node not in self._calling:
            self._due_ms.setdefault(node, now.mono_ms + self._gather_ms(node, now))

    def ask_unsure(self, now: Now) -> None:
        """At once, those who have to say first what they hold; soon, those who are to end a hold."""
        for node in sorted(self.up - self._calling):
            payee = node_id_bytes(node)
            if self._given.unsure(payee):
                self._due_ms[node] = now.mono_ms
            elif any(self._given.untold(payee)):
                self._due_ms.setdefault(node, now.mono_ms + GATHER_MS)

    def on_answered(self, tag: VoucherTag, answered: Answered, now: Now) -> None:
        self._calling.discard(tag.node)
        held = _held(answered)
        is_acked = len(held) >= len(tag.said)
        for (hold, amount, count), holds in zip(tag.said, held, strict=False):
            self._given.on_told(hold, amount, count, holds)
            is_acked &= holds >= amount
        untold = [*self._given.untold(node_id_bytes(tag.node))]
        if untold:
            is_acked &= not any(given.row.frozen for given in untold)  # these are to be ended now
            self._due_ms[tag.node] = now.mono_ms + (self._gather_ms(tag.node, now) if is_acked else RETRY_MS)

    def on_time(self, now: Now) -> None:
        """Before the rows of this step are written: what is told stands in them."""
        for node in [node for node, at in self._due_ms.items() if at <= now.mono_ms and node in self.up]:
            del self._due_ms[node]
            untold = [*islice(self._given.untold(node_id_bytes(node)), VOUCHERS_MAX)]
            asked = [given for given in untold if given.asks and (given.is_lost or not given.row.frozen)]
            told = [given for given in untold if given not in asked]
            if untold:
                said = [(each.terms.account, each.row.amount_micro, each.row.count) for each in told]
                said += [(each.terms.account, each.row.told_micro, each.row.told_count) for each in asked]
                request = ledger_pb2.DeliverVouchersRequest(
                    vouchers=map(self._given.voucher, told), asked=[each.terms.account for each in asked]
                )
                self._calling.add(node)
                self._draft.send(Call("ledger", node, METHOD, request, VoucherTag(node, tuple(said)), CALL_TIMEOUT_MS))

    def _gather_ms(self, node: str, now: Now) -> int:
        """What is promised when it is too late for the last one before a settlement waits for the next hold."""
        settles_ms = (self._settings.settles_us(now.utc_us) - now.utc_us) // 1_000
        last_ms = settles_ms - LEAD_MS if settles_ms >= LEAD_MS + GATHER_MS else settles_ms + GATHER_MS
        return max(GATHER_MS, min(2 * self._given.age_ms(node_id_bytes(node), now), last_ms))


def _held(answered: Answered) -> Sequence[int]:
    """What the payee says that it holds, of each voucher in its turn. One whose economy is off takes none, and is
    promised to all the same: it is paid when the hold's time is over."""
    if isinstance(answered.reply, ledger_pb2.DeliverVouchersResponse):
        return answered.reply.held_micro
    return [0] * VOUCHERS_MAX if answered.fault is not None and answered.fault.reason == "EconomyOff" else ()
