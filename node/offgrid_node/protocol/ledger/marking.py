"""Votes and confirms of one step said together: a bit for each transaction of a block that is held (`Marks`).

A `Marks` item says what as many statements at ballot 0 would, in a bit instead of 65 bytes each. The block that it
names counts as a parent does: whoever takes the item in holds it. Bits where that block has no transaction say nothing.

What stands in recent blocks is held in memory, for all that are marked are recent; what is not is read from the log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ledger.blocks import BLOCK_MARKS_MAX, CheckedBlock
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.items import Cut, Item, Marks, Report, Statement, TxItem, decode_item

RECENT_MAX = 32_768  # items of blocks with transactions that are held in memory


class Meant(NamedTuple):
    """A transaction, by its slot and digest."""

    account: bytes
    seq: int
    digest: bytes


Places = Sequence[Meant | None]
"""By their places in a block: the transactions, and None where there is none."""


def places_of(items: Iterable[Item]) -> Places:
    return [Meant(item.tx.src, item.tx.seq, item.digest) if isinstance(item, TxItem) else None for item in items]


def meant_by(marks: Marks, places: Places) -> Iterator[Meant]:
    bits = int.from_bytes(marks.places, "little")
    for meant in places:
        if bits & 1 and meant is not None:
            yield meant
        bits >>= 1


def spelled(items: Iterable[Item], places_in: Callable[[bytes], Places]) -> Iterator[Item]:
    """The items with every `Marks` replaced by the statements that it stands for."""
    for item in items:
        if isinstance(item, Marks):
            for account, seq, digest in meant_by(item, places_in(item.block)):
                yield Statement(item.confirms, account, seq, 0, digest)
        else:
            yield item


class Marking:
    """Which transaction stands where in which block."""

    def __init__(self, chains: Chains, salt: bytes) -> None:
        self._chains, self._salt = chains, salt
        self._recent: OrderedDict[bytes, Places] = OrderedDict()
        self._recent_items = 0
        self._where: dict[bytes, tuple[bytes, int]] = {}  # transaction → block and place, of recent blocks

    def on_block(self, block: CheckedBlock) -> None:
        """A block of this epoch was taken in, or made."""
        places = places_of(block.items)
        if any(places):
            for place, meant in enumerate(places):
                if meant is not None:
                    self._where[meant.digest] = block.digest, place
            self._remember(block.digest, places)

    def enter(self) -> None:
        """An epoch has begun: who starts with it does not have the blocks of before, so they are named no more."""
        self._recent.clear()
        self._where.clear()
        self._recent_items = 0

    def meant_by(self, marks: Marks) -> Iterator[Meant]:
        return meant_by(marks, self.places_in(marks.block))

    def places_in(self, digest: bytes) -> Places:
        """Of a block that is held."""
        places = self._recent.get(digest)
        if places is None:
            place = self._chains.place(digest)
            raw = self._chains.raw(place) if place is not None else None
            if raw is None:
                return ()
            places = places_of(decode_item(item, self._salt) for item in ledger_pb2.Block.FromString(raw).items)
            self._remember(digest, places)
        return places

    def gathered(self, items: Sequence[Item]) -> list[Item]:
        """The same, by fewer items where several transactions of one recent block are spoken of, and in an order in
        which it may be said."""
        groups: dict[tuple[bytes, bool], list[int]] = {}
        for item in items:
            if (where := self._place(item)) is not None:
                block, place, confirms = where
                groups.setdefault((block, confirms), []).append(place)
        ranked = sorted(groups.items(), key=lambda group: len(group[1]), reverse=True)
        many = {group: places for group, places in ranked[:BLOCK_MARKS_MAX] if len(places) > 1}
        if not many:
            return [*items]
        rest = [item for item in items if (where := self._place(item)) is None or (where[0], where[2]) not in many]
        marks = (_marks(block, confirms, places) for (block, confirms), places in many.items())
        return sorted([*rest, *marks], key=_turn)

    def _place(self, item: Item) -> tuple[bytes, int, bool] | None:
        """The block and place of the transaction that is spoken of, and whether it is confirmed."""
        if not isinstance(item, Statement) or item.ballot:
            return None
        where = self._where.get(item.tx_digest)
        return (*where, item.confirms) if where is not None else None

    def _remember(self, digest: bytes, places: Places) -> None:
        self._recent[digest] = places
        self._recent_items += len(places)
        while self._recent_items > RECENT_MAX:
            oldest, gone = self._recent.popitem(last=False)
            self._recent_items -= len(gone)
            for meant in gone:
                if meant is not None and self._where.get(meant.digest, (b"",))[0] == oldest:
                    del self._where[meant.digest]


def _turn(item: Item) -> int:
    """What is said at ballot 0 is said before what binds this node at higher ones, and each vote before confirms."""
    if isinstance(item, Marks) or (isinstance(item, Statement) and not item.ballot):
        return 2 if item.confirms else 1
    return 3 if isinstance(item, Statement | Report | Cut) else 0


def _marks(block: bytes, confirms: bool, places: Iterable[int]) -> Marks:
    bits = 0
    for place in places:
        bits |= 1 << place
    return Marks(confirms, block, bits.to_bytes(-(-bits.bit_length() // 8), "little"))
