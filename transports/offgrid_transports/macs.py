"""A short MAC under the mesh's secret (BLAKE2s, RFC 7693): whoever wrote what bears one knows the mesh.

Which member wrote it, and when, it does not tell. `person` keeps one use apart from another. How long it has to be
follows from how often a stranger may try: at SF7 the shortest word takes 31 ms of air, so 2^32 of them fill a channel
for four years; a network takes them in hours, and needs LONG_BYTES.
"""

from __future__ import annotations

import hashlib
import hmac

SHORT_BYTES, LONG_BYTES = 4, 8


def mac(psk: bytes, person: bytes, said: bytes, length: int) -> bytes:
    """Of `length` bytes."""
    return hashlib.blake2s(said, key=psk, digest_size=length, person=person).digest()


def bears(psk: bytes, person: bytes, frame: bytes, length: int) -> bool:
    """The frame's last `length` bytes are the MAC of those before them."""
    return hmac.compare_digest(frame[-length:], mac(psk, person, frame[:-length], length))
