"""JSON that somebody else may have written, and what in it shows whose key a key is, up to the mesh's root.

Nothing in such a file is believed: the mesh id is a hash of the genesis, the genesis names the root key, the root (or
an admin that it named) signed a member's record, and wherever one key followed another the changes are in the file.
Every reader raises Wrong, which names the field and what is wrong with it. Bytes are lower-case hexadecimal digits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.mesh.keychange import CHANGES_MAX
from offgrid_node.protocol.mesh.records import open_genesis
from offgrid_node.protocol.mesh.root import KEPT_MAX, ROOT_CHANGES_MAX, Root, open_root
from offgrid_node.protocol.mesh.vouching import LINKS_MAX, Vouched, vouched

MESH_CHARS_MIN = 12  # of the mesh id: what every invite token has of it, behind "og1:"

T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True):
    """One field of the file that is not what it must be."""

    field: str
    what: str


class Wrong(Exception):
    """Ends one part of the check."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(what)
        self.problem = Problem(name, what)


def tried(problems: list[Problem], check: Callable[[], T]) -> T | None:
    """What it comes to; None where it is wrong, which is one problem more."""
    try:
        return check()
    except Wrong as wrong:
        problems.append(wrong.problem)
        return None


# ---- the mesh and its members


def read_root(part: Mapping[str, Any], verify: Verifier, mesh: str) -> Root:
    check_names(part, "mesh", ("id", "genesis", "root_changes"))
    message = signed_of(part["genesis"], "mesh.genesis")
    genesis = blaming("mesh.genesis", lambda: open_genesis(message, verify))
    if part["id"] != genesis.mesh_id:
        raise Wrong("mesh.id", f"{part['id']!r}, but the genesis is that of {genesis.mesh_id}")
    if mesh and (len(mesh) < MESH_CHARS_MIN or not genesis.mesh_id.startswith(mesh)):
        raise Wrong("mesh.id", f"{genesis.mesh_id} is another mesh than {mesh}")
    changes = each(part["root_changes"], "mesh.root_changes", ROOT_CHANGES_MAX, _root_change)
    return blaming("mesh.root_changes", lambda: open_root(genesis, changes, verify))


def read_member(part: Mapping[str, Any], name: str, root: Root, node_id: str, verify: Verifier) -> Vouched:
    """What is said in the field `name` of that member: its name, and what shows its keys."""
    check_names(part, name, ("name", "records"))
    chain = each(part["records"], f"{name}.records", LINKS_MAX, _record)
    member = blaming(f"{name}.records", lambda: vouched(root, chain, node_id, verify))
    if part["name"] != member.record.name:
        raise Wrong(f"{name}.name", f"{part['name']!r}, but its record says {member.record.name!r}")
    return member


def _root_change(value: object, name: str) -> mesh_pb2.RootChange:
    change, next_signature = _change(value, name, "kept")
    kept = each(typed(value, name, dict)["kept"], f"{name}.kept", KEPT_MAX, hex_of)
    return mesh_pb2.RootChange(change=change, next_signature=next_signature, kept=kept)


def _record(value: object, name: str) -> mesh_pb2.MemberProof:
    record = signed_of(value, name, "key_changes")
    changes = each(typed(value, name, dict)["key_changes"], f"{name}.key_changes", CHANGES_MAX, _key_change)
    return mesh_pb2.MemberProof(record=record, key_changes=changes)


def _key_change(value: object, name: str) -> mesh_pb2.KeyChange:
    change, next_signature = _change(value, name)
    return mesh_pb2.KeyChange(change=change, next_signature=next_signature)


# ---- fields


def parsed(data: bytes, form: str, version: int, names: Sequence[str], bytes_max: int) -> Mapping[str, Any]:
    """One object of that form, with these names and `form` itself, which says the version."""
    if len(data) > bytes_max:
        raise Wrong("file", f"more than {bytes_max} bytes, which no such file has")
    try:
        whole = json.loads(data.decode("ascii"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Wrong("file", f"it is no JSON of ours: {error}") from error
    if not isinstance(whole, dict):
        raise Wrong("file", "it is not one JSON object")
    if type(whole.get(form)) is not int or whole[form] != version:
        raise Wrong(form, f"it must be {version}: is this the right file?")
    check_names(whole, "file", (form, *names))
    return whole


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A name that is there twice would let two readers see two files."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is there twice")
    return made


def blaming(name: str, check: Callable[[], T]) -> T:
    try:
        return check()
    except PeerFault as fault:
        raise Wrong(name, fault.message) from fault


def part_of(whole: Mapping[str, Any], name: str, kind: type[T]) -> T:
    return typed(whole[name], name, kind)


def typed(value: object, name: str, kind: type[T]) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        words = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}
        raise Wrong(name, f"it must be {words[kind]}")
    return value


def check_names(part: Mapping[str, Any], where: str, wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in part]:
        raise Wrong(where, f"{', '.join(missing)} missing")
    if extra := [name for name in part if name not in wanted]:
        raise Wrong(where, f"unknown: {', '.join(extra)}; there are {', '.join(wanted)}")


def each(value: object, name: str, most: int, read: Callable[[object, str], T]) -> list[T]:
    items = typed(value, name, list)
    if len(items) > most:
        raise Wrong(name, f"{len(items)}, at most {most} are possible")
    return [read(item, f"{name}[{place}]") for place, item in enumerate(items)]


def _change(value: object, name: str, *more: str) -> tuple[common_pb2.Signed, bytes]:
    """What both kinds of changes of keys have."""
    signed = signed_of(value, name, "next_signature", *more)
    return signed, hex_of(typed(value, name, dict)["next_signature"], f"{name}.next_signature")


def signed_of(value: object, name: str, *more: str) -> common_pb2.Signed:
    part = typed(value, name, dict)
    check_names(part, name, ("body", "signature", *more))
    body, signature = hex_of(part["body"], f"{name}.body"), hex_of(part["signature"], f"{name}.signature")
    return common_pb2.Signed(body=body, signature=signature)


def hex_of(value: object, name: str) -> bytes:
    text = typed(value, name, str)
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        raise Wrong(name, f"no hexadecimal digits: {error}") from error
    if data.hex() != text:
        raise Wrong(name, "hexadecimal digits must be lower-case, without spaces")
    return data


def count_of(value: object, name: str) -> int:
    number = typed(value, name, int)
    if not 0 <= number < 2**32:
        raise Wrong(name, f"{number}, allowed are 0 to {2**32 - 1}")
    return number
