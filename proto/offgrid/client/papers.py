"""A ledger's papers as a file that stands alone: its genesis, its checkpoints, and what shows whose keys the witnesses'
are.

With it whoever knows the mesh's id needs neither node nor mesh to check a light receipt: `offgrid tx verify-receipt`,
or `offgrid_node.protocol.ledger.papers`, which says what each field must be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Any

from offgrid.client.proofs import member_part, mesh_part, signed_part
from offgrid.v1 import ledger_pb2, mesh_pb2

VERSION = 1


def document(
    genesis: ledger_pb2.GetGenesisResponse,
    epochs: Iterable[ledger_pb2.Epoch],
    proof: Callable[[str], mesh_pb2.GetMemberProofResponse],
) -> dict[str, Any]:
    """`genesis` is `client.ledger.genesis()`, `epochs` is `client.ledger.epochs()`, `proof` is `client.mesh.proof`.
    Behind an epoch whose end too few have sealed as yet, the file has none.

    Raises ValueError while the ledger is not open.
    """
    if not genesis.open:
        raise ValueError("the mesh's ledger is not open")
    opened_by = proof(genesis.issuer)
    ended = [*takewhile(lambda epoch: epoch.is_sealed, sorted(epochs, key=lambda epoch: epoch.epoch))]
    witnesses = dict.fromkeys(
        witness.node_id
        for chosen in (genesis.witnesses, *(epoch.next_witnesses for epoch in ended))
        for witness in chosen
    )
    return {
        "offgrid_ledger": VERSION,
        "mesh": mesh_part(opened_by),
        "genesis": signed_part(genesis.ledger_genesis),
        "issuer": member_part(opened_by),
        "epochs": [
            {
                "checkpoint": epoch.body.hex(),
                "seals": {witness.node_id: seal.hex() for witness, seal in zip(epoch.sealed, epoch.seals, strict=True)},
            }
            for epoch in ended
        ],
        "witnesses": [member_part(proof(node)) for node in witnesses],
    }
