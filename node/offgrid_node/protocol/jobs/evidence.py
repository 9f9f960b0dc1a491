"""A receipt's file, checked by itself: who signed what, and whether it is all there and nothing else.

The file is the JSON that `offgrid.client.evidence` writes. Nothing in it is believed: the mesh id is a hash of the
genesis, the genesis names the root key, the root (or an admin that it named) signed the host's record, the record has
the key that signed the receipt's root or the one that it was followed by, and the facts are what the signed body says.
Wherever one key followed another (the root's, the admin's, the host's) the changes are in the file. What the file
cannot show is which mesh is meant: who checks it compares the mesh id with one that he knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from offgrid.v1 import common_pb2, jobs_pb2, mesh_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.jobs.receipts import COMPLETED, ReceiptBody, digest_with_files, result_digest, verify_receipt
from offgrid_node.protocol.mesh.keychange import CHANGES_MAX
from offgrid_node.protocol.mesh.records import Genesis, MemberRecord, open_genesis
from offgrid_node.protocol.mesh.root import KEPT_MAX, ROOT_CHANGES_MAX, Root, open_root
from offgrid_node.protocol.mesh.vouching import LINKS_MAX, Vouched, vouched

VERSION = 1
FILE_BYTES_MAX = 1024 * 1024  # a receipt under the largest tree, with the longest records, has some 20 kB
PATH_STEPS_MAX = 20  # of a tree with LEAVES_MAX leaves
MESH_CHARS_MIN = 12  # of the mesh id: what every invite token has of it, behind "og1:"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Problem:
    """One field of the file that is not what it must be."""

    field: str
    what: str


@dataclass(slots=True)
class Verdict:
    """`problems` is empty where everything holds. `body` and `host` are there as far as they could be read. The host
    has had `keys` keys so far; the one of `key_number`, counted from 0, signed."""

    problems: list[Problem] = field(default_factory=list)
    body: ReceiptBody | None = None
    host: MemberRecord | None = None
    mesh_id: str = ""
    mesh_name: str = ""
    key_number: int = 0
    keys: int = 1

    @property
    def valid(self) -> bool:
        return not self.problems


class _Wrong(Exception):
    """Ends one part of the check."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(what)
        self.problem = Problem(name, what)


def check_file(data: bytes, verify: Verifier, *, mesh: str = "", result: bytes | None = None) -> Verdict:
    """What is wrong with a receipt's file; nothing raises, however the bytes came about.

    `mesh` is the id of the mesh that it must be of, or the beginning of it (MESH_CHARS_MIN characters or more),
    `result` the output that it must be for.
    """
    verdict = Verdict()
    whole = _try(verdict, lambda: _parsed(data))
    if whole is not None:
        _check(verdict, whole, verify, mesh, result)
    return verdict


def _check(verdict: Verdict, whole: Mapping[str, Any], verify: Verifier, mesh: str, result: bytes | None) -> None:
    receipt = _try(verdict, lambda: _receipt(_part(whole, "receipt", dict)))
    body = verdict.body = _try(verdict, lambda: _body(receipt)) if receipt is not None else None
    root = _try(verdict, lambda: _root(_part(whole, "mesh", dict), verify, mesh))
    if root is not None:
        verdict.mesh_id, verdict.mesh_name = root.genesis.mesh_id, root.genesis.mesh_name
    if body is not None:
        verdict.problems += _facts_that_differ(whole, body)
        _try(verdict, lambda: _result(_part(whole, "result", dict), body, result))
    if body is not None and root is not None:
        host = _try(verdict, lambda: _host(_part(whole, "host", dict), root, body.node, verify))
        if host is not None and receipt is not None:
            verdict.host, verdict.keys = host.record, len(host.keys)
            verdict.key_number = _try(verdict, lambda: _signer(receipt, host, root.genesis, verify)) or 0


# ---- each part


