"""Range-based set reconciliation: good where what differs lies close together, such as the latest items of two nodes.

After Meyer, "Range-Based Set Reconciliation" (SRDS 2023). Items are ordered by time, then id. A range is told by its
fingerprint: the items' keyed hashes summed modulo 2^256, hashed with their count (sums of prefixes are kept, so any
range's costs two look-ups). Where fingerprints differ, the other cuts the range into BRANCHES, down to LEAF_ITEMS,
which are listed. The side that begins learns both differences; the side that answers keeps nothing in between.

The key is the session's, drawn by the side that begins: items that make two fingerprints equal cannot be searched for
beforehand (Wagner's generalised birthday would find such for plain sums). Every message is bounded by
MESSAGE_BYTES_MAX: what does not fit is told by one fingerprint, and comes in a later round. An honest peer cuts or
lists every range that differs, so a few rounds do for sets of any size; ROUNDS_MAX ends what a liar begins, or what
differs by some 150,000.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.reconcile.varints import read_varint, varint

ID_BYTES = 16
FINGERPRINT_BYTES = 16
BRANCHES, LEAF_ITEMS = 16, 32
LIST_ITEMS_MAX = 128  # that are listed to one who listed his; more are cut
MESSAGE_BYTES_MAX = 64 * 1024
ROUNDS_MAX = 64  # 4 MB of messages, and some tens of MB of items
ITEM_KIND, RANGE_KIND = b"og.rangeitem.v1", b"og.range.v1"

_SKIP, _FINGERPRINT, _LIST, _LAST = 0, 1, 2, 4
_MASK = (1 << 256) - 1
_TIME_MAX = (1 << 63) - 1
_TAIL_BYTES_MAX = 64  # what the last fingerprint of a message that is full needs


@dataclass(frozen=True, order=True, slots=True)
class Item:
    """`time` in whatever unit both sides use; `id` is ID_BYTES long."""

    time: int
    id: bytes


END = Item(_TIME_MAX, b"")  # above every item


@dataclass(frozen=True, slots=True)
class _Range:
    """From where the one before ended up to `end`, which is not in it: the same on both sides (neither is set), told by
    its fingerprint, or by its items."""

    end: Item
    fingerprint: bytes = b""
    items: tuple[Item, ...] | None = None


class Ordered:
    """A set as one session sees it."""

    def __init__(self, key: bytes, items: Iterable[Item]) -> None:
        """Some 2 µs an item."""
        self.items = sorted(set(items))
        self._key, self._sums, total = key, [0], 0
        for item in self.items:
            raw = item.time.to_bytes(8, "big") + item.id
            drawn = hashlib.blake2b(raw, digest_size=32, key=key, person=ITEM_KIND).digest()
            total = total + int.from_bytes(drawn, "big") & _MASK
            self._sums.append(total)

    def place(self, bound: Item) -> int:
        return bisect_left(self.items, bound)

    def fingerprint(self, start: int, end: int) -> bytes:
        raw = (self._sums[end] - self._sums[start] & _MASK).to_bytes(32, "big") + (end - start).to_bytes(8, "big")
        return hashlib.blake2b(raw, digest_size=FINGERPRINT_BYTES, key=self._key, person=RANGE_KIND).digest()

    def bound(self, place: int) -> Item:
        """The shortest that parts the item at `place` from the one before."""
        if place >= len(self.items):
            return END
        before, item = self.items[place - 1], self.items[place]
        if before.time != item.time:
            return Item(item.time, b"")
        same = next(n for n in range(ID_BYTES) if before.id[n] != item.id[n])
        return Item(item.time, item.id[: same + 1])

    def cut(self, start: int, end: int, upto: Item) -> Iterator[_Range]:
        """A range that differs, told more closely."""
        if end - start <= LEAF_ITEMS:
            yield _Range(upto, items=tuple(self.items[start:end]))
            return
        for branch in range(BRANCHES):
            first, last = (start + (end - start) * at // BRANCHES for at in (branch, branch + 1))
            yield _Range(self.bound(last) if branch < BRANCHES - 1 else upto, self.fingerprint(first, last))


class Asking:
    """The side that begins: `here` and `there` are what only this side has, and only the other."""

    def __init__(self, ordered: Ordered) -> None:
        self._ordered, self._rounds = ordered, 0
        self.here: set[Item] = set()
        self.there: set[Item] = set()

    def begin(self) -> bytes:
        return _encode(self._ordered, self._ordered.cut(0, len(self._ordered.items), END))

    def on_answer(self, raw: bytes) -> bytes:
        """The next message; b"" once all is known. Raises PeerFault (BadRanges, NoEnd)."""
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            raise PeerFault(f"ranges still differ after {ROUNDS_MAX} rounds", reason="NoEnd")
        return _encode(self._ordered, _reply(self._ordered, _decode(raw), self._learn))

    def _learn(self, mine: Sequence[Item], theirs: Sequence[Item]) -> None:
        self.here.update(set(mine).difference(theirs))
        self.there.update(set(theirs).difference(mine))


def answer(ordered: Ordered, raw: bytes) -> bytes:
    """Of the other side; b"" when nothing differs. Raises PeerFault (BadRanges)."""
    return _encode(ordered, _reply(ordered, _decode(raw), None))


def _reply(
    ordered: Ordered, told: Iterable[_Range], learn: Callable[[Sequence[Item], Sequence[Item]], None] | None
) -> Iterator[_Range]:
    """What to say to each range; who learns says nothing more of one whose items he was told."""
    start = 0
    for each in told:
        end = ordered.place(each.end)
        mine = ordered.items[start:end]
        if each.items is not None and learn is not None:
            learn(mine, each.items)
            yield _Range(each.end)
        elif each.items is not None and len(mine) <= LIST_ITEMS_MAX:
            yield _Range(each.end, items=tuple(mine))
        elif each.items is None and each.fingerprint in (b"", ordered.fingerprint(start, end)):
            yield _Range(each.end)
        else:
            yield from ordered.cut(start, end, each.end)
        start = end


# ---- as they travel


def _encode(ordered: Ordered, ranges: Iterable[_Range]) -> bytes:
    """Up to the last one that is not the same; what there is no room for is told by one fingerprint."""
    out, before, skipped = bytearray(), Item(0, b""), None
    for each in ranges:
        if each.items is None and not each.fingerprint:
            skipped = each
            continue
        written = b"" if skipped is None else _written(before, skipped)
        written += _written(before if skipped is None else skipped.end, each)
        if len(out) + len(written) > MESSAGE_BYTES_MAX - _TAIL_BYTES_MAX:
            rest = ordered.fingerprint(ordered.place(before), len(ordered.items))
            return bytes(out) + _written(before, _Range(END, rest))
        out += written
        before, skipped = each.end, None
    return bytes(out)


def _written(before: Item, each: _Range) -> bytes:
    mode = _LIST if each.items is not None else _FINGERPRINT if each.fingerprint else _SKIP
    out = bytearray([mode | (_LAST if each.end == END else 0)])
    if each.end != END:
        out += varint(each.end.time - before.time) + bytes([len(each.end.id)]) + each.end.id
    out += each.fingerprint
    if each.items is not None:
        out += varint(len(each.items))
        time = before.time
        for item in each.items:
            out += varint(item.time - time) + item.id
            time = item.time
    return bytes(out)


def _decode(raw: bytes) -> list[_Range]:
    """Raises PeerFault (reason BadRanges) for anything that `_encode` would not have written."""
    try:
        if len(raw) > MESSAGE_BYTES_MAX:
            raise ValueError(f"{len(raw)} bytes; at most {MESSAGE_BYTES_MAX} are allowed")
        return list(_read(raw))
    except ValueError as error:
        raise PeerFault(f"ranges: {error}", reason="BadRanges") from error


def _read(raw: bytes) -> Iterator[_Range]:
    at, before = 0, Item(0, b"")
    while at < len(raw):
        head, at = raw[at], at + 1
        mode, end = head & ~_LAST, END
        if not head & _LAST:
            more, at = read_varint(raw, at)
            if at >= len(raw) or raw[at] > ID_BYTES:
                raise ValueError(f"no bound at byte {at}")
            end, at = Item(before.time + more, raw[at + 1 : at + 1 + raw[at]]), at + 1 + raw[at]
        if not before < end <= END or mode not in (_SKIP, _FINGERPRINT, _LIST):
            raise ValueError(f"no range ends at byte {at}")
        each = _Range(end)
        if mode == _FINGERPRINT:
            each, at = _Range(end, _bytes(raw, at, FINGERPRINT_BYTES)), at + FINGERPRINT_BYTES
        elif mode == _LIST:
            items, at = _read_items(raw, at, before, end)
            each = _Range(end, items=items)
        yield each
        before = end


def _read_items(raw: bytes, at: int, before: Item, end: Item) -> tuple[tuple[Item, ...], int]:
    count, at = read_varint(raw, at)
    items, time = list[Item](), before.time
    for _ in range(min(count, len(raw))):
        more, at = read_varint(raw, at)
        time += more
        item, at = Item(time, _bytes(raw, at, ID_BYTES)), at + ID_BYTES
        if not (items[-1] < item if items else before <= item) or item >= end:
            raise ValueError(f"an item out of place before byte {at}")
        items.append(item)
    if len(items) != count:
        raise ValueError(f"{count} items in {len(raw)} bytes")
    return tuple(items), at


def _bytes(raw: bytes, at: int, length: int) -> bytes:
    if at + length > len(raw):
        raise ValueError(f"it ends at byte {len(raw)}")
    return raw[at : at + length]
