"""What a node's config and keys tell the ledger machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.ids import node_id_bytes


@dataclass(frozen=True)
class LedgerSettings:
    """`salt` is the mesh's. With `enabled` False (economy.enabled) the machine stays silent: it refuses every command,
    books nothing and tells nobody anything; what it had before stays."""

    signer: Signer
    salt: bytes
    enabled: bool = True

    @property
    def node_id(self) -> str:
        return self.signer.node_id

    @cached_property
    def account(self) -> bytes:
        """This node's own account, which is also its name as an author of blocks."""
        return node_id_bytes(self.signer.node_id)