def _parsed(data: bytes) -> Mapping[str, Any]:
    if len(data) > FILE_BYTES_MAX:
        raise _Wrong("file", f"{len(data)} bytes, a receipt's file has at most {FILE_BYTES_MAX}")
    try:
        whole = json.loads(data.decode("ascii"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _Wrong("file", f"it is no JSON of ours: {error}") from error
    if not isinstance(whole, dict):
        raise _Wrong("file", "it is not one JSON object")
    if type(whole.get("offgrid_receipt")) is not int or whole["offgrid_receipt"] != VERSION:
        raise _Wrong("offgrid_receipt", f"it must be {VERSION}: is this a receipt's file?")
    _names(whole, "file", ("offgrid_receipt", "facts", "result", "receipt", "host", "mesh"))
    return whole


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A name that is there twice would let two readers see two files."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is there twice")
    return made


def _receipt(part: Mapping[str, Any]) -> jobs_pb2.Receipt:
    _names(part, "receipt", ("body", "index", "count", "path", "root_signature"))
    path = _typed(part["path"], "receipt.path", list)
    if len(path) > PATH_STEPS_MAX:
        raise _Wrong("receipt.path", f"{len(path)} steps, at most {PATH_STEPS_MAX} are possible")
    return jobs_pb2.Receipt(
        body=_hex(part["body"], "receipt.body"),
        index=_count(part["index"], "receipt.index"),
        count=_count(part["count"], "receipt.count"),
        path=[_hex(step, f"receipt.path[{place}]") for place, step in enumerate(path)],
        root_signature=_hex(part["root_signature"], "receipt.root_signature"),
    )


def _body(receipt: jobs_pb2.Receipt) -> ReceiptBody:
    return _blaming("receipt.body", lambda: ReceiptBody.decode(receipt.body))


def _root(part: Mapping[str, Any], verify: Verifier, mesh: str) -> Root:
    _names(part, "mesh", ("id", "genesis", "root_changes"))
    message = _signed(part["genesis"], "mesh.genesis")
    genesis = _blaming("mesh.genesis", lambda: open_genesis(message, verify))
    if part["id"] != genesis.mesh_id:
        raise _Wrong("mesh.id", f"{part['id']!r}, but the genesis is that of {genesis.mesh_id}")
    if mesh and (len(mesh) < MESH_CHARS_MIN or not genesis.mesh_id.startswith(mesh)):
        raise _Wrong("mesh.id", f"{genesis.mesh_id} is another mesh than {mesh}")
    changes = _each(part["root_changes"], "mesh.root_changes", ROOT_CHANGES_MAX, _root_change)
    return _blaming("mesh.root_changes", lambda: open_root(genesis, changes, verify))


def _root_change(value: object, name: str) -> mesh_pb2.RootChange:
    change, next_signature = _change(value, name, "kept")
    kept = _each(_typed(value, name, dict)["kept"], f"{name}.kept", KEPT_MAX, _hex)
    return mesh_pb2.RootChange(change=change, next_signature=next_signature, kept=kept)


def _host(part: Mapping[str, Any], root: Root, node_id: str, verify: Verifier) -> Vouched:
    _names(part, "host", ("name", "records"))
    chain = _each(part["records"], "host.records", LINKS_MAX, _record)
    host = _blaming("host.records", lambda: vouched(root, chain, node_id, verify))
    if part["name"] != host.record.name:
        raise _Wrong("host.name", f"{part['name']!r}, but its record says {host.record.name!r}")
    return host


def _record(value: object, name: str) -> mesh_pb2.MemberProof:
    record = _signed(value, name, "key_changes")
    changes = _each(_typed(value, name, dict)["key_changes"], f"{name}.key_changes", CHANGES_MAX, _key_change)
    return mesh_pb2.MemberProof(record=record, key_changes=changes)


def _key_change(value: object, name: str) -> mesh_pb2.KeyChange:
    change, next_signature = _change(value, name)
    return mesh_pb2.KeyChange(change=change, next_signature=next_signature)


def _signer(receipt: jobs_pb2.Receipt, host: Vouched, genesis: Genesis, verify: Verifier) -> int:
    """The number of the host's key that signed; a file cannot show when that was."""
    for before, key in enumerate(host.keys[:-1]):
        try:
            verify_receipt(receipt, key, verify, genesis.salt)
        except PeerFault:
            continue
        return len(host.keys) - 1 - before
    _blaming("receipt.root_signature", lambda: verify_receipt(receipt, host.keys[-1], verify, genesis.salt))
    return 0


def _facts_that_differ(whole: Mapping[str, Any], body: ReceiptBody) -> list[Problem]:
    try:
        facts, signed = _part(whole, "facts", dict), facts_of(body)
        _names(facts, "facts", tuple(signed))
    except _Wrong as wrong:
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
    _names(part, "result", ("exit_code", "files_digest"))
    files_digest = _hex(part["files_digest"], "result.files_digest")
    exit_code = _typed(part["exit_code"], "result.exit_code", int)
    if not -(2**31) <= exit_code < 2**31 or (exit_code == 0) != (body.status == COMPLETED):
        raise _Wrong("result.exit_code", f"{exit_code}, but the receipt is for work that {body.status}")
    if result is None:
        return
    if digest_with_files(result_digest(exit_code, result), files_digest) != body.result_digest:
        raise _Wrong("result", f"the output given ({len(result)} bytes) is not the one that the receipt is for")


# ---- reading JSON that somebody else may have written


def _try(verdict: Verdict, check: Callable[[], T]) -> T | None:
    try:
        return check()
    except _Wrong as wrong:
        verdict.problems.append(wrong.problem)
        return None


def _blaming(name: str, check: Callable[[], T]) -> T:
    try:
        return check()
    except PeerFault as fault:
        raise _Wrong(name, fault.message) from fault


def _part(whole: Mapping[str, Any], name: str, kind: type[T]) -> T:
    return _typed(whole[name], name, kind)


def _typed(value: object, name: str, kind: type[T]) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        words = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}
        raise _Wrong(name, f"it must be {words[kind]}")
    return value


