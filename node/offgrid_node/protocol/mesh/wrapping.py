"""The key for which a member's object keys are wrapped, as others know it.

A node makes its wrapping keys from its identity's seed and a number, so recovery words bring all of them back. The one
of number 0 is the identity key itself, which the membership record names; a later one stands in the peer record that
the node signs.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

WRAP_NUMBER_MAX = 2**16 - 1
NUMBER_BYTES, TAG_BYTES = 2, 4
LABEL_BYTES = NUMBER_BYTES + TAG_BYTES
BEGUN_KEY, BEGUN_BYTES = b"wrapping_begun", 8  # in "meta": when the key of now was begun, in microseconds


class WrappingKey(NamedTuple):
    """`key`: 32 bytes, for number 0 an Ed25519 key, else an X25519 one."""

    number: int
    key: bytes

    @property
    def label(self) -> bytes:
        """What a wrap for this key begins with: whoever has the key finds it by that, and its owner sees whether the
        wrap is for the key of now. Nobody is kept from lying with it."""
        tag = hashlib.blake2b(self.key, digest_size=TAG_BYTES, person=b"og.wraptag.v1").digest()
        return self.number.to_bytes(NUMBER_BYTES, "big") + tag
