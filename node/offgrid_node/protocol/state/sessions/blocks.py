"""What a block of events has in it, before it is sealed and after.

In clear: MessagePack of an array of arrays, one for each event: time (microseconds since 1970), kind, frame or nil,
energy delta or nil, data as JSON text. Sealed: nonce 24 | ciphertext and tag (XChaCha20-Poly1305), bound to a session;
which number its events have the journal says. A block is sealed once and never anew, so the nonce is random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from offgrid.kinds import DATA_BYTES_MAX, ENERGY_MAX, FRAME_MAX, TIME_MAX_US
from offgrid_node.protocol.errors import Corrupt

DIGEST_BYTES = 16
NONCE_BYTES, TAG_BYTES = 24, 16
EVENTS_MAX = 1_000  # in one block
BLOCK_BYTES_MAX = 1024 * 1024
BLOCK = "block"  # what it is bound to be, beside its session
_PERSON = b"og.block.v1"


class Entry(NamedTuple):
    """One event. `data` is a JSON object. What is allowed is checked where one is read."""

    timestamp_us: Annotated[int, Meta(ge=0, lt=TIME_MAX_US)]
    kind: str
    frame_id: Annotated[int, Meta(ge=0, lt=FRAME_MAX)] | None
    energy_delta: Annotated[float, Meta(ge=-ENERGY_MAX, le=ENERGY_MAX)] | None
    data: Annotated[bytes, Meta(max_length=DATA_BYTES_MAX)]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry]).decode


def encode(entries: Sequence[Entry]) -> bytes:
    return _encode(entries)


def decode(clear: bytes) -> list[Entry]:
    """Raises Corrupt."""
    try:
        return _decode(clear)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Corrupt(f"its events cannot be read: {error}", reason="BlockDamaged") from error


def bound_to(session_id: str, what: str) -> bytes:
    """What is authenticated beside what is sealed, so that nothing of one session passes for another's, nor a snapshot
    for a block. `what`: BLOCK, or a snapshot's own words."""
    return f"og.session.v1 {session_id} {what}".encode()


def digest_of(sealed: bytes) -> bytes:
    return hashlib.blake2b(sealed, digest_size=DIGEST_BYTES, person=_PERSON).digest()
