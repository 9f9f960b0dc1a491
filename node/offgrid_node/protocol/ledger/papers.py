"""A ledger's papers: the file by which whoever trusts a mesh's root, and nothing else, checks light receipts.

The file is the JSON that `offgrid.client.papers` writes. Nothing in it is believed (mesh/documents.py): the root, or an
admin that it named, vouches for each witness' keys; the ledger's genesis, which names the first witnesses, is signed by
an admin of the mesh, and each checkpoint, which names the next ones, is sealed by those of its epoch. What it cannot
show is which mesh is meant: who checks it compares the mesh id with one that he knows. Nor can it show when a witness
signed, so each of its keys so far counts, as in a job's receipt (jobs/evidence.py).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.checkpoints import Checkpoint, Witnesses, cut_account
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.receipts import PREFIX, Final, LightReceipt, receipt_of_text
from offgrid_node.protocol.ledger.records import GENESIS_KIND, TX_KIND, LedgerGenesis, Tx
from offgrid_node.protocol.mesh.documents import (
    Problem,
    Wrong,
    blaming,
    check_names,
    each,
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
PARTS = ("mesh", "genesis", "issuer", "epochs", "witnesses")
PAPERS_BYTES_MAX = 16 * 1024 * 1024  # 64 witnesses with the longest records have some 2 MB; an epoch 1 to 8 kB
EPOCHS_MAX, WITNESSES_EVER_MAX = 16_384, 1_024
TX_BYTES_MAX = 64 * 1024


class Papers(msgspec.Struct, frozen=True):
    """What holds of a file: whose word counts in this ledger, and by which keys."""

    salt: bytes
    genesis: LedgerGenesis
    committees: Sequence[Witnesses]  # by epoch, as far as these go
    witnesses: Mapping[str, Vouched]
    mesh_id: str
    mesh_name: str


class Verdict(msgspec.Struct):
    """`problems` is empty where everything holds; then the other fields are there. `said` are the names of those who
    signed, with their weights in thousandths."""

    problems: list[Problem] = msgspec.field(default_factory=list)
    papers: Papers | None = None
    tx: Tx | None = None
    tx_digest: bytes = b""
    said: list[tuple[str, int]] = msgspec.field(default_factory=list)

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
    epochs = each(whole["epochs"], "epochs", EPOCHS_MAX, _ended)
    committees = [genesis.witnesses, *(ended.checkpoint.witnesses for ended in epochs)]
    named = dict.fromkeys(node for witnesses in committees for node, _ in witnesses)
    parts = typed(whole["witnesses"], "witnesses", list)
    if len(parts) != len(named) or len(named) > WITNESSES_EVER_MAX:
        what = f"{len(parts)}, but the genesis and the checkpoints name {len(named)}"
        raise Wrong("witnesses", f"{what}; at most {WITNESSES_EVER_MAX} are possible")
    witnesses = {
        node: _member(part, f"witnesses[{place}]", root, node, verify)
        for place, (node, part) in enumerate(zip(named, parts, strict=True))
    }
    papers = Papers(
        root.genesis.salt, genesis, committees, witnesses, root.genesis.mesh_id, root.genesis.mesh_name
    )  # fmt: skip
    _check_epochs(papers, epochs, verify)
    return papers


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


class _Ended(msgspec.Struct, frozen=True):
    """An epoch's end: its checkpoint, and signatures of witnesses of that epoch by node."""

    checkpoint: Checkpoint
    seals: Mapping[str, bytes]


def _ended(value: object, name: str) -> _Ended:
    part = typed(value, name, dict)
    check_names(part, name, ("checkpoint", "seals"))
    body = hex_of(part["checkpoint"], f"{name}.checkpoint")
    checkpoint = blaming(f"{name}.checkpoint", lambda: Checkpoint.decode(body))
    seals = typed(part["seals"], f"{name}.seals", dict)
    return _Ended(checkpoint, {node: hex_of(seal, f"{name}.seals.{node}") for node, seal in seals.items()})


def _check_epochs(papers: Papers, epochs: Sequence[_Ended], verify: Verifier) -> None:
    """Each checkpoint follows the one before it, the first one the genesis, and witnesses of the epoch that it ends,
    one of whom is honest, have sealed it: so the next epoch's are whom it names."""
    ledger = previous = papers.genesis.digest(papers.salt)
    for number, ended in enumerate(epochs):
        name, body = f"epochs[{number}]", ended.checkpoint
        if (body.ledger, body.epoch, body.previous) != (ledger, number, previous):
            raise Wrong(f"{name}.checkpoint", "it does not follow the one before it, or is another ledger's")
        digest, committee = body.digest(papers.salt), Committee(papers.committees[number])
        final = Final(ledger, cut_account(ledger, number, papers.salt), 0, digest, number).digest(papers.salt)
        mask = 0
        for node, seal in ended.seals.items():
            if not committee.weight_of(node):
                raise Wrong(f"{name}.seals", f"{node[:64]} did not witness epoch {number}")
            if not signed_by(papers.witnesses[node].keys, final, seal, verify):
                raise Wrong(f"{name}.seals", f"the signature of {node} is not for this checkpoint, or not by its key")
            mask |= committee.bit_of(node_id_bytes(node))
        if not committee.one_is_honest(mask):
            weight, needed = decimal(committee.weight(mask)), decimal(committee.honest_milli)
            raise Wrong(f"{name}.seals", f"they weigh {weight}; {needed} or more are needed, so that one is honest")
        previous = digest


def _member(value: object, name: str, root: Root, node: str, verify: Verifier) -> Vouched:
    return read_member(typed(value, name, dict), name, root, node, verify)


# ---- the receipt against them


def _unsaid(
    light: LightReceipt, final: Final, papers: Papers, said: list[tuple[str, int]], verify: Verifier
) -> list[Problem]:
    """What is missing for the receipt to prove that; `said` gets who has signed."""
    if light.epoch >= len(papers.committees):
        what = f"it is of epoch {light.epoch}, these papers end with epoch {len(papers.committees) - 1}"
        return [Problem("receipt", f"{what}: offgrid ledger genesis writes newer ones")]
    witnesses = papers.committees[light.epoch]
    committee, weights = Committee(witnesses), dict(witnesses)
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
