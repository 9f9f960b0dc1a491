"""What an object is: sizes, code and the roots of its shards, under its owner's signature.

Encrypt, then encode, then hash. Each sealed stripe is cut into k rows of equal length (zeros fill the last one up) and
encoded to n; a shard is its rows of all stripes, its root the Merkle root over their digests (`protocol/merkle.py`),
which are keyed BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020): six times as fast as BLAKE2b where it matters.
The object's id is a hash over the shard roots, so whoever holds the id can check the rest. A full copy is the code
k = n = 1: one root, and every host holds that same shard.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from blake3 import blake3

from offgrid.v1 import common_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes, node_id_from, unbase32
from offgrid_node.protocol.merkle import DIGEST_BYTES, root_of
from offgrid_node.protocol.signing import BodyReader, decode_body, digest_of, signed_by

if TYPE_CHECKING:
    from offgrid_node.protocol.effects import Verifier  # which names manifests in its turn

MANIFEST_KIND, STRIPE_KIND, OBJECT_KIND = b"og.manifest.v1", b"og.stripe.v1", b"og.object.v1"
VERSION, PADDED_VERSION = 1, 2  # the second has the sealed size of what is padded at its end
COPY, REED_SOLOMON = 0, 1  # codecs: full copies; zfec's systematic code over GF(256) (`coding/`)
SHARDS_MAX = 128  # of one object: half of what the code has
NONCE_BYTES, TAG_BYTES = 16, 16
SEALED_SIZE_BYTES = 8 + TAG_BYTES  # of what is padded
STRIPE_BYTES = 1 << 20  # of plaintext; the last one may be shorter
STRIPE_BYTES_MAX = 16 << 20
MANIFESTS_REMEMBERED = 256  # decoded ones, of a few hundred bytes mostly
KEYS = 16  # of digests, remembered: a mesh has one
OBJECT_ID_BYTES = 20
_HEAD = Struct(f">B{NODE_ID_BYTES}s{NONCE_BYTES}sQIBBB")  # up to how many roots there are
_TAIL = Struct(">QQ")
OBJECT_ID = re.compile(r"o-[a-z2-7]{32}\Z")


class Code(NamedTuple):
    """`needed` shards of `total` give an object back."""

    needed: int
    total: int


FULL_COPIES = Code(1, 1)


class Manifest(msgspec.Struct, frozen=True, dict=True):
    """`size_bytes` is the plaintext's with what it is filled up by; where that is anything, `sealed_size` has its own
    size for whoever has the object's key (`keys/stripes.py`). `k` shards of the `len(roots)` give the object back.
    `expires_us`: from when on hosts may drop it, UTC; 0 for never."""

    owner: str
    nonce: bytes
    size_bytes: int
    stripe_bytes: int
    k: int
    codec: int
    roots: tuple[bytes, ...]
    created_us: int
    expires_us: int = 0
    sealed_size: bytes = b""

    @cached_property
    def object_id(self) -> str:
        return _object_id(self.subject)

    @cached_property
    def subject(self) -> bytes:
        """What an ack of any of its shards is for: the digest behind the object's id."""
        return _digest(self.roots)

    @cached_property
    def stripes(self) -> int:
        """At least one, so that even an empty object is sealed."""
        return max(1, -(-self.size_bytes // self.stripe_bytes))

    @cached_property
    def sealed_bytes(self) -> int:
        """Of one full copy: all sealed stripes, one behind the other."""
        return self.size_bytes + self.stripes * TAG_BYTES

    @property
    def n(self) -> int:
        """How many shards there are."""
        return len(self.roots)

    @cached_property
    def row_bytes(self) -> int:
        """Of each shard's part of a stripe; the last stripe's may be shorter."""
        return -(-(self.stripe_bytes + TAG_BYTES) // self.k)

    @cached_property
    def shard_bytes(self) -> int:
        """Of one shard: its rows of all stripes, one behind the other. Of a copy, `sealed_bytes`."""
        last = self.sealed_bytes - (self.stripes - 1) * (self.stripe_bytes + TAG_BYTES)
        return (self.stripes - 1) * self.row_bytes + -(-last // self.k)

    def encode(self) -> bytes:
        version, owner = PADDED_VERSION if self.sealed_size else VERSION, node_id_bytes(self.owner)
        sizes = self.size_bytes, self.stripe_bytes, self.k, self.codec, len(self.roots)
        head, tail = _HEAD.pack(version, owner, self.nonce, *sizes), _TAIL.pack(self.created_us, self.expires_us)
        return b"".join((head, *self.roots, tail, self.sealed_size))

    @classmethod
    def decode(cls, body: bytes) -> Manifest:
        """Raises PeerFault for anything that `encode` would not have written, or that could not be stored."""
        return _decoded(body)

    @classmethod
    def _read(cls, reader: BodyReader) -> Manifest:
        version, owner, nonce, size, stripe, k, codec, count = reader.unpack(_HEAD)
        if version not in (VERSION, PADDED_VERSION):
            raise ValueError(f"version {version}, only {VERSION} and {PADDED_VERSION} are known")
        if not 0 < stripe <= STRIPE_BYTES_MAX:
            raise ValueError(f"stripes of {stripe} bytes, 1 to {STRIPE_BYTES_MAX} are allowed")
        if not (codec == COPY and k == count == 1) and not (codec == REED_SOLOMON and 0 < k < count <= SHARDS_MAX):
            raise ValueError(f"codec {codec} with {k} of {count} shards is not known")
        roots = tuple([reader.fixed(DIGEST_BYTES) for _ in range(count)])
        created_us, expires_us = reader.unpack(_TAIL)
        sealed_size = reader.fixed(SEALED_SIZE_BYTES if version == PADDED_VERSION else 0)
        return cls(node_id_from(owner), nonce, size, stripe, k, codec, roots, created_us, expires_us, sealed_size)


def verify_manifest(signed: common_pb2.Signed, keys: Sequence[bytes], verify: Verifier, salt: bytes) -> Manifest:
    """The manifest, if one of the keys signed it in this mesh; whether they are its owner's, the caller knows. Raises
    PeerFault."""
    manifest = Manifest.decode(signed.body)
    if not signed_by(keys, digest_of(MANIFEST_KIND, salt, signed.body), signed.signature, verify):
        text = f"manifest of {manifest.object_id}: the signature is not {manifest.owner}'s"
        raise PeerFault(text, reason="BadSignature")
    return manifest


def stripe_digest(salt: bytes, sealed: bytes | memoryview) -> bytes:
    """A leaf of a shard's tree: BLAKE3 under a key of the mesh's, for it is what all bytes of all shards go through."""
    return blake3(sealed, key=_digest_key(salt)).digest()


def stripe_hasher(salt: bytes) -> blake3:
    """Whose digest is `stripe_digest` of all that it is given."""
    return blake3(key=_digest_key(salt))


@lru_cache(KEYS)
def _digest_key(salt: bytes) -> bytes:
    return digest_of(STRIPE_KIND, salt, b"")


def shard_root(digests: Sequence[bytes]) -> bytes:
    """Of at least one stripe."""
    return root_of(digests)


@lru_cache(MANIFESTS_REMEMBERED)
def _decoded(body: bytes) -> Manifest:
    """A manifest is read again for each host that it goes to, and with each ack of it."""
    return decode_body("manifest", body, Manifest._read)


def object_id_of(roots: Sequence[bytes]) -> str:
    """ "o-" and 32 characters; the roots depend on a random key, so nobody finds one by its content."""
    return _object_id(_digest(roots))


def _object_id(subject: bytes) -> str:
    return object_id_from(subject[:OBJECT_ID_BYTES])


def object_id_bytes(object_id: str) -> bytes:
    """The 20 bytes behind an object's id; `object_id_from` is the inverse."""
    return unbase32(object_id.removeprefix("o-"))


def object_id_from(data: bytes) -> str:
    return f"o-{base32(data)}"


def stripe_aad(nonce: bytes, index: int, last: bool) -> bytes:
    """What each stripe's seal is bound to: no stripe can be moved, swapped or cut off."""
    return nonce + index.to_bytes(8, "big") + bytes([last])


def size_aad(nonce: bytes, padded_bytes: int) -> bytes:
    """What the seal of a padded object's own size is bound to: shorter than a stripe's, so it is never one."""
    return nonce + padded_bytes.to_bytes(8, "big")


def _digest(roots: Sequence[bytes]) -> bytes:
    return hashlib.blake2b(b"".join(roots), digest_size=32, person=OBJECT_KIND).digest()
