"""The signed bodies of the ledger: the genesis that opens it, the transaction, and the header of a block.

Bodies are the fixed big-endian form of protocol/signing.py, their digests personalised by kind and salted with the
mesh's id (RFC 7693, section 2.5). Inside the ledger an account is 20 bytes: those behind a node id, or those of a lane
or a hold. What is valid here must be valid on every node for ever, so no rule leans on tables that change, such as
Unicode's.

    genesis   ver1 | issuer20 | epoch4 | fee8 | created8 | n2 x (witness20 weight4) | n2 x (account20 amount8)
    tx        ver1 | source (sources.py) | seq8 | prev32 | fee8 | n1 x (dst20 amount8) | metalen2 | meta | request16
    meta      (keylen1 key vallen2 value)*, keys ascending
    header    ver1 | author20 | height8 | prev32 | n1 x parent32 | epoch4 | root32 | items4 | created8
    booking   ver1 | job (len2) | attempt4 | payee20 | amount8 | action (len2)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from struct import Struct

import msgspec

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes, node_id_from
from offgrid_node.protocol.ledger.sources import HoldSource, Source, read_source
from offgrid_node.protocol.signing import BodyReader, BodyWriter, check_version, decode_body, digest_of

GENESIS_KIND, TX_KIND, HEADER_KIND = b"og.ledger.v1", b"og.tx.v1", b"og.block.v1"
NOOP_KIND, UNLOCK_KIND = b"og.noop.v1", b"og.unlock.v1"
ITEM_KIND, BOOKING_KIND, REQUEST_KIND = b"og.item.v1", b"og.booking.v1", b"og.tx.request.v1"
VERSION = 1
DIGEST_BYTES = 32
AMOUNT_MAX = 2**63 - 1  # of any amount that a body may name
SUPPLY_MAX = (
    2**62
)  # of all money: a balance is a signed 64-bit integer, and may be below zero for a while (accounts.py)
FEE_MICRO_DEFAULT = 1_000
WITNESSES_MAX = 64  # a set of witnesses is a 64-bit mask
ACCOUNTS_MAX = 2_048
GENESIS_BYTES_MAX = 64 * 1024
OUTPUTS_MAX = 64
META_BYTES_MAX = 1_024
META_VALUE_BYTES_MAX = 256
PARENTS_MAX = 4
SEQ_MAX = 2**63 - 1
REQUEST_BYTES = 16
NO_REQUEST = bytes(REQUEST_BYTES)
BY_HAND = (
    b"og.tx.by.hand.v1"  # in the place of a request: signed on purpose, maybe elsewhere, and its node need not know
)

_META_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,31}\Z")
META_KEY_RULE = "1 to 32 of a-z 0-9 _ . -, a letter first"
# Controls, line and paragraph separators, what turns the direction of text, tags: what no reader should meet.
_HEADER_BEGIN, _HEADER_END = Struct(">B20sQ32sB"), Struct(">I32sIQ")  # the parents are between
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)


# ---- genesis


class LedgerGenesis(msgspec.Struct, frozen=True, dict=True):
    """What an admin of the mesh signs once: who witnesses with what weight, who begins with how much, the least fee."""

    issuer: str
    witnesses: tuple[tuple[str, int], ...]  # node id, weight in thousandths
    balances: tuple[tuple[str, int], ...]  # node id, amount in millionths
    fee_micro: int
    created_us: int
    epoch: int = 0

    @cached_property
    def supply_micro(self) -> int:
        return sum(amount for _, amount in self.balances)

    def encode(self) -> bytes:
        writer = BodyWriter().uint(VERSION, 1).fixed(node_id_bytes(self.issuer), NODE_ID_BYTES)
        writer.uint(self.epoch, 4).uint(self.fee_micro, 8).uint(self.created_us, 8)
        writer.uint(len(self.witnesses), 2)
        for node, weight in self.witnesses:
            writer.fixed(node_id_bytes(node), NODE_ID_BYTES).uint(weight, 4)
        writer.uint(len(self.balances), 2)
        for account, amount in self.balances:
            writer.fixed(node_id_bytes(account), NODE_ID_BYTES).uint(amount, 8)
        return writer.done()

    @classmethod
    def decode(cls, body: bytes) -> LedgerGenesis:
        """Raises PeerFault for anything that `encode` would not have written, or that no ledger may begin with."""
        if len(body) > GENESIS_BYTES_MAX:
            raise PeerFault(
                f"ledger genesis: body of {len(body)} bytes, at most {GENESIS_BYTES_MAX} allowed",
                reason="MalformedBody",
            )
        try:
            reader = BodyReader(body)
            genesis = cls._read(reader)
            reader.end()
            genesis.check()
        except ValueError as error:
            raise PeerFault(f"ledger genesis: {error}", reason="MalformedBody") from error
        return genesis

    @classmethod
    def _read(cls, reader: BodyReader) -> LedgerGenesis:
        check_version(reader.uint(1), VERSION)
        issuer, epoch, fee, created = (
            base32(reader.fixed(NODE_ID_BYTES)),
            reader.uint(4),
            reader.uint(8),
            reader.uint(8),
        )
        count = _count(reader.uint(2), 1, WITNESSES_MAX, "witnesses")
        witnesses = tuple((base32(reader.fixed(NODE_ID_BYTES)), reader.uint(4)) for _ in range(count))
        count = _count(reader.uint(2), 0, ACCOUNTS_MAX, "balances")
        balances = tuple((base32(reader.fixed(NODE_ID_BYTES)), reader.uint(8)) for _ in range(count))
        return cls(issuer, witnesses, balances, fee, created, epoch)

    def check(self) -> None:
        """Raises ValueError unless a ledger may begin like this."""
        _count(len(self.witnesses), 1, WITNESSES_MAX, "witnesses")
        _count(len(self.balances), 0, ACCOUNTS_MAX, "balances")
        for what, rows in (("witness", self.witnesses), ("account", self.balances)):
            if len({node for node, _ in rows}) < len(rows):
                raise ValueError(f"a {what} is named twice")
        if any(weight == 0 for _, weight in self.witnesses):
            raise ValueError("a witness weighs nothing")
        if self.supply_micro > SUPPLY_MAX:
            raise ValueError(f"all balances together are at most {SUPPLY_MAX}")
        if self.fee_micro > AMOUNT_MAX or self.created_us > AMOUNT_MAX:
            raise ValueError(f"fee and time are at most {AMOUNT_MAX}")
        if self.epoch != 0:
            raise ValueError(f"epoch {self.epoch}: a ledger begins with epoch 0")

    def digest(self, salt: bytes) -> bytes:
        return digest_of(GENESIS_KIND, salt, self.encode())


# ---- transactions


class Tx(msgspec.Struct, frozen=True, dict=True):
    """Moves money of its source's account in the slot `seq` of that; `prev` is the digest of the transaction in the
    slot before, or of the genesis: the slots of an account are a chain. `request` is what `request_mark` makes of the
    id under which it was asked for: by it an owner that was restored knows a repeated call."""

    source: Source
    seq: int
    prev: bytes
    fee_micro: int
    outputs: tuple[tuple[bytes, int], ...]
    meta: bytes = b""
    request: bytes = NO_REQUEST

    @cached_property
    def src(self) -> bytes:
        """The account that it takes from."""
        return self.source.account

    @cached_property
    def total_micro(self) -> int:
        """What the account loses: all outputs and the fee."""
        return sum([amount for _, amount in self.outputs]) + self.fee_micro

    def encode(self) -> bytes:
        parts = [
            b"\x01", self.source.encode(), self.seq.to_bytes(8, "big"), self.prev, self.fee_micro.to_bytes(8, "big"),
            bytes((len(self.outputs),)),
        ]  # fmt: skip
        for account, amount in self.outputs:
            parts += account, amount.to_bytes(8, "big")
        parts += len(self.meta).to_bytes(2, "big"), self.meta, self.request
        return b"".join(parts)

    @classmethod
    def decode(cls, body: bytes) -> Tx:
        """Raises PeerFault for anything that `encode` would not have written, or that moves what cannot be moved."""
        return decode_body("transaction", body, cls._read, cls.encode)

    @classmethod
    def _read(cls, reader: BodyReader) -> Tx:
        check_version(reader.uint(1), VERSION)
        source, seq, prev, fee = read_source(reader), reader.uint(8), reader.fixed(DIGEST_BYTES), reader.uint(8)
        count = _count(reader.uint(1), 1, OUTPUTS_MAX, "outputs")
        outputs = tuple((reader.fixed(NODE_ID_BYTES), reader.uint(8)) for _ in range(count))
        tx = cls(source, seq, prev, fee, outputs, reader.blob(), reader.fixed(REQUEST_BYTES))
        tx.check()
        return tx

    def check(self) -> None:
        """Raises ValueError unless it could be a transaction of some ledger, whatever the balances."""
        _count(len(self.outputs), 1, OUTPUTS_MAX, "outputs")
        if any(amount == 0 for _, amount in self.outputs):
            raise ValueError("an output of nothing")
        if self.total_micro > AMOUNT_MAX or self.seq > SEQ_MAX:
            raise ValueError(f"outputs and fee are at most {AMOUNT_MAX} together, and so is the slot's number")
        decode_meta(self.meta)
        if isinstance(self.source, HoldSource):
            self._check_hold(self.source)

    def _check_hold(self, source: HoldSource) -> None:
        """By its terms there is one way to write how it ends."""
        if (self.outputs, self.fee_micro) != (source.outputs, source.terms.fee_micro):
            raise ValueError("a hold's outputs and fee are those that its terms and its end give")
        if self.meta or self.request != NO_REQUEST:
            raise ValueError("a hold's transaction has neither meta nor a request")

    def digest(self, salt: bytes) -> bytes:
        """The 32 bytes that are signed; the transaction's id is their text form (`tx_id_of`)."""
        return digest_of(TX_KIND, salt, self.encode())


