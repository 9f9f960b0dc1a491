"""A request for several peers on one radio channel, said once: coded frames that all of them hear, and what one keeps.

    CODED        0x70 | id 4 | length 2 | number 2 | symbol | MAC 4
    ASK_SHARED   digest 16 | id 4 | method (varint)      is answered as that method is, asked with what was overheard;
                                                         or with Trouble.GONE and how many symbols are missing

`length` is that of all symbols' payload, `number` which one it is (coding.py). The payload is a flag, 1 for a packed
body, and the body, encrypted with a key that follows from its digest and from what only the mesh knows: who is not told
the digest, in a session, reads nothing, and who is told checks it. The MAC keeps other meshes and accidents out.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from offgrid_transports.coding import CodingError, Decoder
from offgrid_transports.long_messages import DIGEST_BYTES
from offgrid_transports.macs import SHORT_BYTES, bears, mac
from offgrid_transports.messages import METHOD_MAX
from offgrid_transports.records import RecordError, read_varint, varint

CODED = 0x70
ASK_SHARED = 0x005  # a method of this package's own
ID_BYTES, MAC_BYTES = 4, SHORT_BYTES  # on a shared medium alone
_PERSON = b"og.coded"
HEAD_BYTES = 1 + ID_BYTES + 2 + 2
SHARED_BYTES_MIN, SHARED_BYTES_MAX = 200, 2_048  # of a body: what is shorter hardly pays, what is longer fills the air
OVERHEARD_MAX = 32  # payloads of which symbols are kept; the one untouched for longest gives way


class Coded(NamedTuple):
    id: bytes
    length: int
    number: int
    symbol: bytes


class AskShared(NamedTuple):
    digest: bytes
    id: bytes
    method: int


def write_coded(psk: bytes, coded: Coded) -> bytes:
    said = bytes((CODED,)) + coded.id + coded.length.to_bytes(2) + coded.number.to_bytes(2) + coded.symbol
    return said + mac(psk, _PERSON, said, MAC_BYTES)


def read_coded(psk: bytes, frame: bytes) -> Coded:
    """Raises RecordError."""
    said = frame[:-MAC_BYTES]
    if len(said) <= HEAD_BYTES or frame[0] != CODED or not bears(psk, _PERSON, frame, MAC_BYTES):
        raise RecordError("no coded frame of this mesh")
    at = 1 + ID_BYTES
    return Coded(said[1:at], int.from_bytes(said[at : at + 2]), int.from_bytes(said[at + 2 : at + 4]), said[at + 4 :])


def write_ask(asked: AskShared) -> bytes:
    return asked.digest + asked.id + varint(asked.method)


def read_ask(body: bytes) -> AskShared:
    """Raises RecordError."""
    method, end = read_varint(body, DIGEST_BYTES + ID_BYTES, METHOD_MAX)
    if end != len(body):
        raise RecordError("no request for what was overheard")
    return AskShared(body[:DIGEST_BYTES], body[DIGEST_BYTES : DIGEST_BYTES + ID_BYTES], method)


def crypt(psk: bytes, digest: bytes, id_: bytes, payload: bytes) -> bytes:
    """Encrypts, and decrypts. An `id_` is never used for two payloads of one digest."""
    key = hashlib.blake2s(digest + id_, key=psk, person=b"og.share").digest()
    return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(payload)


class Overheard:
    """The symbols that were heard, by id."""

    def __init__(self, psk: bytes) -> None:
        self._psk = psk
        self._decoders: OrderedDict[bytes, tuple[int, Decoder]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._decoders)

    def on_frame(self, frame: bytes) -> None:
        """Raises RecordError."""
        coded = read_coded(self._psk, frame)
        length, decoder = self._decoders.get(coded.id, (coded.length, None))
        try:
            if coded.length > SHARED_BYTES_MAX + 2 or length != coded.length:
                raise RecordError("coded frames of a payload that is too long, or of two")
            decoder = decoder or Decoder(coded.id, coded.length, len(coded.symbol))
            decoder.add(coded.number, coded.symbol)
        except CodingError as error:
            raise RecordError(str(error)) from error
        self._decoders[coded.id] = length, decoder
        self._decoders.move_to_end(coded.id)
        if len(self._decoders) > OVERHEARD_MAX:
            self._decoders.popitem(last=False)

    def missing(self, id_: bytes) -> int | None:
        """How many symbols; None where none was heard."""
        found = self._decoders.get(id_)
        return None if found is None else found[1].missing

    def payload(self, asked: AskShared) -> bytes:
        """Once none is missing; decrypted."""
        return crypt(self._psk, asked.digest, asked.id, self._decoders[asked.id][1].payload())

    def drop(self, id_: bytes) -> None:
        self._decoders.pop(id_, None)
