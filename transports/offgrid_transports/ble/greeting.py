"""The first message of a channel, each way, pure: who speaks, and what it takes. It proves nothing; the session does.

    F0 | version 1 | name 8 | longest frame 2 | hello 0..16

The side that connected speaks first, the other answers. The name is drawn when a process opens its link, so two
channels with one name lead to one neighbour, whatever its Bluetooth addresses are.
"""

from __future__ import annotations

import struct

import msgspec

from offgrid_transports.transport import HELLO_BYTES_MAX, LINK_BYTE

KIND = LINK_BYTE
VERSION = 1
NAME_BYTES = 8
HEAD = struct.Struct(">BB8sH")
FRAME_BYTES_MIN = 64
FRAME_BYTES_MAX = 2048
"""A message of the channel: 20 to 30 ms of a good connection, so an urgent frame does not wait long behind another."""


class BadGreeting(ValueError):
    """The first message is not a greeting; says why."""


class Greeting(msgspec.Struct, frozen=True):
    """What one end says of itself."""

    name: bytes
    frame_bytes: int
    hello: bytes

    def __bytes__(self) -> bytes:
        return HEAD.pack(KIND, VERSION, self.name, self.frame_bytes) + self.hello


def parse_greeting(message: bytes) -> Greeting:
    """Takes it apart; raises BadGreeting."""
    if not HEAD.size <= len(message) <= HEAD.size + HELLO_BYTES_MAX:
        raise BadGreeting(f"{len(message)} bytes; allowed: {HEAD.size} to {HEAD.size + HELLO_BYTES_MAX}")
    kind, version, name, frame_bytes = HEAD.unpack_from(message)
    if (kind, version) != (KIND, VERSION):
        raise BadGreeting(f"kind {kind:#04x}, version {version}; allowed: {KIND:#04x}, {VERSION}")
    if frame_bytes < FRAME_BYTES_MIN:
        raise BadGreeting(f"takes frames of {frame_bytes} bytes; allowed: {FRAME_BYTES_MIN} or more")
    return Greeting(name, min(frame_bytes, FRAME_BYTES_MAX), message[HEAD.size :])


def newer_stays(mine: bytes, theirs: bytes, older_outgoing: bool, newer_outgoing: bool) -> bool:
    """Which of two channels to one neighbour stays; both ends come to the same answer.

    Connected both ways at once: the one that the lower name opened. Twice the same way: the newer, since whoever opened
    it has lost the older.
    """
    if older_outgoing == newer_outgoing:
        return True
    return newer_outgoing == (mine < theirs)
