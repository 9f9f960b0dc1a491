"""The signed records of a mesh: its genesis, who is a member, and how each member is reached.

Bodies are the fixed big-endian form of protocol/signing.py. The genesis names the mesh: the mesh id is a hash of its
body (RFC 7693), so whoever holds the id, or the tag in an invite, can check a genesis that a stranger hands over.
Every other signature is salted with that id and cannot be moved to another mesh.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cached_property

import msgspec

from offgrid.v1 import common_pb2
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.events import BROKER, CORE, HOST
from offgrid_node.protocol.ids import NAME, NAME_RULE, NODE_ID_BYTES, base32, node_id_bytes
from offgrid_node.protocol.signing import SALT_BYTES, BodyReader, BodyWriter, decode_body, digest_of

GENESIS_KIND = b"og.genesis.v1"
MEMBER_KIND = b"og.member.v1"
PEER_KIND = b"og.peer.v1"
JOIN_PROOF_KIND = b"og.joinproof.v1"

ROLES_ALL = frozenset({CORE, BROKER, HOST})
MESH_TAG_BYTES = 8
NONCE_BYTES = 16
KEY_BYTES = 32
ADDRESSES_MAX = 8
ADDRESS_CHARS_MAX = 253 + len(":65535")
VERSION_CHARS_MAX = 64
DOMAIN_CHARS_MAX = 64
WEIGHT_MILLI_DEFAULT = 1_000
WEIGHT_MILLI_MAX = 1_000_000_000
EPOCH_MAX = 2**32 - 1
PEER_VERSION_MAX = 2**64 - 1

_ROOT = bytes(NODE_ID_BYTES)
_REMOVED_FLAG, _ADMIN_FLAG = 2, 1
_PRINTABLE = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*\Z")


def roles_mask(roles: Iterable[int]) -> int:
    """Bit n stands for the role of value n."""
    return sum(1 << role for role in set(roles))


def roles_of(mask: int) -> frozenset[int]:
    """The inverse of `roles_mask`; raises ValueError for a bit that is no role of ours."""
    if mask & ~roles_mask(ROLES_ALL):
        raise ValueError(f"roles {mask:#04x}: unknown bits")
    return frozenset(role for role in ROLES_ALL if mask & 1 << role)


def check_name(name: str) -> str:
    """Returns a name that keeps the rule; raises ValueError."""
    if not NAME.match(name):
        raise ValueError(f"name {name!r}: {NAME_RULE}")
    return name


def check_text(what: str, text: str, chars_max: int) -> str:
    """Returns printable ASCII without leading, trailing or double spaces, or ""; raises ValueError."""
    if text and (len(text) > chars_max or not _PRINTABLE.match(text)):
        raise ValueError(f"{what} {text[:chars_max]!r}: at most {chars_max} printable ASCII characters")
    return text


def is_address(text: str) -> bool:
    """Whether a record may carry it: "host:port" in printable ASCII."""
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and len(text) <= ADDRESS_CHARS_MAX and bool(_PRINTABLE.match(text))


class Genesis(msgspec.Struct, frozen=True, dict=True):
    """What a mesh is: signed by its root key, never changed."""

    mesh_name: str
    root_key: bytes
    created_us: int
    nonce: bytes

    @cached_property
    def body(self) -> bytes:
        writer = BodyWriter().text(self.mesh_name).fixed(self.root_key, KEY_BYTES).uint(self.created_us, 8)
        return writer.fixed(self.nonce, NONCE_BYTES).done()

    @cached_property
    def mesh_hash(self) -> bytes:
        """20 bytes; the mesh id, the salt and the tag are forms of it."""
        return hashlib.blake2b(self.body, digest_size=NODE_ID_BYTES, person=b"og.mesh-id.v1").digest()

    @property
    def mesh_id(self) -> str:
        return base32(self.mesh_hash)

    @property
    def salt(self) -> bytes:
        return self.mesh_hash[:SALT_BYTES]

    @property
    def mesh_tag(self) -> bytes:
        """The 8 bytes by which an invite names the mesh."""
        return self.mesh_hash[:MESH_TAG_BYTES]


def _read_genesis(reader: BodyReader) -> Genesis:
    name, root_key, created_us = check_name(reader.text()), reader.fixed(KEY_BYTES), reader.uint(8)
    return Genesis(name, root_key, created_us, reader.fixed(NONCE_BYTES))


class MemberRecord(msgspec.Struct, frozen=True, dict=True):
    """That a node belongs to the mesh and what it may do; with `removed`, the tombstone that ends it for ever.

    `issuer` is the admin's node id, or "" for the root key. A tombstone carries no roles, weight or domain.
    """

    node_id: str
    name: str
    public_key: bytes
    roles: frozenset[int]
    weight_milli: int
    failure_domain: str
    epoch: int
    admin: bool = False
    removed: bool = False
    issuer: str = ""

    @cached_property
    def body(self) -> bytes:
        flags = (_ADMIN_FLAG if self.admin else 0) | (_REMOVED_FLAG if self.removed else 0)
        writer = BodyWriter().fixed(node_id_bytes(self.node_id), NODE_ID_BYTES).text(self.name)
        writer.fixed(self.public_key, KEY_BYTES).uint(roles_mask(self.roles), 1).uint(self.weight_milli, 4)
        writer.text(self.failure_domain).uint(self.epoch, 4).uint(flags, 1)
        return writer.fixed(node_id_bytes(self.issuer) if self.issuer else _ROOT, NODE_ID_BYTES).done()

    @cached_property
    def body_hash(self) -> bytes:
        return hashlib.blake2b(self.body, digest_size=32, person=MEMBER_KIND).digest()

    def reissued(self, issuer: str, *, admin: bool = False) -> MemberRecord:
        """The same membership under another's name, "" for the root's, which alone may name an `admin`."""
        return msgspec.structs.replace(self, epoch=min(self.epoch + 1, EPOCH_MAX), admin=admin, issuer=issuer)

    def tombstone(self, issuer: str) -> MemberRecord:
        """The record that ends this membership."""
        epoch = min(self.epoch + 1, EPOCH_MAX)
        return MemberRecord(
            self.node_id, self.name, self.public_key, frozenset(), 0, "", epoch, removed=True, issuer=issuer
        )


def _read_member(reader: BodyReader) -> MemberRecord:
    node_id, name, key = base32(reader.fixed(NODE_ID_BYTES)), check_name(reader.text()), reader.fixed(KEY_BYTES)
    roles, weight_milli = roles_of(reader.uint(1)), reader.uint(4)
    domain, epoch, flags = check_text("failure domain", reader.text(), DOMAIN_CHARS_MAX), reader.uint(4), reader.uint(1)
    issuer = reader.fixed(NODE_ID_BYTES)
    removed, admin = bool(flags & _REMOVED_FLAG), bool(flags & _ADMIN_FLAG)
    if flags & ~(_REMOVED_FLAG | _ADMIN_FLAG) or weight_milli > WEIGHT_MILLI_MAX or epoch == 0:
        raise ValueError("flags, weight or epoch out of range")
    if removed and (admin or roles or weight_milli or domain):
        raise ValueError("a tombstone grants nothing")
    issuer_id = "" if issuer == _ROOT else base32(issuer)
    return MemberRecord(node_id, name, key, roles, weight_milli, domain, epoch, admin, removed, issuer_id)


class PeerRecord(msgspec.Struct, frozen=True, dict=True):
    """What a member says of itself: the roles its config asks for, where its mesh port is, what it runs, and for which
    key objects are wrapped for it (`wrapping.py`); of number 0 that is its identity key, and the field empty."""

    node_id: str
    version: int
    roles: frozenset[int]
    addresses: tuple[str, ...]
    software: str
    wrap_number: int = 0
    wrap_key: bytes = b""

    @cached_property
    def body(self) -> bytes:
        writer = BodyWriter().fixed(node_id_bytes(self.node_id), NODE_ID_BYTES).uint(self.version, 8)
        writer.uint(roles_mask(self.roles), 1).uint(len(self.addresses), 1)
        for address in self.addresses:
            writer.text(address)
        return writer.text(self.software).uint(self.wrap_number, 2).blob(self.wrap_key).done()

    @cached_property
    def body_hash(self) -> bytes:
        return hashlib.blake2b(self.body, digest_size=32, person=PEER_KIND).digest()


def _read_peer(reader: BodyReader) -> PeerRecord:
    node_id, version, roles = base32(reader.fixed(NODE_ID_BYTES)), reader.uint(8), roles_of(reader.uint(1))
    count = reader.uint(1)
    if count > ADDRESSES_MAX:
        raise ValueError(f"{count} addresses, at most {ADDRESSES_MAX} allowed")
    addresses = tuple(reader.text() for _ in range(count))
    if not all(map(is_address, addresses)):
        raise ValueError("an address is not host:port")
    software, number, key = check_text("version", reader.text(), VERSION_CHARS_MAX), reader.uint(2), reader.blob()
    if len(key) != (KEY_BYTES if number else 0):
        raise ValueError(f"wrapping key {number} has {len(key)} bytes")
    return PeerRecord(node_id, version, roles, addresses, software, number, key)


def decode_genesis(body: bytes) -> Genesis:
    """Raises PeerFault on a malformed body."""
    return decode_body("genesis", body, _read_genesis, lambda genesis: genesis.body)


def decode_member(body: bytes) -> MemberRecord:
    """Raises PeerFault on a malformed body."""
    return decode_body("membership record", body, _read_member, lambda record: record.body)


def decode_peer(body: bytes) -> PeerRecord:
    """Raises PeerFault on a malformed body."""
    return decode_body("peer record", body, _read_peer, lambda record: record.body)


def signed(kind: bytes, salt: bytes, body: bytes, signer: Signer) -> common_pb2.Signed:
    """The body with the signer's signature over its digest."""
    return common_pb2.Signed(body=body, signature=signer.sign(digest_of(kind, salt, body)))


def open_genesis(message: common_pb2.Signed, verify: Verifier) -> Genesis:
    """The genesis, its own root's signature checked. Raises PeerFault. The caller checks which mesh it is."""
    genesis = decode_genesis(message.body)
    if not verify(genesis.root_key, digest_of(GENESIS_KIND, genesis.salt, message.body), message.signature):
        raise PeerFault("genesis: not signed by the root key it names", reason="BadSignature")
    return genesis


def join_proof_digest(mesh_tag: bytes, invite_id: bytes, certificate: bytes, name: str) -> bytes:
    """What a joiner signs to show that it holds the certificate's key; it knows no more of the mesh than its tag."""
    return digest_of(JOIN_PROOF_KIND, mesh_tag, BodyWriter().blob(invite_id).blob(certificate).text(name).done())
