"""Clients that pay each other: small transfers, one after the other, none to be lost and none to be paid twice."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from offgrid.client import Client
from offgrid_tools.soak.clients import Writer

AMOUNT_MAX_MICRO = 1_000_000
PAUSE_S = 0.3


class Paid(msgspec.Struct):
    """What the node has acknowledged: this transfer is to become final, once. `node` is the payer's name."""

    node: str
    transfer_id: str
    dst: str
    amount_micro: int


class Paying(Writer):
    """One client at the node of the same name."""

    payees: Sequence[str] = ()
    paid: list[Paid] = msgspec.field(default_factory=list)

    def step(self, client: Client, number: int) -> None:
        dst, amount = self.rng.choice(self.payees), self.rng.randint(1, AMOUNT_MAX_MICRO)
        request_id = f"{self.name}-{number}"
        made = self.insist(lambda: client.ledger.transfer(dst, amount, request_id=request_id))
        if made is not None:
            self.paid.append(Paid(self.name, made.transfer_id, dst, amount))
        self._stop.wait(PAUSE_S)
