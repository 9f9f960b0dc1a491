"""An object in the making: plaintext comes in, sealed stripes go to the disk, a signed manifest comes out.

Plaintext is in memory only, at most a stripe and a piece of it. The key is random and the object's own; it leaves
memory wrapped, for each who may read (`keys/wraps.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec.structs import replace

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.coding.coder import Coder
from offgrid_node.coding.fallback import Fallback
from offgrid_node.keys.stripes import OBJECT_KEY_BYTES, StripeSealer, seal_size
from offgrid_node.protocol.clock import Clock
from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition
from offgrid_node.protocol.ids import fresh_id
from offgrid_node.protocol.merkle import LEAVES_MAX
from offgrid_node.protocol.mesh.wrapping import WrappingKey
from offgrid_node.protocol.objects.manifest import (
    COPY,
    FULL_COPIES,
    MANIFEST_KIND,
    NONCE_BYTES,
    REED_SOLOMON,
    STRIPE_BYTES,
    TAG_BYTES,
    Code,
    Manifest,
    object_id_of,
    shard_root,
    stripe_digest,
)
from offgrid_node.protocol.objects.shards import rows_of
from offgrid_node.protocol.objects.sizes import size_class
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.signing import digest_of
from offgrid_node.storage.blobs import BlobStore

ENTROPY_BYTES = 32
PADDING_BYTES = 1 << 20  # sealed at once
UPLOAD_PREFIX = "u-"  # of what is staged while it is sealed


class Wraps(Protocol):
    """Seals keys for others and opens what was sealed for this node; notes are what it seals for itself."""

    def wrap(self, reader: WrappingKey, secrets: Sequence[tuple[bytes, bytes]], entropy: bytes) -> list[bytes]: ...

    def unwrap(self, wrapped: bytes, use: bytes) -> bytes: ...

    def seal_note(self, note: bytes, use: bytes) -> bytes: ...

    def open_note(self, sealed: bytes, use: bytes) -> bytes: ...


class Sealing:
    """`add` and `close` block and belong into a thread, one at a time. `broken`: a write failed, begin a new one."""

    def __init__(
        self,
        blobs: BlobStore,
        staged: str,
        key: bytes,
        nonce: bytes,
        salt: bytes,
        stripe_bytes: int,
        coder: Coder,
        code: Code,
        padded: bool = False,
        like: Manifest | None = None,
    ) -> None:
        """`code`: what it will most likely be closed with; another one then costs a second pass over its bytes.
        `padded`: zeros fill it up to its class, sealed as what comes before them. `like`: what is sealed anew; it
        keeps its times."""
        self.staged, self.key, self.nonce, self.stripe_bytes, self.code = staged, key, nonce, stripe_bytes, code
        self._blobs, self._salt, self._coder = blobs, salt, coder
        self._sealer = StripeSealer(key, nonce, stripe_bytes)
        self._digests: list[list[bytes]] = []  # of each stripe, by shard
        self._sealed_bytes = 0
        self.broken = False
        self.expires_after_ms = 0  # never
        self.padded, self.like = padded, like
        self.size_bytes = 0  # of plaintext that is sealed, or held to be
        self.roots: tuple[bytes, ...] = ()  # once it is closed

    @property
    def object_id(self) -> str:
        """Only once it is closed."""
        return object_id_of(self.roots)

    @property
    def padded_bytes(self) -> int:
        """What it takes when it is closed."""
        return size_class(self.size_bytes) if self.padded else self.size_bytes

    def add(self, data: bytes) -> int:
        """The size so far. Raises Exhausted when an object cannot be larger, and what the disk raises."""
        self._check()
        if (self.size_bytes + len(data)) > LEAVES_MAX * self.stripe_bytes:
            raise Exhausted(
                f"an object has at most {LEAVES_MAX * self.stripe_bytes} bytes; put it in parts",
                reason="ObjectTooLarge",
            )
        self._write(self._sealer.feed(data))
        self.size_bytes = self._sealer.size_bytes
        return self.size_bytes

    def close(self, code: Code | None = None) -> None:
        """Seals the rest; the blob is durable under the object's id when this returns. A second time it looks whether
        that is still so. `code`: other than was thought at first."""
        if self.roots:
            if self._blobs.size(self.object_id) != self._sealed_bytes:
                self.broken = True
                raise _lost()
            return
        self._check()
        while missing := self.padded_bytes - self._sealer.size_bytes:
            self._write(self._sealer.feed(bytes(min(missing, PADDING_BYTES))))
        self._write([self._sealer.finish()])
        self.broken = True
        if code is not None and code != self.code:
            self.code = code
            self._hash_again()
        roots = tuple(shard_root(digests) for digests in zip(*self._digests, strict=True))
        self._blobs.finish(self.staged, object_id_of(roots))
        self.roots, self.broken = roots, False

    def discard(self) -> None:
        """Deletes what is staged of it; what is kept, `Keeping` deletes."""
        self._blobs.discard(self.staged)

    def _write(self, stripes: list[bytes]) -> None:
        self.broken = True
        for stripe in stripes:
            self._digests.append(self._hashed(stripe))
            self._sealed_bytes = self._blobs.append(self.staged, self._sealed_bytes, stripe)
        self.broken = False

    def _hashed(self, stripe: bytes) -> list[bytes]:
        """The digest of each shard's row."""
        needed, total = self.code
        rows = rows_of(stripe, needed)
        digests = [stripe_digest(self._salt, row) for row in rows]
        if total > needed:
            parity = self._coder.encode(needed, total, rows, range(needed, total))
            digests += [stripe_digest(self._salt, row) for row in parity]
        return digests

    def _hash_again(self) -> None:
        """Of what is staged, under another code."""
        sealed, self._digests = self.stripe_bytes + TAG_BYTES, []
        for offset in range(0, self._sealed_bytes, sealed):
            stripe = self._blobs.read_staged(self.staged, offset, min(sealed, self._sealed_bytes - offset))
            self._digests.append(self._hashed(stripe))

    def _check(self) -> None:
        if self.roots:
            raise FailedPrecondition("it is whole already; nothing can be added", reason="UploadClosed")
        if self.broken:
            raise _lost()


