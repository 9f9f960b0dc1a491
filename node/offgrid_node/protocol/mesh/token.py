"""The invite token: all that a new node needs to find the mesh, prove that it was asked, and know whom it asked.

    og1:<base32 of 8-byte mesh tag, 16-byte secret, 2-byte checksum>[@host:port,host:port…]

It is read aloud and typed: case, spaces and, before the '@', dashes do not matter. The checksum is CRC-16/CCITT over
addresses, tag and secret in this order, so that it stands right behind what it covers and one mistyped character,
wherever it is, lies within the 16 bits that a CRC always detects (Peterson and Brown, 1961). A hash would miss one
typo in 65,536.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from binascii import crc_hqx
from dataclasses import dataclass, field

from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.ids import base32, unbase32

PREFIX = "og1:"
MESH_TAG_BYTES = 8
SECRET_BYTES = 16
INVITE_ID_BYTES = 8
ADDRESSES_MAX = 8
HOST_CHARS_MAX = 253  # RFC 1035, in text
TOKEN_CHARS_MAX = 4096  # what a person may paste, spaces and dashes included

_CHECKSUM_BYTES = 2
_CODE_CHARS = -(-8 * (MESH_TAG_BYTES + SECRET_BYTES + _CHECKSUM_BYTES) // 5)
_LOOKALIKES = {"0": "o", "1": "i or l", "8": "b", "9": "g"}
_HOST_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


@dataclass(frozen=True, slots=True)
class InviteToken:
    """One invite. `str()` writes it, `parse` reads it; the constructor raises InvalidRequest on what neither could.

    `addresses` are "host:port" of join doors, best first, at most ADDRESSES_MAX; they are kept in lower case.
    """

    mesh_tag: bytes
    secret: bytes = field(repr=False)
    addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.mesh_tag) != MESH_TAG_BYTES or len(self.secret) != SECRET_BYTES:
            raise InvalidRequest.field("token", f"needs a tag of {MESH_TAG_BYTES} and a secret of {SECRET_BYTES} bytes")
        if len(self.addresses) > ADDRESSES_MAX:
            raise InvalidRequest.field("token", f"{len(self.addresses)} addresses, at most {ADDRESSES_MAX} allowed")
        object.__setattr__(self, "addresses", tuple(_checked_address(address) for address in self.addresses))

    @property
    def invite_id(self) -> bytes:
        """Names the invite without giving its secret away."""
        return hashlib.blake2b(self.secret, digest_size=INVITE_ID_BYTES, person=b"og.invite-id.v1").digest()

    def __str__(self) -> str:
        addresses = ",".join(self.addresses)
        known = self.mesh_tag + self.secret
        code = base32(known + _checksum(addresses, known))
        return f"{PREFIX}{code}@{addresses}" if addresses else f"{PREFIX}{code}"

    @classmethod
    def parse(cls, text: str) -> InviteToken:
        """Reads a token as people type it; raises InvalidRequest (field `token`) saying what is wrong and where."""
        if len(text) > TOKEN_CHARS_MAX:
            raise _damaged(f"{len(text)} characters, at most {TOKEN_CHARS_MAX} allowed")
        compact = "".join(text.split()).lower()
        if not compact.startswith(PREFIX):
            raise _damaged(f"must begin with '{PREFIX}'")
        code, at, tail = compact.removeprefix(PREFIX).partition("@")
        data = _decode(code.replace("-", ""))
        known, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if _checksum(tail, known) != checksum:
            raise _damaged("the checksum does not fit: a character is wrong, or the end is missing")
        if at and not tail:
            raise _damaged("no address follows the '@'")
        addresses = tuple(tail.split(",")) if tail else ()
        return cls(known[:MESH_TAG_BYTES], known[MESH_TAG_BYTES:], addresses)


def _refusal(reason: str) -> InvalidRequest:
    return InvalidRequest.field("token", reason)


def _damaged(reason: str) -> InvalidRequest:
    return _refusal(f"{reason}. Copy all of it, or have another made by `offgrid mesh invite` at a member")


def _checksum(addresses: str, known: bytes) -> bytes:
    return crc_hqx(addresses.encode("utf-8") + known, 0xFFFF).to_bytes(_CHECKSUM_BYTES, "big")


def _decode(code: str) -> bytes:
    for position, char in enumerate(code, start=1):
        if not ("a" <= char <= "z" or "2" <= char <= "7"):
            hint = f"; is it {_LOOKALIKES[char]}?" if char in _LOOKALIKES else ""
            raise _damaged(f"{char!r} at position {position} after '{PREFIX}': only a-z and 2-7 occur there{hint}")
    if len(code) != _CODE_CHARS:
        raise _damaged(f"{len(code)} characters after '{PREFIX}', there must be {_CODE_CHARS}")
    try:
        return unbase32(code)
    except ValueError as error:
        raise _damaged(f"{code[-1]!r} cannot be the last character") from error


def _checked_address(address: str) -> str:
    lower = address.lower()
    host, _, port = lower.rpartition(":")
    if not _PORT.match(port) or int(port) > 65_535 or not _is_host(host):
        raise _refusal(f"{address!r} is no address: host:port or [IPv6]:port is")
    return lower


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            return not ipaddress.IPv6Address(host[1:-1]).scope_id  # a zone means nothing on another machine
        except ValueError:
            return False
    return len(host) <= HOST_CHARS_MAX and bool(_HOST_NAME.match(host)) and ".." not in host
