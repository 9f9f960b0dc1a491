"""A receipt's file, checked by itself: who signed what, and whether it is all there and nothing else.

The file is the JSON that `offgrid.client.evidence` writes. Nothing in it is believed: the mesh id is a hash of the
genesis, the genesis names the root key, the root (or an admin that it named) signed the host's record, the record has
the key that signed the receipt's root or the one that it was followed by, and the facts are what the signed body says.
Wherever one key followed another (the root's, the admin's, the host's) the changes are in the file. What the file
cannot show is which mesh is meant: who checks it compares the mesh id with one that he knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.jobs.receipts import COMPLETED, ReceiptBody, digest_with_files, result_digest, verify_receipt
from offgrid_node.protocol.mesh.documents import (
    MESH_CHARS_MIN,
    Problem,
    Wrong,
    blaming,
    check_names,
    count_of,
    hex_of,
    parsed,
    part_of,
    read_member,
    read_root,
    tried,
    typed,
)
from offgrid_node.protocol.mesh.records import Genesis, MemberRecord
from offgrid_node.protocol.mesh.vouching import Vouched

__all__ = ["FILE_BYTES_MAX", "MESH_CHARS_MIN", "Problem", "Verdict", "check_file", "facts_of"]

VERSION = 1
FILE_BYTES_MAX = 1024 * 1024  # a receipt under the largest tree, with the longest records, has some 20 kB
PATH_STEPS_MAX = 20  # of a tree with LEAVES_MAX leaves
PARTS = ("facts", "result", "receipt", "host", "mesh")


class Verdict(msgspec.Struct):
    """`problems` is empty where everything holds. `body` and `host` are there as far as they could be read. The host
    has had `keys` keys so far; the one of `key_number`, counted from 0, signed."""

    problems: list[Problem] = msgspec.field(default_factory=list)
    body: ReceiptBody | None = None
    host: MemberRecord | None = None
    mesh_id: str = ""
    mesh_name: str = ""
    key_number: int = 0
    keys: int = 1

    @property
    def valid(self) -> bool:
        return not self.problems


def check_file(data: bytes, verify: Verifier, *, mesh: str = "", result: bytes | None = None) -> Verdict:
    """What is wrong with a receipt's file; nothing raises, however the bytes came about.

    `mesh` is the id of the mesh that it must be of, or the beginning of it (MESH_CHARS_MIN characters or more),
    `result` the output that it must be for.
    """
    verdict = Verdict()
    whole = tried(verdict.problems, lambda: parsed(data, "offgrid_receipt", VERSION, PARTS, FILE_BYTES_MAX))
    if whole is not None:
        _check(verdict, whole, verify, mesh, result)
    return verdict


def _check(verdict: Verdict, whole: Mapping[str, Any], verify: Verifier, mesh: str, result: bytes | None) -> None:
    receipt = tried(verdict.problems, lambda: _receipt(part_of(whole, "receipt", dict)))
    body = verdict.body = tried(verdict.problems, lambda: _body(receipt)) if receipt is not None else None
    root = tried(verdict.problems, lambda: read_root(part_of(whole, "mesh", dict), verify, mesh))
    if root is not None:
        verdict.mesh_id, verdict.mesh_name = root.genesis.mesh_id, root.genesis.mesh_name
    if body is not None:
        verdict.problems += _facts_that_differ(whole, body)
        tried(verdict.problems, lambda: _result(part_of(whole, "result", dict), body, result))
    if body is not None and root is not None:
        host = tried(
            verdict.problems, lambda: read_member(part_of(whole, "host", dict), "host", root, body.node, verify)
        )
        if host is not None and receipt is not None:
            verdict.host, verdict.keys = host.record, len(host.keys)
            verdict.key_number = tried(verdict.problems, lambda: _signer(receipt, host, root.genesis, verify)) or 0


# ---- each part


def _receipt(part: Mapping[str, Any]) -> jobs_pb2.Receipt:
    check_names(part, "receipt", ("body", "index", "count", "path", "root_signature"))
    path = typed(part["path"], "receipt.path", list)
    if len(path) > PATH_STEPS_MAX:
        raise Wrong("receipt.path", f"{len(path)} steps, at most {PATH_STEPS_MAX} are possible")
    return jobs_pb2.Receipt(
        body=hex_of(part["body"], "receipt.body"),
        index=count_of(part["index"], "receipt.index"),
        count=count_of(part["count"], "receipt.count"),
        path=[hex_of(step, f"receipt.path[{place}]") for place, step in enumerate(path)],
        root_signature=hex_of(part["root_signature"], "receipt.root_signature"),
    )


def _body(receipt: jobs_pb2.Receipt) -> ReceiptBody:
    return blaming("receipt.body", lambda: ReceiptBody.decode(receipt.body))


def _signer(receipt: jobs_pb2.Receipt, host: Vouched, genesis: Genesis, verify: Verifier) -> int:
    """The number of the host's key that signed; a file cannot show when that was."""
    for before, key in enumerate(host.keys[:-1]):
        try:
            verify_receipt(receipt, key, verify, genesis.salt)
        except PeerFault:
            continue
        return len(host.keys) - 1 - before
    blaming("receipt.root_signature", lambda: verify_receipt(receipt, host.keys[-1], verify, genesis.salt))
    return 0


def _facts_that_differ(whole: Mapping[str, Any], body: ReceiptBody) -> list[Problem]:
    try:
        facts, signed = part_of(whole, "facts", dict), facts_of(body)
        check_names(facts, "facts", tuple(signed))
    except Wrong as wrong:
        return [wrong.problem]
    return [
        Problem(f"facts.{name}", f"{facts[name]!r}, but {value!r} was signed")
        for name, value in signed.items()
        if facts[name] != value or type(facts[name]) is not type(value)
    ]


def facts_of(body: ReceiptBody) -> dict[str, str | int]:
    """What the file's `facts` must be."""
    return {
        "node": body.node,
        "core": body.core,
        "job_id": body.job_id,
        "attempt": body.attempt,
        "status": body.status,
        "executor": body.executor,
        "payload_digest": body.payload_digest.hex(),
        "result_digest": body.result_digest.hex(),
        "compute_tokens": body.used_tokens or body.size_tokens,
        "latency_us": body.latency_us,
        "cpu_us": body.cpu_us,
        "memory_peak_bytes": body.memory_peak_bytes,
        "output_bytes": body.output_bytes,
        "price_micro": body.price_micro,
    }


def _result(part: Mapping[str, Any], body: ReceiptBody, result: bytes | None) -> None:
    """Exit code, output and the digest of the files are not in the body; its digest covers them all together."""
    check_names(part, "result", ("exit_code", "files_digest"))
    files_digest = hex_of(part["files_digest"], "result.files_digest")
    exit_code = typed(part["exit_code"], "result.exit_code", int)
    if not -(2**31) <= exit_code < 2**31 or (exit_code == 0) != (body.status == COMPLETED):
        raise Wrong("result.exit_code", f"{exit_code}, but the receipt is for work that {body.status}")
    if result is None:
        return
    if digest_with_files(result_digest(exit_code, result), files_digest) != body.result_digest:
        raise Wrong("result", f"the output given ({len(result)} bytes) is not the one that the receipt is for")