def tx_id_of(digest: bytes) -> str:
    """How people and programs name a transaction: 52 characters."""
    return base32(digest)


def request_mark(request_id: str, salt: bytes) -> bytes:
    """What a transaction says of the request id under which its owner asked for it; NO_REQUEST for none."""
    return digest_of(REQUEST_KIND, salt, request_id.encode())[:REQUEST_BYTES] if request_id else NO_REQUEST


def encode_meta(meta: Mapping[str, str]) -> bytes:
    """Raises ValueError for a key or a value that no transaction may carry."""
    parts = []
    for key, value in sorted(meta.items()):
        said = value.encode("utf-8")
        _check_meta(key, value, said)
        parts += [bytes((len(key),)), key.encode("ascii"), len(said).to_bytes(2, "big"), said]
    encoded = b"".join(parts)
    _count(len(encoded), 0, META_BYTES_MAX, "bytes of meta")
    return encoded


def decode_meta(encoded: bytes) -> dict[str, str]:
    """Raises ValueError for anything that `encode_meta` would not have written."""
    _count(len(encoded), 0, META_BYTES_MAX, "bytes of meta")
    meta: dict[str, str] = {}
    at, last = 0, ""
    while at < len(encoded):
        key_end = at + 1 + encoded[at]
        value_at = key_end + 2
        value_end = value_at + int.from_bytes(encoded[key_end:value_at], "big")
        if value_end > len(encoded) or value_at > len(encoded):
            raise ValueError("meta ends too early")
        key, said = encoded[at + 1 : key_end].decode("ascii"), encoded[value_at:value_end]
        value = said.decode("utf-8")
        _check_meta(key, value, said)
        if key <= last:
            raise ValueError("meta: keys must ascend")
        meta[key], last, at = value, key, value_end
    return meta


