"""A ledger's papers as a file that stands alone: its genesis, and what shows whose keys the witnesses' are.

With it whoever knows the mesh's id needs neither node nor mesh to check a light receipt: `offgrid tx verify-receipt`,
or `offgrid_node.protocol.ledger.papers`, which says what each field must be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from offgrid.client.proofs import member_part, mesh_part, signed_part
from offgrid.v1 import ledger_pb2, mesh_pb2

VERSION = 1


def document(
    genesis: ledger_pb2.GetGenesisResponse, proof: Callable[[str], mesh_pb2.GetMemberProofResponse]
) -> dict[str, Any]:
    """`genesis` is `client.ledger.genesis()`, `proof` is `client.mesh.proof`.

    Raises ValueError while the ledger is not open.
    """
    if not genesis.open:
        raise ValueError("the mesh's ledger is not open")
    opened_by = proof(genesis.issuer)
    return {
        "offgrid_ledger": VERSION,
        "mesh": mesh_part(opened_by),
        "genesis": signed_part(genesis.ledger_genesis),
        "issuer": member_part(opened_by),
        "witnesses": [member_part(proof(witness.node_id)) for witness in genesis.witnesses],
    }
