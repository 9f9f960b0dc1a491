"""How somebody who was invited finds the inviter on a link: it knows neither the mesh's members nor their keys.

    KNOCK   0x50 | invite 8 | MAC 8      under the invite's secret
    DOOR    0x60 | invite 8 | sealed     what it takes to say hello, for who holds the invite's secret

Both go to all who hear. What is sealed is the node's business. A knock may be a recording.
"""

from __future__ import annotations

import hashlib
import hmac

KNOCK, DOOR = 0x50, 0x60
INVITE_BYTES, MAC_BYTES = 8, 8
DOOR_BYTES_MAX = 200


def write_knock(invite: bytes, secret: bytes) -> bytes:
    said = bytes((KNOCK,)) + invite
    return said + _mac(secret, said)


def read_knock(frame: bytes) -> bytes | None:
    """The invite; None for what is no knock."""
    end = 1 + INVITE_BYTES
    return frame[1:end] if len(frame) == end + MAC_BYTES and frame[0] == KNOCK else None


def is_knock_of(secret: bytes, frame: bytes) -> bool:
    """Whether it was made by somebody who holds the invite's secret."""
    return hmac.compare_digest(frame[-MAC_BYTES:], _mac(secret, frame[:-MAC_BYTES]))


def write_door(invite: bytes, sealed: bytes) -> bytes:
    return bytes((DOOR,)) + invite + sealed


def read_door(invite: bytes, frame: bytes) -> bytes | None:
    """What is sealed, if it is an answer to this invite's knock."""
    head = bytes((DOOR,)) + invite
    return frame[len(head) :] if frame.startswith(head) and len(frame) <= DOOR_BYTES_MAX else None


def _mac(secret: bytes, said: bytes) -> bytes:
    return hashlib.blake2s(said, key=secret, digest_size=MAC_BYTES, person=b"og.knock").digest()
