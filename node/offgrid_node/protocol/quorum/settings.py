"""What a node's identity and mesh tell the quorum machine."""

from __future__ import annotations

import msgspec

from offgrid_node.protocol.effects import Signer

FENCES_MAX = 100_000  # acks that a member signs for one owner
TRACKED_MAX = 1_000_000  # quorums of one owner that a broker keeps track of


class QuorumSettings(msgspec.Struct, frozen=True):
    """`salt` is the mesh's."""

    signer: Signer
    salt: bytes
    fences_max: int = FENCES_MAX
    tracked_max: int = TRACKED_MAX

    @property
    def node_id(self) -> str:
        return self.signer.node_id
