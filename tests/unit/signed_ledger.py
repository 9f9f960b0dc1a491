"""A ledger's papers, and light receipts of it, as nodes would write them, signed with real keys of a mesh that is
nowhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from signed_receipts import ADMIN, GENESIS, HOST, OTHER, ROOT, link, record

from offgrid.client.papers import document
from offgrid.v1 import ledger_pb2, mesh_pb2
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.checkpoints import Checkpoint, cut_account
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.receipts import Final, LightReceipt, least
from offgrid_node.protocol.ledger.records import GENESIS_KIND, LedgerGenesis, Tx, encode_meta
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_node.protocol.mesh.records import GENESIS_KIND as MESH_KIND
from offgrid_node.protocol.mesh.records import Genesis, signed

BOTH = NodeKey(b"w" * 32)
WITNESSES = (HOST, OTHER, ADMIN, BOTH)
LEDGER = LedgerGenesis(
    ADMIN.node_id, tuple((key.node_id, 1_000) for key in WITNESSES), ((HOST.node_id, 10**9),), 1_000, 7
)
TX = Tx(
    NodeSource(node_id_bytes(HOST.node_id)), 3, bytes(range(32)), 1_000, ((node_id_bytes(OTHER.node_id), 2_500_000),),
    encode_meta({"note": "two nets"}),
)  # fmt: skip


def papers_of(ledger: LedgerGenesis = LEDGER, epochs: Sequence[ledger_pb2.Epoch] = (), **made: Any) -> dict[str, Any]:
    """As `offgrid ledger genesis` writes them; the root vouches for everybody."""
    genesis, proofs = opened(ledger, **made)
    return document(genesis, epochs, proofs.__getitem__)


def epoch_of(
    *sealed: NodeKey,
    then: Sequence[NodeKey],
    number: int = 0,
    previous: bytes = b"",
    ledger: LedgerGenesis = LEDGER,
    salt: bytes = GENESIS.salt,
) -> ledger_pb2.Epoch:
    """One that has ended, sealed by these; `then` witness the next."""
    root, zeros = ledger.digest(salt), bytes(32)
    witnesses = tuple((key.node_id, 1_000) for key in then)
    body = Checkpoint(root, number, previous or root, zeros, 1, 10**9, 0, zeros, zeros, zeros, witnesses, 7)
    digest = body.digest(salt)
    final = Final(root, cut_account(root, number, salt), 0, digest, number).digest(salt)
    return ledger_pb2.Epoch(
        epoch=number,
        checkpoint=digest,
        body=body.encode(),
        next_witnesses=[ledger_pb2.Witness(node_id=node) for node, _ in witnesses],
        sealed=[ledger_pb2.Witness(node_id=key.node_id) for key in sealed],
        seals=[key.sign(final) for key in sealed],
        is_sealed=True,
    )


def opened(
    ledger: LedgerGenesis = LEDGER,
    *,
    by: NodeKey = ADMIN,
    admin: bool = True,
    mesh: Genesis = GENESIS,
    changes: dict[str, Sequence[mesh_pb2.KeyChange]] | None = None,
) -> tuple[ledger_pb2.GetGenesisResponse, dict[str, mesh_pb2.GetMemberProofResponse]]:
    """What a node answers of the ledger and of its members."""

    def proof(key: NodeKey) -> mesh_pb2.GetMemberProofResponse:
        name = f"n-{key.node_id[:6]}"
        made = record(key, name, admin=admin and key.node_id == ledger.issuer)
        return mesh_pb2.GetMemberProofResponse(
            genesis=signed(MESH_KIND, mesh.salt, mesh.body, ROOT),
            records=[link(made, genesis=mesh, changes=(changes or {}).get(key.node_id, ()))],
            member=mesh_pb2.Member(name=name),
            mesh_id=mesh.mesh_id,
        )

    genesis = ledger_pb2.GetGenesisResponse(
        open=True,
        issuer=ledger.issuer,
        ledger_genesis=signed(GENESIS_KIND, mesh.salt, ledger.encode(), by),
        witnesses=[ledger_pb2.Witness(node_id=node, weight_milli=weight) for node, weight in ledger.witnesses],
    )
    return genesis, {key.node_id: proof(key) for key in WITNESSES}


def receipt_of(
    *keys: NodeKey,
    tx: Tx = TX,
    ledger: LedgerGenesis = LEDGER,
    mesh: Genesis = GENESIS,
    epoch: int = 0,
    committee: Committee | None = None,
) -> LightReceipt:
    """By the first of these that are enough."""
    final = Final(ledger.digest(mesh.salt), tx.src, tx.seq, tx.digest(mesh.salt), epoch)
    digest = final.digest(mesh.salt)
    committee = committee or Committee(ledger.witnesses)
    made = {committee.bit_of(node_id_bytes(key.node_id)): key.sign(digest) for key in keys}
    found = least(committee, made, epoch)
    return found or LightReceipt(epoch, sum(made), tuple(made[bit] for bit in sorted(made)))


def shown(tx: Tx = TX) -> bytes:
    """As `offgrid tx show --json` gives it."""
    body = base64.b64encode(tx.encode()).decode()
    return json.dumps({"transaction": {"tx_id": "…", "signed": {"body": body, "signature": ""}}}).encode()


def written(papers: dict[str, Any]) -> bytes:
    return json.dumps(papers, indent=1).encode()
