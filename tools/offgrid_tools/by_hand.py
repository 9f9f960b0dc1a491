"""Transactions as files, made and signed by hand: read, shown and signed with real keys, without any node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from offgrid_node.keys import NodeKey, verify
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.ids import base32, unbase32
from offgrid_node.protocol.ledger.records import TX_KIND, Tx, decode_meta, tx_id_of
from offgrid_node.protocol.ledger.sources import LaneSource
from offgrid_node.protocol.signing import SIGNATURE_BYTES, digest_of

VERSION = 1
FILE_BYTES_MAX = 64 * 1024
SALT_BYTES = 16
MESH_HASH_BYTES = 20


class ByHand(msgspec.Struct, frozen=True):
    """What such a file holds."""

    mesh_id: str
    body: bytes
    signature: bytes
    tx: Tx

    @property
    def digest(self) -> bytes:
        return digest_of(TX_KIND, unbase32(self.mesh_id)[:SALT_BYTES], self.body)

    @property
    def signer(self) -> str:
        return base32(self.tx.source.signer)

    def document(self) -> dict[str, Any]:
        """The file's content; what people read of it is worked out of the body each time, so the two cannot differ."""
        return document(self.mesh_id, self.body, self.signature)

    def facts(self) -> dict[str, Any]:
        """For people and programs."""
        source = self.tx.source
        return {
            "tx_id": tx_id_of(self.digest),
            "mesh_id": self.mesh_id,
            "src": self.signer,
            "lane": source.lane if isinstance(source, LaneSource) else 0,
            "seq": self.tx.seq,
            "outputs": [{"account": base32(to), "amount_micro": amount} for to, amount in self.tx.outputs],
            "fee_micro": self.tx.fee_micro,
            "meta": decode_meta(self.tx.meta),
            "signed": bool(self.signature),
        }


def document(mesh_id: str, body: bytes, signature: bytes = b"") -> dict[str, Any]:
    return {
        "offgrid_transaction": VERSION,
        "mesh_id": mesh_id,
        "body": body.hex(),
        "signature": signature.hex(),
    }


def read(data: bytes) -> ByHand:
    """Raises ValueError, which says what is wrong with the file and what is allowed."""
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"longer than {FILE_BYTES_MAX} bytes, which no transaction's file is")
    try:
        held = json.loads(data)
    except ValueError as error:
        raise ValueError(f"no JSON document: {error}") from error
    if not isinstance(held, dict) or held.get("offgrid_transaction") != VERSION:
        raise ValueError(f"no transaction's file: offgrid_transaction must be {VERSION}")
    mesh_id = held.get("mesh_id")
    try:
        known = isinstance(mesh_id, str) and len(unbase32(mesh_id)) == MESH_HASH_BYTES
    except ValueError:
        known = False
    if not known:
        raise ValueError("mesh_id: the mesh's whole id is needed, 32 characters of a-z and 2-7")
    body, signature = _bytes(held, "body"), _bytes(held, "signature")
    if len(signature) not in (0, SIGNATURE_BYTES):
        raise ValueError(f"signature: {len(signature)} bytes; {SIGNATURE_BYTES}, or none, are allowed")
    try:
        tx = Tx.decode(body)
    except Fault as fault:
        raise ValueError(f"body: {fault.message}") from fault
    return ByHand(str(mesh_id), body, signature, tx)


def signed_with(held: ByHand, path: Path) -> ByHand:
    """The same with a signature, by the key in this file. Raises ValueError where the key is not the account's, or the
    file is not one that may be used."""
    try:
        key = NodeKey.read(path)
    except Fault as fault:
        raise ValueError(fault.message) from fault
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    if key.node_id != held.signer:
        raise ValueError(f"{path} is the key of {key.node_id}; the account is {held.signer}'s, whose key is needed")
    signature = key.sign(held.digest)
    assert verify(key.public_key, held.digest, signature), "what a key signs it verifies"
    return replace(held, signature=signature)


def _bytes(held: dict[str, Any], field: str) -> bytes:
    value = held.get(field)
    try:
        return bytes.fromhex(value) if isinstance(value, str) else _no_hex(field)
    except ValueError as error:
        raise ValueError(f"{field}: bytes as hexadecimal digits are needed") from error


def _no_hex(field: str) -> bytes:
    raise ValueError(field)
