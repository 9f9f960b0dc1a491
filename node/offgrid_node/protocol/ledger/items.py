"""What a block carries: signed transactions, votes, confirms, evidence, and what its author has seen of a liar.

An item is a kind byte and a fixed big-endian body; only transactions, evidence and unlocks carry signatures of their
own, all else is covered by the block's; the epoch that statements and reports belong to is the block's too. Ballots
above 0 are recovery.py's.

    tx          1 | sig64 | tx body
    vote        2 | account20 | seq8 | ballot4 | tx32
    confirm     3 | the same
    fork        4 | two x (len2 header | sig64), the lesser header first
    double      5 | two x (len2 tx body | sig64), the lesser body first
    seen        6 | author20 | digest32
    unlock      7 | sig64 | source (of a node or a lane) | seq8
    report      8 | account20 | seq8 | ballot4 | certificate's ballot4 | certificate's tx32
    wish        9
    order       10 | sig64 | order body
    cut         11 | len2 checkpoint body | n2 x target | n2 x head   (checkpoints.py)
    seal        12 | epoch4 | checkpoint's digest32 | sig64
    votes      13 | block's digest32 | places: a bit for each of its items, the first byte's lowest first
    confirms   14 | the same
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import itemgetter

import msgspec

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import node_id_from
from offgrid_node.protocol.ledger.checkpoints import ORDER_KIND, Base, Checkpoint, Order, Target, targets_digest
from offgrid_node.protocol.ledger.records import HEADER_KIND, TX_KIND, Header, Tx, unlock_digest
from offgrid_node.protocol.ledger.sources import HOLD, HoldSource, LaneSource, NodeSource, Post, Source, read_source
from offgrid_node.protocol.signing import SIGNATURE_BYTES, BodyReader, BodyWriter, digest_of

TX, VOTE, CONFIRM, FORK, DOUBLE, SEEN, UNLOCK, REPORT, WISH, ORDER, CUT, SEAL, VOTES, CONFIRMS = range(1, 15)
SIGNATURES = {
    TX: 1,
    FORK: 2,
    DOUBLE: 4,
    UNLOCK: 1,
    ORDER: 1,
}  # within an item of that kind, at most; of a hold's one more
_SOURCE_AT = 1 + SIGNATURE_BYTES + 1  # in a transaction's item: behind its signature and its version
_FIRST = itemgetter(0)
_STATEMENT = struct.Struct(">B20sQI32s")
PLACES_BYTES_MAX = 512  # no block has more than 4,096 items
_SEEN = struct.Struct(">B20s32s")
_SEAL = struct.Struct(">BI32s64s")
_REPORT = struct.Struct(">B20sQII32s")


class Claim(msgspec.Struct, frozen=True):
    """A signature that whoever takes an item in has to check: `signer` (a node id) signed `digest`, its block of that
    height, its transaction of that number, or by its key of that number: by them its key of then is found."""

    signer: str
    digest: bytes
    signature: bytes
    height: int | None = None
    seq: int | None = None
    key: int | None = None


class TxItem(msgspec.Struct, frozen=True):
    """A transaction as its owner signed it."""

    tx: Tx
    body: bytes
    signature: bytes
    digest: bytes

    def encode(self) -> bytes:
        return bytes((TX,)) + self.signature + self.body


class Statement(msgspec.Struct, frozen=True):
    """A vote (`confirms` False) or a confirm, by the author of the block: for this transaction in this slot, or, at
    ballots above 0, for the no-op (records.noop_digest)."""

    confirms: bool
    account: bytes
    seq: int
    ballot: int
    tx_digest: bytes

    def encode(self) -> bytes:
        kind = CONFIRM if self.confirms else VOTE
        return _STATEMENT.pack(kind, self.account, self.seq, self.ballot, self.tx_digest)


class Marks(msgspec.Struct, frozen=True):
    """Votes (`confirms` False) or confirms at ballot 0, by the author of the block that carries this, for the
    transactions at these places of a block that is held (marking.py). The last byte of `places` is not zero."""

    confirms: bool
    block: bytes
    places: bytes

    @property
    def count(self) -> int:
        return int.from_bytes(self.places, "little").bit_count()

    def encode(self) -> bytes:
        return bytes((CONFIRMS if self.confirms else VOTES,)) + self.block + self.places


class SignedHeader(msgspec.Struct, frozen=True):
    header: Header
    body: bytes
    signature: bytes
    digest: bytes


class Fork(msgspec.Struct, frozen=True):
    """Evidence: one author signed two blocks at one height."""

    first: SignedHeader
    second: SignedHeader

    def encode(self) -> bytes:
        return _two(FORK, self.first, self.second)


class Double(msgspec.Struct, frozen=True):
    """Evidence: one owner signed two transactions for one slot."""

    first: TxItem
    second: TxItem

    def encode(self) -> bytes:
        return _two(DOUBLE, self.first, self.second)


class Seen(msgspec.Struct, frozen=True):
    """The author of this block holds that block of `author`, who forked: whoever reads this should hold it too."""

    author: bytes
    digest: bytes

    def encode(self) -> bytes:
        return _SEEN.pack(SEEN, self.author, self.digest)


class Unlock(msgspec.Struct, frozen=True):
    """An owner asks that this slot of its account ends: with what may be final there already, else with nothing."""

    source: NodeSource | LaneSource
    seq: int
    signature: bytes
    digest: bytes

    @property
    def account(self) -> bytes:
        return self.source.account

    def encode(self) -> bytes:
        return bytes((UNLOCK,)) + self.signature + self.source.encode() + self.seq.to_bytes(8, "big")


class Report(msgspec.Struct, frozen=True):
    """The author of the block says no more at lower ballots of this slot. `certified` has, of all that it knows to have
    a quorum of votes, the highest ballot; 32 zeros: it knows of none."""

    account: bytes
    seq: int
    ballot: int
    certified_ballot: int
    certified: bytes

    def encode(self) -> bytes:
        return _REPORT.pack(REPORT, self.account, self.seq, self.ballot, self.certified_ballot, self.certified)


class Wish(msgspec.Struct, frozen=True):
    """The author of the block wants its epoch to end."""

    def encode(self) -> bytes:
        return bytes((WISH,))


class OrderItem(msgspec.Struct, frozen=True):
    """An order as an admin of the mesh signed it."""

    order: Order
    body: bytes
    signature: bytes
    digest: bytes

    def encode(self) -> bytes:
        return bytes((ORDER,)) + self.signature + self.body


class Cut(msgspec.Struct, frozen=True):
    """What the block's epoch could end with. Of authors that `heads` does not name it is what it was before."""

    checkpoint: Checkpoint
    targets: tuple[Target, ...]
    heads: tuple[Base, ...]

    def encode(self) -> bytes:
        writer = BodyWriter().uint(CUT, 1).blob(self.checkpoint.encode())
        for parts in (self.targets, self.heads):
            encoded = b"".join(part.encode() for part in parts)
            writer.uint(len(parts), 2).fixed(encoded, len(encoded))
        return writer.done()


