"""What a node's config and keys tell the ledger machine."""

from __future__ import annotations

from functools import cached_property

import msgspec

from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.pace import Paces, all_free

SETTLEMENT_INTERVAL_MS = 3_600_000
EPOCH_MS = 24 * 3_600_000
KEEP_MS = 30 * 86_400_000
KEEP_TXS = 300_000  # 10,000 a day for 30 days


class LedgerSettings(msgspec.Struct, frozen=True, dict=True):
    """`salt` is the mesh's. With `enabled` False (economy.enabled) the machine stays silent: it refuses every command,
    books nothing and tells nobody anything; what it had before stays. `settlement_interval_ms`
    (economy.settlement_interval) is how often vouchers of others are posted, by all at once, at each full one by the
    clock: that costs the witnesses less. `epoch_ms` (economy.epoch) is how long an epoch lasts where nothing else ends
    it before. `keep_ms`
    (economy.keep) is how long transactions can be looked up after they are final; of more than `keep_txs` the older
    ones go before (pruning.py)."""

    signer: Signer
    salt: bytes
    enabled: bool = True
    settlement_interval_ms: int = SETTLEMENT_INTERVAL_MS
    epoch_ms: int = EPOCH_MS
    keep_ms: int = KEEP_MS
    keep_txs: int = KEEP_TXS
    paces: Paces = all_free

    @property
    def node_id(self) -> str:
        return self.signer.node_id

    @cached_property
    def account(self) -> bytes:
        """This node's own account, which is also its name as an author of blocks."""
        return node_id_bytes(self.signer.node_id)

    def settles_us(self, after_us: int) -> int:
        """The first full settlement interval after that time."""
        interval_us = 1_000 * self.settlement_interval_ms
        return (after_us // interval_us + 1) * interval_us
