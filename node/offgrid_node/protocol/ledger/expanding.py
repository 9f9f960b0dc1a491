"""Compact blocks read back (compact.py has their form): the block that was signed, or what is missing for that."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.errors import NotFound, PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32
from offgrid_node.protocol.ledger.blocks import (
    BLOCK_BYTES_MAX,
    BLOCK_ITEMS_MAX,
    CheckedBlock,
    Holds,
    check_block,
    leaves,
)
from offgrid_node.protocol.ledger.compact import (
    BEFORE,
    BOTH,
    CONFIRM,
    EPOCH_SAID,
    FEE_IS_LEAST,
    KIND_BITS,
    KIND_MASK,
    META_LEFT_OUT,
    MILLISECONDS,
    OF_LANE,
    ONE_OUTPUT,
    PARENT_BY_NAME,
    PARENT_WHOLE,
    PARENTS_MASK,
    PREFIX_BYTES_MAX,
    PREFIX_BYTES_MIN,
    PREV_IS_HEAD,
    PREV_WHOLE,
    REQUEST_LEFT_OUT,
    TX,
    VOTE,
    WHOLE,
    Context,
    Named,
    Names,
    near,
    newest_us,
)
from offgrid_node.protocol.ledger.items import SignedHeader, Statement, TxItem
from offgrid_node.protocol.ledger.records import (
    AMOUNT_MAX,
    DIGEST_BYTES,
    NO_REQUEST,
    OUTPUTS_MAX,
    PARENTS_MAX,
    REQUEST_BYTES,
    Header,
    Tx,
)
from offgrid_node.protocol.ledger.sources import LaneSource, NodeSource
from offgrid_node.protocol.merkle import root_of
from offgrid_node.protocol.reconcile.varints import read_varint
from offgrid_node.protocol.signing import SIGNATURE_BYTES

CANDIDATES_MAX = 64  # ways to read the prefixes of one block that are tried


def expand(context: Context, data: bytes, holds: Holds) -> CheckedBlock:
    """The block that was compressed, every signature of it checked.

    Raises NotFound (BlockUnknown, TransactionUnknown, SlotUnknown; the metadata says which) for what must be held to
    read it, and PeerFault for what is no block, or none that its author signed.
    """
    fault = PeerFault("it can be read in no way", reason="MalformedBlock")
    try:
        for block in islice(_Reader(context, data).blocks(), CANDIDATES_MAX):
            try:
                return check_block(block, context.salt, holds)
            except PeerFault as wrong:
                fault = wrong
                if fault.reason != "BadSignature":
                    break
    except ValueError as error:
        fault = PeerFault(str(error), reason="MalformedBlock")
    raise PeerFault(f"compact block: {fault.message}; it may lean on others than are held", reason=fault.reason)


class _Reader:
    def __init__(self, context: Context, data: bytes) -> None:
        if len(data) > BLOCK_BYTES_MAX:
            raise ValueError(f"{len(data)} bytes, at most {BLOCK_BYTES_MAX} are allowed")
        if len(data) <= SIGNATURE_BYTES:
            raise ValueError(f"{len(data)} bytes, a signature alone has {SIGNATURE_BYTES}")
        self._context, self._names = context, Names(context.genesis)
        self._data, self._at = data[:-SIGNATURE_BYTES], 0
        self._signature = data[-SIGNATURE_BYTES:]

    def blocks(self) -> Iterator[ledger_pb2.Block]:
        """What it can mean: more than one where a transaction's digest begins like another's. Raises ValueError."""
        flags = self._byte()
        if flags & PARENTS_MASK > PARENTS_MAX or flags >= PREV_WHOLE << 1:
            raise ValueError(f"flags {flags} are not known")
        author, epoch = self._name(), self._number() if flags & EPOCH_SAID else 0
        height = self._height(author)
        leaned_on = list[SignedHeader]()
        if flags & PREV_WHOLE:
            prev = self._take(DIGEST_BYTES)
        elif height <= 1:
            prev = self._context.genesis.digest(self._context.salt)
        else:
            leaned_on.append(self._placed(author, height - 1))
            prev = leaned_on[0].digest
        parents = [self._parent(leaned_on) for _ in range(flags & PARENTS_MASK)]
        since = self._number() * (1_000 if flags & MILLISECONDS else 1)
        created_us = newest_us(self._context.genesis, leaned_on) + (-since if flags & BEFORE else since)
        if not 0 <= created_us <= AMOUNT_MAX:
            raise ValueError(f"made at {created_us}; 0 to {AMOUNT_MAX} are allowed")
        if epoch >= 2**32:
            raise ValueError(f"epoch {epoch}; at most {2**32 - 1} is allowed")
        for items in product(*self._items()):
            encoded = [item for group in items for item in group]
            root = root_of(leaves(encoded, self._context.salt))
            header = Header(author, height, prev, tuple(parents), epoch, root, len(encoded), created_us)
            signed = common_pb2.Signed(body=header.encode(), signature=self._signature)
            yield ledger_pb2.Block(header=signed, items=encoded)

    # ---- the header

    def _height(self, author: bytes) -> int:
        """Of a block that is the author's next one, or about there."""
        return near(self._context.height(author) + 1, self._byte())

    def _placed(self, author: bytes, height: int) -> SignedHeader:
        found = self._context.placed(author, height)
        if found is None:
            raise NotFound(
                f"block {height} of {base32(author)} is not held here, and another leans on it",
                reason="BlockUnknown", metadata={"author": base32(author), "height": str(height)},
            )  # fmt: skip
        return found

    def _parent(self, leaned_on: list[SignedHeader]) -> bytes:
        said = self._byte()
        number, low = said >> 4, said & 15
        if bytes((said,)) == PARENT_WHOLE:
            return self._take(DIGEST_BYTES)
        if number:
            author = self._names.of(number)
            height = near(self._context.height(author), low, 4)
        elif bytes((said,)) == PARENT_BY_NAME:
            author = self._name()
            height = near(self._context.height(author), self._byte())
        else:
            raise ValueError(f"parent {said} is not known")
        leaned_on.append(self._placed(author, height))
        return leaned_on[-1].digest

    # ---- items

    def _items(self) -> list[list[list[bytes]]]:
        """Of each tag the items that it can mean."""
        found, own, count = list[list[list[bytes]]](), None, 0
        while self._at < len(self._data):
            tag = self._byte()
            kind, size = tag & KIND_MASK, tag >> KIND_BITS
            if kind in (VOTE, CONFIRM, BOTH):
                found.append([_said(kind, meant) for meant in self._meant(size, own)])
            elif kind == TX and not size:
                item, own = self._tx()
                found.append([[item]])
            elif kind == WHOLE and not size:
                found.append([[self._take(self._number())]])
            else:
                raise ValueError(f"item {tag} is not known")
            count += 2 if kind == BOTH else 1
            if count > BLOCK_ITEMS_MAX:
                raise ValueError(f"more than {BLOCK_ITEMS_MAX} items")
        if not found:
            raise ValueError(f"0 items, 1 to {BLOCK_ITEMS_MAX} are allowed")
        return found

    def _meant(self, size: int, own: Named | None) -> list[Named]:
        """The transactions that a statement can be about."""
        if not size:
            if own is None:
                raise ValueError("a statement about a transaction of this block, which has none")
            return [own]
        if size > PREFIX_BYTES_MAX or size < PREFIX_BYTES_MIN:
            raise ValueError(f"{size} bytes of a digest, {PREFIX_BYTES_MIN} to {PREFIX_BYTES_MAX} are allowed")
        prefix = self._take(size)
        found = [*islice(self._context.named(prefix), CANDIDATES_MAX)]
        if not found:
            raise NotFound(
                f"no transaction {prefix.hex()}… is held here, and a statement is about it",
                reason="TransactionUnknown", metadata={"digest": prefix.hex()},
            )  # fmt: skip
        return found

    def _tx(self) -> tuple[bytes, Named]:
        signature, flags, owner = self._take(SIGNATURE_BYTES), self._byte(), self._name()
        source: NodeSource | LaneSource = NodeSource(owner)
        if flags & OF_LANE:
            source = LaneSource(owner, self._short("lane"), self._short("key"))
        src, account = source.account, self._context.account(source.account)
        seq = near(account.next_seq, self._byte())
        if flags & PREV_IS_HEAD and seq != account.next_seq:
            raise NotFound(
                f"slot {seq} of {base32(src)} is said to be its next, here that is {account.next_seq}",
                reason="SlotUnknown", metadata={"account": base32(src), "seq": str(seq)},
            )  # fmt: skip
        prev = account.head if flags & PREV_IS_HEAD else self._take(DIGEST_BYTES)
        fee = self._context.genesis.fee_micro if flags & FEE_IS_LEAST else self._number()
        count = 1 if flags & ONE_OUTPUT else self._number()
        if count > OUTPUTS_MAX:
            raise ValueError(f"{count} outputs, at most {OUTPUTS_MAX} are allowed")
        outputs = tuple((self._name(), self._number()) for _ in range(count))
        meta = b"" if flags & META_LEFT_OUT else self._take(self._number())
        request = NO_REQUEST if flags & REQUEST_LEFT_OUT else self._take(REQUEST_BYTES)
        try:
            tx = Tx(source, seq, prev, fee, outputs, meta, request)
            item = TxItem(tx, tx.encode(), signature, tx.digest(self._context.salt))
        except OverflowError as error:
            raise ValueError(f"a transaction with a number that is too large: {error}") from error
        return item.encode(), Named(item.digest, src, seq)

    # ---- bytes

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise ValueError(f"it ends at {len(self._data)}, {end} needed")
        taken, self._at = self._data[self._at : end], end
        return taken

    def _byte(self) -> int:
        return self._take(1)[0]

    def _number(self) -> int:
        value, self._at = read_varint(self._data, self._at)
        return value

    def _short(self, what: str) -> int:
        number = self._number()
        if number >= 1 << 16:
            raise ValueError(f"{what} {number}; at most {(1 << 16) - 1} is allowed")
        return number

    def _name(self) -> bytes:
        number = self._number()
        return self._names.of(number) if number else self._take(NODE_ID_BYTES)


def _said(kind: int, meant: Named) -> list[bytes]:
    confirms = {VOTE: (False,), CONFIRM: (True,), BOTH: (False, True)}[kind]
    return [Statement(it, meant.account, meant.seq, 0, meant.digest).encode() for it in confirms]
