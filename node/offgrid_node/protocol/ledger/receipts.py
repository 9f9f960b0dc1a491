"""Light receipts: witnesses say, for whoever was not there, that they hold a transaction final.

Each signs for itself, and only what is final at it. Liars alone weigh less than a third, so where more than a third say
it an honest one does, and what one honest node holds final is final (README.md, 2). For four equal witnesses that is
two signatures, 135 bytes: a frame of LoRa at any speed. What is signed covers the mesh (by the salt), the ledger, for a
mesh may have had another to try it, the epoch whose witnesses speak, the slot and the transaction; a receipt carries
the rest alone, so who checks one needs the transaction and the ledger's papers (papers.py).

    statement   ver1 | ledger genesis' digest32 | epoch4 | account20 | seq8 | tx32
    receipt     ver1 | epoch4 | n1 | witnesses (n bytes: bit i is witness i) | sig64, one of each, in their order

As text a receipt is PREFIX and its bytes in base32, for paper and for whoever reads it out.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, unbase32
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.records import DIGEST_BYTES, WITNESSES_MAX
from offgrid_node.protocol.signing import SIGNATURE_BYTES, BodyReader, BodyWriter, check_version, decode_body, digest_of

FINAL_KIND = b"og.final.v1"
VERSION = 1
PREFIX = "ogr1:"
MASK_BYTES_MAX = WITNESSES_MAX // 8


class Final(msgspec.Struct, frozen=True):
    """What each signature of a receipt is for: that this transaction is final in this slot. `ledger` is its genesis'
    digest."""

    ledger: bytes
    account: bytes
    seq: int
    tx_digest: bytes
    epoch: int = 0

    def digest(self, salt: bytes) -> bytes:
        writer = BodyWriter().uint(VERSION, 1).fixed(self.ledger, DIGEST_BYTES).uint(self.epoch, 4)
        writer = writer.fixed(self.account, NODE_ID_BYTES).uint(self.seq, 8)
        return digest_of(FINAL_KIND, salt, writer.fixed(self.tx_digest, DIGEST_BYTES).done())


class LightReceipt(msgspec.Struct, frozen=True):
    """`witnesses` is a set as in committee.py; a signature of each, in the order of their bits."""

    epoch: int
    witnesses: int
    signatures: tuple[bytes, ...]

    def encode(self) -> bytes:
        size = (self.witnesses.bit_length() + 7) // 8
        writer = BodyWriter().uint(VERSION, 1).uint(self.epoch, 4).uint(size, 1).uint(self.witnesses, size)
        for signature in self.signatures:
            writer.fixed(signature, SIGNATURE_BYTES)
        return writer.done()

    @classmethod
    def decode(cls, data: bytes) -> LightReceipt:
        """Raises PeerFault for anything that `encode` would not have written."""
        return decode_body("receipt", data, cls._read, cls.encode)

    @classmethod
    def _read(cls, reader: BodyReader) -> LightReceipt:
        check_version(reader.uint(1), VERSION)
        epoch, size = reader.uint(4), reader.uint(1)
        if not 1 <= size <= MASK_BYTES_MAX:
            raise ValueError(f"{size} bytes of witnesses, 1 to {MASK_BYTES_MAX} are allowed")
        witnesses = reader.uint(size)
        if not witnesses:
            raise ValueError("it names no witness")
        return cls(epoch, witnesses, tuple(reader.fixed(SIGNATURE_BYTES) for _ in range(witnesses.bit_count())))

    @property
    def text(self) -> str:
        return PREFIX + base32(self.encode())

    def by_bit(self) -> dict[int, bytes]:
        """Each signature by the bit of its witness."""
        bits = [1 << place for place in range(self.witnesses.bit_length()) if self.witnesses >> place & 1]
        return dict(zip(bits, self.signatures, strict=True))


def receipt_of_text(text: str) -> LightReceipt:
    """From what `LightReceipt.text` gave, however it was broken into lines and spaced. Raises PeerFault."""
    compact = "".join(text.split()).lower()
    try:
        if not compact.startswith(PREFIX):
            raise ValueError(f"it does not begin with {PREFIX!r}")
        data = unbase32(compact.removeprefix(PREFIX))
    except ValueError as error:
        raise PeerFault(f"receipt: {error}", reason="MalformedBody") from error
    return LightReceipt.decode(data)


def least(committee: Committee, signed: Mapping[int, bytes], epoch: int) -> LightReceipt | None:
    """The smallest receipt that these signatures, by witness' bit, are enough for; None where they are not."""
    chosen = 0
    for bit in sorted(signed, key=lambda bit: (-committee.weight(bit), bit)):
        chosen |= bit
        if committee.one_is_honest(chosen):
            return LightReceipt(epoch, chosen, tuple(signed[bit] for bit in sorted(signed) if bit & chosen))
    return None
