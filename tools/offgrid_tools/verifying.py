"""Checks receipts with real signatures, for `offgrid job verify-receipt` and `offgrid tx verify-receipt`: no node, no
mesh, no network."""

from __future__ import annotations

from offgrid_node.keys import verify
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.jobs.evidence import FILE_BYTES_MAX, MESH_CHARS_MIN, Verdict, check_file, facts_of
from offgrid_node.protocol.ledger import papers
from offgrid_node.protocol.ledger.papers import PAPERS_BYTES_MAX, TX_BYTES_MAX
from offgrid_node.protocol.ledger.records import decode_meta, tx_id_of
from offgrid_node.protocol.mesh.token import PREFIX

__all__ = ["FILE_BYTES_MAX", "LIGHT_BYTES_MAX", "PAPERS_BYTES_MAX", "TX_BYTES_MAX", "Verdict", "check", "check_light",
           "facts_of", "light_facts", "mesh_named"]  # fmt: skip

LIGHT_BYTES_MAX = 16 * 1024  # of a light receipt, as text with line breaks


def mesh_named(text: str) -> str:
    """The beginning of a mesh id, from such a beginning or from an invite token, which has it behind "og1:".

    Raises ValueError for what is neither.
    """
    compact = "".join(text.split()).lower()
    if compact.startswith(PREFIX):
        compact = compact.removeprefix(PREFIX).partition("@")[0].replace("-", "")[:MESH_CHARS_MIN]
    if len(compact) < MESH_CHARS_MIN or not set(compact) <= set("abcdefghijklmnopqrstuvwxyz234567"):
        raise ValueError(
            f"{text!r} names no mesh: `offgrid status` shows its id, of which {MESH_CHARS_MIN} characters or more will "
            "do, as will an invite token of it"
        )
    return compact


def check(data: bytes, *, mesh: str = "", result: bytes | None = None) -> Verdict:
    """As `evidence.check_file`."""
    return check_file(data, verify, mesh=mesh, result=result)


def check_light(receipt: bytes, tx: bytes, ledger: bytes, *, mesh: str = "") -> papers.Verdict:
    """As `papers.check_receipt`."""
    return papers.check_receipt(receipt, tx, ledger, verify, mesh=mesh)


def light_facts(verdict: papers.Verdict) -> dict[str, object]:
    """What a valid light receipt proves, and who says so."""
    tx, ledger = verdict.tx, verdict.papers
    assert verdict.valid
    assert tx is not None
    assert ledger is not None
    return {
        "tx_id": tx_id_of(verdict.tx_digest),
        "src": base32(tx.src),
        "seq": tx.seq,
        "outputs": [{"account": base32(account), "amount_micro": amount} for account, amount in tx.outputs],
        "fee_micro": tx.fee_micro,
        "meta": decode_meta(tx.meta),
        "said": [{"name": name, "weight_milli": weight} for name, weight in verdict.said],
        "mesh": {"id": ledger.mesh_id, "name": ledger.mesh_name},
    }
