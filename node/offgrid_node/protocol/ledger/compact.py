"""Blocks for links that carry tens of bytes a second: a block said relative to what the listener holds.

What follows from the genesis, from the author's chain and from transactions that are under way is left out;
expanding.py puts it back and hands over exactly the block that was signed, or says what the listener would have to hold
for that. It cannot hand over another one: the block's signature is checked on what came out, as for every block from
outside (blocks.check_block). Nothing signs or hashes this form, so it may change without any block changing.

Numbers are LEB128 (`n`), seven bits to a byte, the low ones first; a node or account is 1 + its place among the
genesis' witnesses and then its accounts, or 0 and its 20 bytes; heights and slots are their low byte, for both sides
know about where they are. The signature stands whole at the end.

    block       flags1 | author | [epoch n] | height1 | [prev32] | parent* | time n | item* | sig64
      flags     how many parents (bits 0-2) | 8: an epoch | 16: time in milliseconds | 32: time before | 64: prev whole
      parent    1 byte: number (high half) | height's low half; or 0, author and height1; or 1 and digest32
      time      since the newest block that it leans on by place, or since the genesis
    item        tag1 (kind, bits 0-2 | size, bits 3-7), and by its kind
      tx        sig64 | flags1 | owner | [lane n | key n] | seq1 | [prev32] | [fee n] | [count n] |
                (account | amount n)* | [length n | meta] | [request16]
      vote, confirm, both in that order   `size` bytes of the transaction's digest; none: the last one in this block
      whole     length n | the item as it is
      flags     1: prev is the account's head | 2: the least fee | 4: one output | 8: no meta | 16: no request |
                32: a lane's
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.blocks import (
    CheckedBlock,
)
from offgrid_node.protocol.ledger.items import Item, SignedHeader, Statement, TxItem
from offgrid_node.protocol.ledger.records import (
    NO_REQUEST,
    Header,
    LedgerGenesis,
    Tx,
)
from offgrid_node.protocol.ledger.sources import HoldSource, LaneSource, NodeSource
from offgrid_node.protocol.reconcile.varints import varint

PREFIX_BYTES_MIN, PREFIX_BYTES_MAX = 2, 31  # of a transaction's digest
TX, VOTE, CONFIRM, BOTH, WHOLE = range(5)
PARENTS_MASK, EPOCH_SAID, MILLISECONDS, BEFORE, PREV_WHOLE = 7, 8, 16, 32, 64
PREV_IS_HEAD, FEE_IS_LEAST, ONE_OUTPUT, META_LEFT_OUT, REQUEST_LEFT_OUT, OF_LANE = 1, 2, 4, 8, 16, 32
KIND_BITS, KIND_MASK = 3, 7
PARENT_BY_NAME, PARENT_WHOLE = b"\x00", b"\x01"
PARENT_NUMBER_MAX = 15


class Named(NamedTuple):
    """A transaction that is held, by its slot."""

    digest: bytes
    account: bytes
    seq: int


class Context(Protocol):
    """What one side holds."""

    @property
    def genesis(self) -> LedgerGenesis: ...

    @property
    def salt(self) -> bytes: ...

    def height(self, author: bytes) -> int:
        """Of the newest block of the author's chain; 0 for none."""
        ...

    def placed(self, author: bytes, height: int) -> SignedHeader | None:
        """The block of the author's chain at that height."""
        ...

    def block(self, digest: bytes) -> SignedHeader | None: ...

    def account(self, account: bytes) -> Account: ...

    def named(self, prefix: bytes) -> Iterable[Named]:
        """Transactions whose digests begin so; those that are not final yet first."""
        ...


def compress(context: Context, block: CheckedBlock) -> bytes:
    """The block for whoever holds what `context` does, or more of it."""
    return _Writer(context, block.header).whole(block)


# ---- what both sides work out


class Names:
    """Nodes and accounts by number."""

    def __init__(self, genesis: LedgerGenesis) -> None:
        known = dict.fromkeys(node_id_bytes(node) for node, _ in (*genesis.witnesses, *genesis.balances))
        self._names = [*known]
        self._numbers = {name: 1 + place for place, name in enumerate(self._names)}

    def number(self, name: bytes) -> int:
        """0: it has none."""
        return self._numbers.get(name, 0)

    def write(self, name: bytes) -> bytes:
        number = self.number(name)
        return varint(number) if number else b"\x00" + name

    def of(self, number: int) -> bytes:
        if number > len(self._names):
            raise ValueError(f"account {number}; the genesis names {len(self._names)}")
        return self._names[number - 1]


def newest_us(genesis: LedgerGenesis, leaned_on: Iterable[SignedHeader]) -> int:
    return max((each.header.created_us for each in leaned_on), default=genesis.created_us)


def near(expected: int, low: int, bits: int = 8) -> int:
    """The number about the expected one of which these are the low bits. Most of those that it can be lie above: who
    hears of a block that it lacks is to see that."""
    first = max(0, expected - (1 << bits - 2))
    return first + (low - first) % (1 << bits)


# ---- there


