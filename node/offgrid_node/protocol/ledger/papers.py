"""A ledger's papers: the file by which whoever trusts a mesh's root, and nothing else, checks light receipts.

The file is the JSON that `offgrid.client.papers` writes. Nothing in it is believed (mesh/documents.py): the root, or an
admin that it named, vouches for each witness' keys; the ledger's genesis, which names the witnesses, is signed by an
admin of the mesh. What it cannot show is which mesh is meant: who checks it compares the mesh id with one that he
knows. Nor can it show when a witness signed, so each of its keys so far counts, as in a job's receipt
(jobs/evidence.py).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.receipts import PREFIX, Final, LightReceipt, receipt_of_text
from offgrid_node.protocol.ledger.records import GENESIS_KIND, TX_KIND, LedgerGenesis, Tx
from offgrid_node.protocol.mesh.documents import (
    Problem,
    Wrong,
    blaming,
    hex_of,
    parsed,
    part_of,
    read_member,
    read_root,
    signed_of,
    tried,
    typed,
)
from offgrid_node.protocol.mesh.root import Root
from offgrid_node.protocol.mesh.vouching import Vouched
from offgrid_node.protocol.quorum.enough import decimal
from offgrid_node.protocol.signing import digest_of, signed_by

VERSION = 1
FORM, TX_FORM = "offgrid_ledger", "offgrid_transaction"
PARTS = ("mesh", "genesis", "issuer", "witnesses")
PAPERS_BYTES_MAX = 4 * 1024 * 1024  # 64 witnesses, each with the longest records and many keys, have some 2 MB
TX_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Papers:
    """What holds of a file: whose word counts in this ledger, and by which keys."""

    salt: bytes
    genesis: LedgerGenesis
    witnesses: Mapping[str, Vouched]
    mesh_id: str
    mesh_name: str


@dataclass(slots=True)
class Verdict:
    """`problems` is empty where everything holds; then the other fields are there. `said` are the names of those who
    signed, with their weights in thousandths."""

    problems: list[Problem] = field(default_factory=list)
    papers: Papers | None = None
    tx: Tx | None = None
    tx_digest: bytes = b""
    said: list[tuple[str, int]] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        return not self.problems


def check_receipt(receipt: bytes, tx: bytes, papers: bytes, verify: Verifier, *, mesh: str = "") -> Verdict:
    """What is wrong with a receipt; nothing raises, however the bytes came about.

    `receipt` is a receipt or its text, `tx` the transaction as `read_tx` takes it, `papers` the ledger's; `mesh` is the
    id of the mesh that it must be of, or the beginning of it (12 characters or more).
    """
    verdict = Verdict()
    light = tried(verdict.problems, lambda: read_receipt(receipt))
    body = tried(verdict.problems, lambda: read_tx(tx))
    verdict.papers = tried(verdict.problems, lambda: read_papers(papers, verify, mesh=mesh))
    if body is not None:
        verdict.tx = tried(verdict.problems, lambda: blaming("transaction", lambda: Tx.decode(body)))
    if light is not None and body is not None and verdict.tx is not None and verdict.papers is not None:
        verdict.tx_digest = digest_of(TX_KIND, verdict.papers.salt, body)
        ledger = verdict.papers.genesis.digest(verdict.papers.salt)
        final = Final(ledger, verdict.tx.src, verdict.tx.seq, verdict.tx_digest, light.epoch)
        verdict.problems += _unsaid(light, final, verdict.papers, verdict.said, verify)
    return verdict


# ---- each file


def read_receipt(data: bytes) -> LightReceipt:
    """Raises Wrong. A receipt as bytes, or as text."""

    def read() -> LightReceipt:
        if data.lstrip()[: len(PREFIX)].lower() == PREFIX.encode():
            return receipt_of_text(data.decode("ascii", "replace"))
        return LightReceipt.decode(data)

    return blaming("receipt", read)


def read_tx(data: bytes) -> bytes:
    """The body of a transaction as `offgrid tx show --json` gives it (an object with `signed.body` in base64, by itself
    or as `transaction`), or as `offgrid tx sign` writes it (`body` in hexadecimal digits). Whether its owner signed it
    is not asked: witnesses have. Raises Wrong."""
    if len(data) > TX_BYTES_MAX:
        raise Wrong("transaction", f"more than {TX_BYTES_MAX} bytes, which no transaction has")
    try:
        whole = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Wrong("transaction", f"it is no JSON of ours: {error}") from error
    whole = whole.get("transaction", whole) if isinstance(whole, dict) else None
    if isinstance(whole, dict) and TX_FORM in whole:
        return hex_of(whole.get("body"), "transaction.body")
    signed = whole.get("signed") if isinstance(whole, dict) else None
    if not isinstance(signed, dict) or not isinstance(signed.get("body"), str) or not signed["body"]:
        raise Wrong("transaction", "it has no signed.body: `offgrid tx show --json` gives one, once it is signed")
    try:
        return base64.b64decode(signed["body"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise Wrong("transaction", f"signed.body is no base64: {error}") from error


def read_papers(data: bytes, verify: Verifier, *, mesh: str = "") -> Papers:
    """Raises Wrong, which names the field."""
    whole = parsed(data, FORM, VERSION, PARTS, PAPERS_BYTES_MAX)
    root = read_root(part_of(whole, "mesh", dict), verify, mesh)
    genesis = _genesis(whole, root, verify)
    parts = typed(whole["witnesses"], "witnesses", list)
    if len(parts) != len(genesis.witnesses):
        raise Wrong("witnesses", f"{len(parts)}, but the genesis names {len(genesis.witnesses)}")
    witnesses = {
        node: _member(part, f"witnesses[{place}]", root, node, verify)
        for place, ((node, _), part) in enumerate(zip(genesis.witnesses, parts, strict=True))
    }
    return Papers(root.genesis.salt, genesis, witnesses, root.genesis.mesh_id, root.genesis.mesh_name)


def _genesis(whole: Mapping[str, Any], root: Root, verify: Verifier) -> LedgerGenesis:
    message = signed_of(whole["genesis"], "genesis")
    genesis = blaming("genesis", lambda: LedgerGenesis.decode(message.body))
    issuer = _member(whole["issuer"], "issuer", root, genesis.issuer, verify)
    if not issuer.record.admin:
        raise Wrong("issuer", f"{genesis.issuer} is no admin of the mesh by its record, so it may open no ledger")
    digest = digest_of(GENESIS_KIND, root.genesis.salt, message.body)
    if not signed_by(issuer.keys, digest, message.signature, verify):
        raise Wrong("genesis", f"the signature is not that of its issuer, {genesis.issuer}")
    return genesis


def _member(value: object, name: str, root: Root, node: str, verify: Verifier) -> Vouched:
    return read_member(typed(value, name, dict), name, root, node, verify)


# ---- the receipt against them


def _unsaid(
    light: LightReceipt, final: Final, papers: Papers, said: list[tuple[str, int]], verify: Verifier
) -> list[Problem]:
    """What is missing for the receipt to prove that; `said` gets who has signed."""
    committee, weights = Committee(papers.genesis.witnesses), dict(papers.genesis.witnesses)
    if light.epoch != papers.genesis.epoch:
        return [
            Problem("receipt", f"it is of epoch {light.epoch}, these papers are those of epoch {papers.genesis.epoch}")
        ]
    if light.witnesses & ~committee.all:
        named, there = light.witnesses.bit_length(), len(weights)
        return [Problem("receipt", f"it names witness {named}, the ledger has {there}: is it of another ledger?")]
    digest, problems = final.digest(papers.salt), list[Problem]()
    for bit, signature in light.by_bit().items():
        [node] = committee.nodes_of(bit)
        witness = papers.witnesses[node]
        if signed_by(witness.keys, digest, signature, verify):
            said.append((witness.record.name, weights[node]))
        else:
            what = f"the signature of {witness.record.name} ({node}) is not for this transaction, or not by its key"
            problems.append(Problem("receipt", what))
    if not problems and not committee.one_is_honest(light.witnesses):
        weight, needed = committee.weight(light.witnesses), committee.honest_milli
        what = f"those who signed weigh {decimal(weight)}; {decimal(needed)} or more are needed, so that one is honest"
        problems.append(Problem("receipt", what))
    return problems
