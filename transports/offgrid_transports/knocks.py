"""How somebody who was invited finds the inviter on a link: it knows neither the mesh's members nor their keys.

    KNOCK   0x50 | invite 8
    DOOR    0x60 | invite 8 | sealed      what it takes to say hello, for who holds the invite's secret

Both go to all who hear. What is sealed is the node's business.
"""

from __future__ import annotations

KNOCK, DOOR = 0x50, 0x60
INVITE_BYTES = 8
DOOR_BYTES_MAX = 200


def write_knock(invite: bytes) -> bytes:
    return bytes((KNOCK,)) + invite


def read_knock(frame: bytes) -> bytes | None:
    """The invite; None for what is no knock."""
    return frame[1:] if len(frame) == 1 + INVITE_BYTES and frame[0] == KNOCK else None


def write_door(invite: bytes, sealed: bytes) -> bytes:
    return bytes((DOOR,)) + invite + sealed


def read_door(invite: bytes, frame: bytes) -> bytes | None:
    """What is sealed, if it is an answer to this invite's knock."""
    head = bytes((DOOR,)) + invite
    return frame[len(head) :] if frame.startswith(head) and len(frame) <= DOOR_BYTES_MAX else None