class Seal(msgspec.Struct, frozen=True):
    """The author of the block holds that checkpoint of that epoch final: its signature of receipts.Final over the cut's
    slot. Whoever leans on it checks it; no block is refused for a wrong one."""

    epoch: int
    digest: bytes
    signature: bytes

    def encode(self) -> bytes:
        return _SEAL.pack(SEAL, self.epoch, self.digest, self.signature)


Item = TxItem | Statement | Marks | Fork | Double | Seen | Unlock | Report | Wish | OrderItem | Cut | Seal


def decode_item(data: bytes, salt: bytes) -> Item:
    """Raises PeerFault for anything that no honest author writes. Signatures are not checked here: see `claims`."""
    kind = data[0] if data else 0
    if kind in (VOTE, CONFIRM):
        if len(data) != _STATEMENT.size:
            raise _malformed("statement", f"{len(data)} bytes, {_STATEMENT.size} needed")
        _, account, seq, ballot, tx_digest = _STATEMENT.unpack(data)
        return Statement(kind == CONFIRM, account, seq, ballot, tx_digest)
    if kind in (VOTES, CONFIRMS):
        block, places = data[1:33], data[33:]
        if not 0 < len(places) <= PLACES_BYTES_MAX or not places[-1]:
            end = "a last one that is zero" if places and not places[-1] else "1 to 512 needed"
            raise _malformed("marks", f"places of {len(places)} bytes, {end}")
        return Marks(kind == CONFIRMS, block, places)
    if kind == TX:
        return _tx_item(data[1 + SIGNATURE_BYTES :], data[1 : 1 + SIGNATURE_BYTES], salt)
    if kind in (FORK, DOUBLE):
        return _evidence(kind, data[1:], salt)
    if kind == SEEN and len(data) == _SEEN.size:
        return Seen(data[1:21], data[21:])
    if kind == UNLOCK:
        return _unlock(data[1:], salt)
    if kind == REPORT and len(data) == _REPORT.size:
        return _report(data)
    if kind == WISH and len(data) == 1:
        return Wish()
    if kind == ORDER:
        body, signature = data[1 + SIGNATURE_BYTES :], data[1 : 1 + SIGNATURE_BYTES]
        return OrderItem(Order.decode(body), body, signature, digest_of(ORDER_KIND, salt, body))
    if kind == CUT:
        return decode_cut(data, salt)
    if kind == SEAL and len(data) == _SEAL.size:
        return Seal(*_SEAL.unpack(data)[1:])
    raise _malformed("item", f"kind {kind} of {len(data)} bytes is not known")


def claims(item: Item, salt: bytes) -> Iterator[Claim]:
    """The signatures within an item."""
    match item:
        case TxItem(tx, _, signature, digest):
            yield _owners_claim(tx.source, tx.seq, digest, signature)
            if isinstance(tx.source, HoldSource) and isinstance(tx.source.act, Post):
                terms, act = tx.source.terms, tx.source.act
                yield Claim(
                    node_id_from(terms.payer), act.voucher(terms.account).digest(salt), act.signature, key=terms.key
                )
        case Unlock(source, seq, signature, digest):
            yield _owners_claim(source, seq, digest, signature)
        case OrderItem(order, _, signature, digest):
            yield Claim(node_id_from(order.issuer), digest, signature, key=order.key)
        case Double(first, second):
            yield from claims(first, salt)
            yield from claims(second, salt)
        case Fork(first, second):
            for header in (first, second):
                yield Claim(header.header.author_id, header.digest, header.signature, height=header.header.height)
        case _:
            pass