def meta_text(text: str) -> str:
    """As much of a text as meta may carry."""
    return _UNSEEN.sub("", text).encode("utf-8")[:META_VALUE_BYTES_MAX].decode("utf-8", "ignore")


def _check_meta(key: str, value: str, said: bytes) -> None:
    if not _META_KEY.match(key):
        raise ValueError(f"meta key {key[:32]!r}: {META_KEY_RULE}")
    if len(said) > META_VALUE_BYTES_MAX or _UNSEEN.search(value):
        raise ValueError(f"meta {key}: at most {META_VALUE_BYTES_MAX} bytes of text without control characters")


# ---- how a slot ends without a transaction


def noop_digest(salt: bytes, account: bytes, seq: int) -> bytes:
    """The no-op: what stands in a slot in which nothing is moved. The account's next transaction names it as `prev`."""
    return digest_of(NOOP_KIND, salt, _slot_body(account, seq))


def unlock_digest(salt: bytes, account: bytes, seq: int) -> bytes:
    """What an owner signs who asks that this slot of its account ends, whatever it has signed there."""
    return digest_of(UNLOCK_KIND, salt, _slot_body(account, seq))


def _slot_body(account: bytes, seq: int) -> bytes:
    return BodyWriter().uint(VERSION, 1).fixed(account, NODE_ID_BYTES).uint(seq, 8).done()


