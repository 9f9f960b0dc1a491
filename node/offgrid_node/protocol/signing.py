"""Fixed big-endian bodies and what is signed over them.

A signature covers BLAKE2b-256 of the body, personalised with the body's kind and salted with the mesh's id, so that
none can be moved to another kind or another mesh (RFC 7693, sections 2.5 and 2.8). A body is carried as the bytes
that were signed; decoding refuses anything that would not encode to the same bytes again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any, TypeVar

from offgrid_node.protocol.errors import PeerFault

if TYPE_CHECKING:
    from offgrid_node.protocol.effects import Verifier

SALT_BYTES = 16
SIGNATURE_BYTES = 64
BODY_BYTES_MAX = 4096

T = TypeVar("T")


def digest_of(kind: bytes, salt: bytes, body: bytes | memoryview) -> bytes:
    """The 32 bytes that are signed for `body`. `kind` is at most 16 bytes, `salt` the mesh id's 16 (or empty)."""
    return hashlib.blake2b(body, digest_size=32, person=kind, salt=salt).digest()


def check_version(version: int, known: int) -> None:
    """Raises ValueError for the form of a body that is not known here."""
    if version != known:
        raise ValueError(f"version {version}, only {known} is known")


class BodyWriter:
    """Appends fixed-width fields, most significant byte first."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def uint(self, value: int, width: int) -> BodyWriter:
        self._parts.append(value.to_bytes(width, "big"))
        return self

    def fixed(self, value: bytes, width: int) -> BodyWriter:
        if len(value) != width:
            raise ValueError(f"expected {width} bytes, got {len(value)}")
        self._parts.append(value)
        return self

    def blob(self, value: bytes) -> BodyWriter:
        """At most 65,535 bytes behind a two-byte length."""
        return self.uint(len(value), 2).fixed(value, len(value))

    def text(self, value: str) -> BodyWriter:
        return self.blob(value.encode("utf-8"))

    def done(self) -> bytes:
        return b"".join(self._parts)


class BodyReader:
    """Reads what BodyWriter wrote; raises ValueError on a short or over-long body."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def fixed(self, width: int) -> bytes:
        end = self._at + width
        if end > len(self._body):
            raise ValueError(f"body ends at {len(self._body)}, {end} needed")
        value, self._at = self._body[self._at : end], end
        return value

    def uint(self, width: int) -> int:
        return int.from_bytes(self.fixed(width), "big")

    def blob(self) -> bytes:
        return self.fixed(self.uint(2))

    def text(self) -> str:
        return self.blob().decode("utf-8")

    def unpack(self, layout: Struct) -> tuple[Any, ...]:
        """Several fixed fields at once; `layout` is big-endian, without padding."""
        at, self._at = self._at, self._at + layout.size
        if self._at > len(self._body):
            raise ValueError(f"body ends at {len(self._body)}, {self._at} needed")
        return layout.unpack_from(self._body, at)

    def end(self) -> None:
        if self._at != len(self._body):
            raise ValueError(f"{len(self._body) - self._at} bytes left over")


def decode_body(
    what: str, body: bytes, decode: Callable[[BodyReader], T], encode: Callable[[T], bytes] | None = None
) -> T:
    """Decodes a peer's body; raises PeerFault when it is malformed, over-long or not canonical.

    Without `encode` the reader answers for that itself: each field it reads has one form only.
    """
    if len(body) > BODY_BYTES_MAX:
        raise PeerFault(f"{what}: body of {len(body)} bytes, at most {BODY_BYTES_MAX} allowed", reason="MalformedBody")
    try:
        reader = BodyReader(body)
        value = decode(reader)
        reader.end()
        if encode is not None and encode(value) != body:
            raise ValueError("not in canonical form")
    except (ValueError, OverflowError) as error:
        raise PeerFault(f"{what}: {error}", reason="MalformedBody") from error
    return value


def signed_by(keys: Sequence[bytes], digest: bytes, signature: bytes, verify: Verifier) -> bool:
    """Whether one of a node's keys, of now or of before, made the signature: for what may have been signed long ago."""
    return any(verify(key, digest, signature) for key in keys)