def _lost() -> FailedPrecondition:
    return FailedPrecondition("what was sealed of it is lost; begin again", reason="UploadLost")


class Sealer:
    """Begins sealings and says, once they are closed, what came of them."""

    def __init__(
        self,
        blobs: BlobStore,
        wraps: Wraps,
        signer: Signer,
        rng: Rng,
        clock: Clock,
        salt: Callable[[], bytes],
        stripe_bytes: int = STRIPE_BYTES,
        coder: Coder | None = None,
        own_key: Callable[[], WrappingKey] | None = None,
    ) -> None:
        """`own_key`: for which of this node's keys objects are wrapped; its first, unless given."""
        self._coder = coder or Fallback()
        self._own_key = own_key or (lambda: signer.wrapping_key(0))
        self._blobs, self._wraps, self._signer, self._rng, self._clock = blobs, wraps, signer, rng, clock
        self._salt, self._stripe_bytes = salt, stripe_bytes

    def begin(
        self,
        code: Code = FULL_COPIES,
        blobs: BlobStore | None = None,
        *,
        padded: bool = False,
        like: Manifest | None = None,
    ) -> Sealing:
        """`blobs`: where its bytes are to go, if not to this node's disk."""
        key, nonce = self._rng.randbytes(OBJECT_KEY_BYTES), self._rng.randbytes(NONCE_BYTES)
        place = self._blobs if blobs is None else blobs
        return Sealing(
            place, self.fresh_id(), key, nonce, self._salt(), self._stripe_bytes, self._coder, code, padded, like
        )

    def fresh_id(self) -> str:
        """A name for an upload."""
        return fresh_id(UPLOAD_PREFIX.rstrip("-"), self._rng)

    def delete(self, object_id: str) -> None:
        """What a closed sealing has become, and no row names or ever will. Blocks, as `Sealing.close` does."""
        self._blobs.delete(object_id)

    def manifest(
        self, sealing: Sealing, note: objects_pb2.ObjectNote | None = None
    ) -> tuple[objects_pb2.Manifest, Manifest]:
        """Of a closed sealing, signed by this node, with its key wrapped for this node alone, and what it notes down of
        it."""
        body = self.body(sealing)
        return self._signed(body, sealing.key, note), body

    def body(self, sealing: Sealing) -> Manifest:
        """What a closed sealing is, with this node as its owner."""
        now_us = self._clock.now().utc_us
        expires_us = now_us + sealing.expires_after_ms * 1_000 if sealing.expires_after_ms else 0
        return Manifest(
            owner=self._signer.node_id,
            nonce=sealing.nonce,
            size_bytes=(padded_bytes := sealing.padded_bytes),
            stripe_bytes=sealing.stripe_bytes,
            k=sealing.code.needed,
            codec=COPY if sealing.code == FULL_COPIES else REED_SOLOMON,
            roots=sealing.roots,
            created_us=sealing.like.created_us if sealing.like else now_us,
            expires_us=sealing.like.expires_us if sealing.like else expires_us,
            sealed_size=(
                seal_size(sealing.key, sealing.nonce, padded_bytes, sealing.size_bytes) if sealing.padded else b""
            ),
        )

    def adopt(self, found: Manifest, key: bytes, note: objects_pb2.ObjectNote) -> tuple[objects_pb2.Manifest, Manifest]:
        """What another node has sealed, as this node's own: the same bytes, so the same id, under its own signature."""
        body = replace(found, owner=self._signer.node_id, created_us=self._clock.now().utc_us, expires_us=0)
        return self._signed(body, key, note), body

    def _signed(self, body: Manifest, key: bytes, note: objects_pb2.ObjectNote | None) -> objects_pb2.Manifest:
        use, entropy = body.object_id.encode(), self._rng.randbytes(ENTROPY_BYTES)
        (sealed_key,) = self._wraps.wrap(self._own_key(), [(key, use)], entropy)
        wrap = objects_pb2.KeyWrap(node_id=self._signer.node_id, sealed_key=sealed_key)
        sealed_note = self._wraps.seal_note(note.SerializeToString(), use) if note is not None else b""
        signed = sign_manifest(body, self._signer, self._salt())
        return objects_pb2.Manifest(signed=signed, wraps=[wrap], note=sealed_note)


def sign_manifest(body: Manifest, signer: Signer, salt: bytes) -> common_pb2.Signed:
    encoded = body.encode()
    return common_pb2.Signed(body=encoded, signature=signer.sign(digest_of(MANIFEST_KIND, salt, encoded)))
