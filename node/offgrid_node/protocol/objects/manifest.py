"""What an object is: sizes, code and the roots of its shards, under its owner's signature.

Encrypt, then encode, then hash. Each sealed stripe is cut into k rows of equal length (zeros fill the last one up) and
encoded to n; a shard is its rows of all stripes, its root the Merkle root over their digests (`protocol/merkle.py`).
The object's id is a hash over the shard roots, so whoever holds the id can check the rest. A full copy is the code
k = n = 1: one root, and every host holds that same shard.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from offgrid.v1 import common_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes
from offgrid_node.protocol.merkle import DIGEST_BYTES, root_of
from offgrid_node.protocol.signing import BodyReader, BodyWriter, decode_body, digest_of

if TYPE_CHECKING:
    from offgrid_node.protocol.effects import Verifier  # which names manifests in its turn

MANIFEST_KIND, STRIPE_KIND, OBJECT_KIND = b"og.manifest.v1", b"og.stripe.v1", b"og.object.v1"
VERSION = 1
COPY, REED_SOLOMON = 0, 1  # codecs: full copies; zfec's systematic code over GF(256) (`coding/`)
SHARDS_MAX = 128  # of one object: half of what the code has
NONCE_BYTES, TAG_BYTES = 16, 16
STRIPE_BYTES = 1 << 20  # of plaintext; the last one may be shorter
STRIPE_BYTES_MAX = 16 << 20
OBJECT_ID = re.compile(r"o-[a-z2-7]{32}\Z")


class Code(NamedTuple):
    """`needed` shards of `total` give an object back."""

    needed: int
    total: int


FULL_COPIES = Code(1, 1)


@dataclass(frozen=True)
class Manifest:
    """`size_bytes` is the plaintext's; `k` shards of the `len(roots)` give the object back. `expires_us`: from when on
    hosts may drop it, UTC; 0 for never."""

    owner: str
    nonce: bytes
    size_bytes: int
    stripe_bytes: int
    k: int
    codec: int
    roots: tuple[bytes, ...]
    created_us: int
    expires_us: int = 0

    @cached_property
    def object_id(self) -> str:
        return object_id_of(self.roots)

    @cached_property
    def subject(self) -> bytes:
        """What an ack of any of its shards is for: the digest behind the object's id."""
        return _digest(self.roots)

    @property
    def stripes(self) -> int:
        """At least one, so that even an empty object is sealed."""
        return max(1, -(-self.size_bytes // self.stripe_bytes))

    @property
    def sealed_bytes(self) -> int:
        """Of one full copy: all sealed stripes, one behind the other."""
        return self.size_bytes + self.stripes * TAG_BYTES

    @property
    def n(self) -> int:
        """How many shards there are."""
        return len(self.roots)

    @property
    def row_bytes(self) -> int:
        """Of each shard's part of a stripe; the last stripe's may be shorter."""
        return -(-(self.stripe_bytes + TAG_BYTES) // self.k)

    @property
    def shard_bytes(self) -> int:
        """Of one shard: its rows of all stripes, one behind the other. Of a copy, `sealed_bytes`."""
        last = self.sealed_bytes - (self.stripes - 1) * (self.stripe_bytes + TAG_BYTES)
        return (self.stripes - 1) * self.row_bytes + -(-last // self.k)

    def encode(self) -> bytes:
        writer = BodyWriter().uint(VERSION, 1).fixed(node_id_bytes(self.owner), NODE_ID_BYTES)
        writer.fixed(self.nonce, NONCE_BYTES).uint(self.size_bytes, 8).uint(self.stripe_bytes, 4)
        writer.uint(self.k, 1).uint(self.codec, 1).uint(len(self.roots), 1)
        for root in self.roots:
            writer.fixed(root, DIGEST_BYTES)
        return writer.uint(self.created_us, 8).uint(self.expires_us, 8).done()

    @classmethod
    def decode(cls, body: bytes) -> Manifest:
        """Raises PeerFault for anything that `encode` would not have written, or that could not be stored."""
        return decode_body("manifest", body, cls._read, cls.encode)

    @classmethod
    def _read(cls, reader: BodyReader) -> Manifest:
        if (version := reader.uint(1)) != VERSION:
            raise ValueError(f"version {version}, only {VERSION} is known")
        owner, nonce = base32(reader.fixed(NODE_ID_BYTES)), reader.fixed(NONCE_BYTES)
        size, stripe, k, codec, count = reader.uint(8), reader.uint(4), reader.uint(1), reader.uint(1), reader.uint(1)
        if not 0 < stripe <= STRIPE_BYTES_MAX:
            raise ValueError(f"stripes of {stripe} bytes, 1 to {STRIPE_BYTES_MAX} are allowed")
        if not (codec == COPY and k == count == 1) and not (codec == REED_SOLOMON and 0 < k < count <= SHARDS_MAX):
            raise ValueError(f"codec {codec} with {k} of {count} shards is not known")
        roots = tuple(reader.fixed(DIGEST_BYTES) for _ in range(count))
        return cls(owner, nonce, size, stripe, k, codec, roots, reader.uint(8), reader.uint(8))


def verify_manifest(signed: common_pb2.Signed, public_key: bytes, verify: Verifier, salt: bytes) -> Manifest:
    """The manifest, if `public_key` signed it in this mesh; whether that key is its owner's, the caller knows. Raises
    PeerFault."""
    manifest = Manifest.decode(signed.body)
    if not verify(public_key, digest_of(MANIFEST_KIND, salt, signed.body), signed.signature):
        text = f"manifest of {manifest.object_id}: the signature is not {manifest.owner}'s"
        raise PeerFault(text, reason="BadSignature")
    return manifest


def stripe_digest(salt: bytes, sealed: bytes | memoryview) -> bytes:
    """A leaf of a shard's tree."""
    return digest_of(STRIPE_KIND, salt, sealed)


def shard_root(digests: Sequence[bytes]) -> bytes:
    """Of at least one stripe."""
    return root_of(digests)


def object_id_of(roots: Sequence[bytes]) -> str:
    """ "o-" and 32 characters; the roots depend on a random key, so nobody finds one by its content."""
    return f"o-{base32(_digest(roots)[:20])}"


def stripe_aad(nonce: bytes, index: int, last: bool) -> bytes:
    """What each stripe's seal is bound to: no stripe can be moved, swapped or cut off."""
    return nonce + index.to_bytes(8, "big") + bytes([last])


def _digest(roots: Sequence[bytes]) -> bytes:
    return hashlib.blake2b(b"".join(roots), digest_size=32, person=OBJECT_KIND).digest()