def fork_of(one: SignedHeader, other: SignedHeader) -> Fork:
    """In the one order that evidence has."""
    return Fork(one, other) if one.body < other.body else Fork(other, one)


def double_of(one: TxItem, other: TxItem) -> Double:
    """In the one order that evidence has."""
    return Double(one, other) if one.body < other.body else Double(other, one)


def signatures_in(items: Sequence[bytes]) -> int:
    """How many signatures encoded items carry at most, by their kinds alone: nothing is decoded for that."""
    kinds = bytes(map(_FIRST, filter(None, items)))
    count = sum(kinds.count(kind) * signatures for kind, signatures in SIGNATURES.items())
    if TX in kinds:
        count += [item[_SOURCE_AT] for item in items if len(item) > _SOURCE_AT and item[0] == TX].count(HOLD)
    return count


def _owners_claim(source: Source, seq: int, digest: bytes, signature: bytes) -> Claim:
    number = seq if source.key is None else None
    return Claim(node_id_from(source.signer), digest, signature, seq=number, key=source.key)


def _unlock(data: bytes, salt: bytes) -> Unlock:
    try:
        reader = BodyReader(data)
        signature, source, seq = reader.fixed(SIGNATURE_BYTES), read_source(reader), reader.uint(8)
        reader.end()
    except ValueError as error:
        raise _malformed("unlock", str(error)) from error
    if isinstance(source, HoldSource):
        raise _malformed("unlock", "of a hold: its slot ends when its two parties contest it")
    return Unlock(source, seq, signature, unlock_digest(salt, source.account, seq))


def _report(data: bytes) -> Report:
    _, account, seq, ballot, certified_ballot, certified = _REPORT.unpack(data)
    if ballot <= certified_ballot:
        raise _malformed("report", f"ballot {ballot} with a certificate of ballot {certified_ballot}")
    if certified_ballot and not any(certified):
        raise _malformed("report", f"no certificate, of ballot {certified_ballot}")
    return Report(account, seq, ballot, certified_ballot, certified)


def decode_cut(data: bytes, salt: bytes) -> Cut:
    """Raises PeerFault for anything that `encode` would not have written."""
    try:
        reader = BodyReader(data[1:])
        checkpoint = Checkpoint.decode(reader.blob())
        targets = tuple(Target.read(reader) for _ in range(reader.uint(2)))
        heads = tuple(Base.read(reader) for _ in range(reader.uint(2)))
        reader.end()
    except ValueError as error:
        raise _malformed("cut", str(error)) from error
    for what, names in (("accounts", [each.account for each in targets]), ("authors", [each.author for each in heads])):
        if any(one >= other for one, other in pairwise(names)):
            raise _malformed("cut", f"{what} must ascend")
    if targets_digest(targets, salt) != checkpoint.targets:
        raise _malformed("cut", "its targets are not those of its checkpoint")
    return Cut(checkpoint, targets, heads)


def _tx_item(body: bytes, signature: bytes, salt: bytes) -> TxItem:
    return TxItem(Tx.decode(body), body, signature, digest_of(TX_KIND, salt, body))


def _evidence(kind: int, data: bytes, salt: bytes) -> Fork | Double:
    try:
        reader = BodyReader(data)
        pairs = [(reader.blob(), reader.fixed(SIGNATURE_BYTES)) for _ in range(2)]
        reader.end()
    except ValueError as error:
        raise _malformed("evidence", str(error)) from error
    if pairs[0][0] >= pairs[1][0]:
        raise _malformed("evidence", "two different bodies are needed, the lesser first")
    if kind == DOUBLE:
        txs = [_tx_item(body, signature, salt) for body, signature in pairs]
        if (txs[0].tx.src, txs[0].tx.seq) != (txs[1].tx.src, txs[1].tx.seq):
            raise _malformed("evidence", "the transactions are not of one slot")
        return Double(*txs)
    headers = [
        SignedHeader(Header.decode(body), body, signature, digest_of(HEADER_KIND, salt, body))
        for body, signature in pairs
    ]
    one, other = headers[0].header, headers[1].header
    if (one.author, one.height) != (other.author, other.height):
        raise _malformed("evidence", "the headers are not of one author and height")
    return Fork(*headers)


def _two(kind: int, first: SignedHeader | TxItem, second: SignedHeader | TxItem) -> bytes:
    writer = BodyWriter().uint(kind, 1)
    for part in (first, second):
        writer.blob(part.body).fixed(part.signature, SIGNATURE_BYTES)
    return writer.done()


def _malformed(what: str, why: str) -> PeerFault:
    return PeerFault(f"{what}: {why}", reason="MalformedItem")