def _names(part: Mapping[str, Any], where: str, wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in part]:
        raise _Wrong(where, f"{', '.join(missing)} missing")
    if extra := [name for name in part if name not in wanted]:
        raise _Wrong(where, f"unknown: {', '.join(extra)}; there are {', '.join(wanted)}")


def _each(value: object, name: str, most: int, read: Callable[[object, str], T]) -> list[T]:
    items = _typed(value, name, list)
    if len(items) > most:
        raise _Wrong(name, f"{len(items)}, at most {most} are possible")
    return [read(item, f"{name}[{place}]") for place, item in enumerate(items)]


def _change(value: object, name: str, *more: str) -> tuple[common_pb2.Signed, bytes]:
    """What both kinds of changes of keys have."""
    signed = _signed(value, name, "next_signature", *more)
    return signed, _hex(_typed(value, name, dict)["next_signature"], f"{name}.next_signature")


def _signed(value: object, name: str, *more: str) -> common_pb2.Signed:
    part = _typed(value, name, dict)
    _names(part, name, ("body", "signature", *more))
    body, signature = _hex(part["body"], f"{name}.body"), _hex(part["signature"], f"{name}.signature")
    return common_pb2.Signed(body=body, signature=signature)


def _hex(value: object, name: str) -> bytes:
    text = _typed(value, name, str)
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        raise _Wrong(name, f"no hexadecimal digits: {error}") from error
    if data.hex() != text:
        raise _Wrong(name, "hexadecimal digits must be lower-case, without spaces")
    return data


def _count(value: object, name: str) -> int:
    number = _typed(value, name, int)
    if not 0 <= number < 2**32:
        raise _Wrong(name, f"{number}, allowed are 0 to {2**32 - 1}")
    return number