class _Writer:
    def __init__(self, context: Context, header: Header) -> None:
        self._context, self._header, self._names = context, header, Names(context.genesis)
        self._genesis_digest = context.genesis.digest(context.salt)

    def whole(self, block: CheckedBlock) -> bytes:
        header, leaned_on, parents = self._header, list[SignedHeader](), list[bytes]()
        before = self._placed(header.prev)
        whole_prev = header.prev != self._genesis_digest and before is None
        leaned_on += [before] if before is not None else []
        for digest in header.parents:
            found = self._placed(digest)
            if found is None:
                parents.append(PARENT_WHOLE + digest)
            else:
                leaned_on.append(found)
                parents.append(self._parent(found.header))
        since = header.created_us - newest_us(self._context.genesis, leaned_on)
        unit, flags = (1_000, MILLISECONDS) if since % 1_000 == 0 else (1, 0)
        flags |= len(parents) | (EPOCH_SAID if header.epoch else 0) | (BEFORE if since < 0 else 0)
        flags |= PREV_WHOLE if whole_prev else 0
        return b"".join((
            bytes((flags,)), self._names.write(header.author), varint(header.epoch) if header.epoch else b"",
            bytes((header.height & 0xFF,)), header.prev if whole_prev else b"", *parents, varint(abs(since) // unit),
            *self._items(block.items), block.signed.signature,
        ))  # fmt: skip

    def _parent(self, header: Header) -> bytes:
        number = self._names.number(header.author)
        if (
            0 < number <= PARENT_NUMBER_MAX
            and near(self._context.height(header.author), header.height & 15, 4) == header.height
        ):
            return bytes((number << 4 | header.height & 15,))
        return PARENT_BY_NAME + self._names.write(header.author) + bytes((header.height & 0xFF,))

    def _placed(self, digest: bytes) -> SignedHeader | None:
        """The block, where its place in its author's chain names it."""
        found = self._context.block(digest)
        if found is None:
            return None
        placed = self._context.placed(found.header.author, found.header.height)
        return found if placed is not None and placed.digest == digest else None

    def _items(self, items: Sequence[Item]) -> Iterator[bytes]:
        own: Named | None = None
        said: Statement | None = None  # a vote that a confirm may follow
        for item in items:
            if said is not None:
                both = isinstance(item, Statement) and item == replace(said, confirms=True)
                yield self._statement(BOTH if both else VOTE, said, own)
                said = None
                if both:
                    continue
            match item:
                case TxItem(tx, _, signature, digest) if (body := self._tx(tx)) is not None:
                    yield bytes((TX,)) + signature + body
                    own = Named(digest, tx.src, tx.seq)
                case Statement() if self._is_short(item, own):
                    if item.confirms:
                        yield self._statement(CONFIRM, item, own)
                    else:
                        said = item
                case _:
                    encoded = item.encode()
                    yield bytes((WHOLE,)) + varint(len(encoded)) + encoded
        if said is not None:
            yield self._statement(VOTE, said, own)

    def _is_short(self, said: Statement, own: Named | None) -> bool:
        if said.ballot:
            return False
        meant = Named(said.tx_digest, said.account, said.seq)
        return meant == own or meant in self._context.named(said.tx_digest)

    def _statement(self, kind: int, said: Statement, own: Named | None) -> bytes:
        if own is not None and own.digest == said.tx_digest:
            return bytes((kind,))
        size = PREFIX_BYTES_MIN
        while size < PREFIX_BYTES_MAX and not self._is_meant(said.tx_digest, size):
            size += 1
        return bytes((kind | size << KIND_BITS,)) + said.tx_digest[:size]

    def _is_meant(self, digest: bytes, size: int) -> bool:
        """Whether so many bytes of it name it before any other."""
        first = next(iter(self._context.named(digest[:size])), None)
        return first is not None and first.digest == digest

    def _tx(self, tx: Tx) -> bytes | None:
        """None where it is better said whole."""
        source = tx.source
        if isinstance(source, HoldSource):
            return None
        account, fee = self._context.account(tx.src), self._context.genesis.fee_micro
        if near(account.next_seq, tx.seq & 0xFF) != tx.seq:
            return None
        head = (tx.seq, tx.prev) == (account.next_seq, account.head)
        flags = (PREV_IS_HEAD if head else 0) | (FEE_IS_LEAST if tx.fee_micro == fee else 0)
        flags |= (ONE_OUTPUT if len(tx.outputs) == 1 else 0) | (0 if tx.meta else META_LEFT_OUT)
        flags |= REQUEST_LEFT_OUT if tx.request == NO_REQUEST else 0
        flags |= 0 if isinstance(source, NodeSource) else OF_LANE
        lane = varint(source.lane) + varint(source.key) if isinstance(source, LaneSource) else b""
        return b"".join((
            bytes((flags,)), self._names.write(source.signer), lane,
            bytes((tx.seq & 0xFF,)), b"" if head else tx.prev,
            b"" if flags & FEE_IS_LEAST else varint(tx.fee_micro),
            b"" if flags & ONE_OUTPUT else varint(len(tx.outputs)),
            *(self._names.write(name) + varint(amount) for name, amount in tx.outputs),
            varint(len(tx.meta)) + tx.meta if tx.meta else b"", b"" if flags & REQUEST_LEFT_OUT else tx.request,
        ))  # fmt: skip