# ---- blocks


class Header(msgspec.Struct, frozen=True, dict=True):
    """What the author of a block signs: its place in the author's chain, other blocks that it had seen, its items."""

    author: bytes
    height: int
    prev: bytes
    parents: tuple[bytes, ...]
    epoch: int
    items_root: bytes
    items_count: int
    created_us: int

    @cached_property
    def author_id(self) -> str:
        return node_id_from(self.author)

    def encode(self) -> bytes:
        return b"".join((
            b"\x01", self.author, self.height.to_bytes(8, "big"), self.prev, bytes((len(self.parents),)),
            *self.parents, self.epoch.to_bytes(4, "big"), self.items_root, self.items_count.to_bytes(4, "big"),
            self.created_us.to_bytes(8, "big"),
        ))  # fmt: skip

    @classmethod
    def decode(cls, body: bytes) -> Header:
        """Raises PeerFault for anything that `encode` would not have written."""
        return decode_body("block header", body, cls._read)  # each field has one form

    @classmethod
    def _read(cls, reader: BodyReader) -> Header:
        version, author, height, prev, count = reader.unpack(_HEADER_BEGIN)
        check_version(version, VERSION)
        _count(count, 0, PARENTS_MAX, "parents")
        parents = tuple(reader.fixed(DIGEST_BYTES) for _ in range(count))
        header = cls(author, height, prev, parents, *reader.unpack(_HEADER_END))
        if not 0 < height <= SEQ_MAX or header.created_us > AMOUNT_MAX:
            raise ValueError(f"height {height}: 1 to {SEQ_MAX} are allowed")
        if len({prev, *parents}) <= count:
            raise ValueError("a parent is named twice")
        return header

    def digest(self, salt: bytes) -> bytes:
        return digest_of(HEADER_KIND, salt, self.encode())


# ---- bookings


def booking_digest(salt: bytes, job_id: str, attempt: int, payee: bytes, amount_micro: int, action: str) -> bytes:
    """A leaf of the tree whose root a payment of many bookings names."""
    writer = BodyWriter().uint(VERSION, 1).text(job_id).uint(attempt, 4).fixed(payee, NODE_ID_BYTES)
    return digest_of(BOOKING_KIND, salt, writer.uint(amount_micro, 8).text(action).done())


def _count(count: int, least: int, most: int, what: str) -> int:
    if not least <= count <= most:
        raise ValueError(f"{count} {what}, {least} to {most} are allowed")
    return count
