"""Which way two nodes find out where they differ: by vector, then by ranges, then by symbols, the cheapest that serves.

The side that asks says hello with digests of its vector and of its items, and of those items that are not among its
RECENT_ITEMS latest. The other answers "in sync", or with its vector, and whether the older items are the same. If they
are, whatever differs is recent, and ranges over the tail find it in few bytes; if not, something may be missing
anywhere, and symbols over all items find it. Who answers keeps nothing between two messages but, as a cache, the view
under the last key; what was asked is in each message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.reconcile import ranges, sessions
from offgrid_node.protocol.reconcile.ranges import END, FINGERPRINT_BYTES, Item, Ordered
from offgrid_node.protocol.reconcile.symbols import ITEMS_MAX, KEY_BYTES, SYMBOLS_MAX, SymbolCode
from offgrid_node.protocol.reconcile.varints import read_varint, varint
from offgrid_node.protocol.reconcile.vectors import (
    DIGEST_BYTES,
    Gap,
    Heights,
    decode_vector,
    digest_of,
    encode_vector,
    gap_between,
)

RECENT_ITEMS = 1_024  # of the side that asks: where the difference of two nodes that were apart for a while lies
ID_BYTES = 8  # of shortened items in symbols

HELLO, RANGES, SYMBOLS = 1, 2, 3  # what is asked
IN_SYNC, RECENT, ANYWHERE = 1, 2, 3  # the answers to HELLO


@dataclass(frozen=True, slots=True)
class View:
    """What a node has: how far each origin's items run, and all of them."""

    heights: Heights
    items: frozenset[Item]


class Asking:
    """The side that learns. `gap` is what vectors tell. `here` and `there` are items that only one side has; by symbols
    the other's come as `unnamed`, ids under `code`, which it can name (`Answering.named`)."""

    def __init__(self, view: View, key: bytes) -> None:
        """`key`: random, of this session alone."""
        self._view, self._key = view, key
        self._ordered = Ordered(key, view.items)
        self._since = self._ordered.items[-RECENT_ITEMS].time if len(view.items) >= RECENT_ITEMS else 0
        self._by_ranges: ranges.Asking | None = None
        self._by_symbols: sessions.Asking | None = None
        self._short: dict[int, Item] = {}
        self.code = SymbolCode(key, ID_BYTES)
        self.complete = False
        self.gap = Gap({}, {})
        self.here: set[Item] = set()
        self.there: set[Item] = set()
        self.unnamed: set[int] = set()
        self.sent_bytes = self.received_bytes = self.rounds = 0

    def begin(self) -> bytes:
        whole, older = _digests(self._ordered, self._since)
        return self._sent(_head(HELLO, self._key, self._since) + digest_of(self._view.heights) + whole + older)

    def on_answer(self, raw: bytes) -> bytes:
        """The next message; b"" once all is known. Raises PeerFault (BadAnswer, and as the parts do)."""
        self.received_bytes, self.rounds = self.received_bytes + len(raw), self.rounds + 1
        if self._by_ranges is not None:
            return self._go_on_by_ranges(self._by_ranges, raw)
        if self._by_symbols is not None:
            return self._go_on_by_symbols(self._by_symbols, raw)
        return self._choose(raw)

    def _choose(self, raw: bytes) -> bytes:
        kind = raw[0] if raw else 0
        if kind == IN_SYNC and len(raw) == 1:
            self.complete = True
            return b""
        if kind not in (RECENT, ANYWHERE):
            raise PeerFault(f"an answer of kind {kind} to a hello", reason="BadAnswer")
        self.gap = gap_between(self._view.heights, decode_vector(raw[1:]))
        if kind == RECENT:
            self._by_ranges = ranges.Asking(_tail(self._key, self._ordered, self._since))
            return self._sent(_head(RANGES, self._key, self._since) + self._by_ranges.begin())
        self._short = _shortened(self.code, self._ordered.items)
        self._by_symbols = sessions.Asking(self.code, self._short)
        return self._ask_symbols(self._by_symbols)

    def _go_on_by_ranges(self, asking: ranges.Asking, raw: bytes) -> bytes:
        message = asking.on_answer(raw)
        if message:
            return self._sent(_head(RANGES, self._key, self._since) + message)
        self.complete, self.here, self.there = True, asking.here, asking.there
        return b""

    def _go_on_by_symbols(self, asking: sessions.Asking, raw: bytes) -> bytes:
        try:
            items, at = read_varint(raw, 0)
        except ValueError as error:
            raise PeerFault(f"symbols: {error}", reason="BadAnswer") from error
        if items > ITEMS_MAX:
            raise PeerFault(f"symbols of {items} items; at most {ITEMS_MAX} can be", reason="BadAnswer")
        asking.on_answer(raw[at:], items)
        if not asking.complete:
            return self._ask_symbols(asking)
        self.complete, self.unnamed = True, asking.there
        self.here = {self._short[id_] for id_ in asking.here}
        return b""

    def _ask_symbols(self, asking: sessions.Asking) -> bytes:
        first, count = asking.window
        return self._sent(_head(SYMBOLS, self._key, self._since) + varint(first) + varint(count))

    def _sent(self, message: bytes) -> bytes:
        self.sent_bytes += len(message)
        return message


class Answering:
    """The other side."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._cached: Ordered | None = None
        self._key = b""

    def answer(self, raw: bytes) -> bytes:
        """Raises PeerFault (BadQuestion, and as the parts do) for what no honest side asks."""
        try:
            kind, key, since, at = _read_head(raw)
            ordered = self._ordered(key)
            if kind == HELLO:
                return self._greet(ordered, since, raw[at:])
            if kind == RANGES:
                return ranges.answer(_tail(key, ordered, since), raw[at:])
            first, at = read_varint(raw, at)
            count, at = read_varint(raw, at)
            if at != len(raw) or count > sessions.WINDOW_SYMBOLS_MAX or first + count > SYMBOLS_MAX:
                raise ValueError(f"{count} symbols from {first} on")
        except ValueError as error:
            raise PeerFault(f"reconciliation: {error}", reason="BadQuestion") from error
        short = _shortened(SymbolCode(key, ID_BYTES), ordered.items)
        return varint(len(short)) + sessions.answer(SymbolCode(key, ID_BYTES), short, first, count, len(short))

    def named(self, code: SymbolCode, ids: Iterable[int]) -> set[Item]:
        """Those of the ids that are items here."""
        short = _shortened(code, self._ordered(code.key).items)
        return {short[id_] for id_ in ids if id_ in short}

    def _greet(self, ordered: Ordered, since: int, raw: bytes) -> bytes:
        if len(raw) != DIGEST_BYTES + 2 * FINGERPRINT_BYTES:
            raise ValueError(f"a hello of {len(raw)} bytes")
        vector, whole, older = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:-FINGERPRINT_BYTES], raw[-FINGERPRINT_BYTES:]
        own = _digests(ordered, since)
        if (vector, whole) == (digest_of(self._view.heights), own[0]):
            return bytes([IN_SYNC])
        return bytes([RECENT if older == own[1] else ANYWHERE]) + encode_vector(self._view.heights)

    def _ordered(self, key: bytes) -> Ordered:
        if self._cached is None or self._key != key:
            self._cached, self._key = Ordered(key, self._view.items), key
        return self._cached


def _head(kind: int, key: bytes, since: int) -> bytes:
    return bytes([kind]) + key + varint(since)


def _read_head(raw: bytes) -> tuple[int, bytes, int, int]:
    since, at = read_varint(raw, 1 + KEY_BYTES)
    if raw[0] not in (HELLO, RANGES, SYMBOLS) or since >= END.time:
        raise ValueError(f"a question of kind {raw[0]} since {since}")
    return raw[0], raw[1 : 1 + KEY_BYTES], since, at


def _digests(ordered: Ordered, since: int) -> tuple[bytes, bytes]:
    """Of all items, and of those before `since`."""
    return ordered.fingerprint(0, len(ordered.items)), ordered.fingerprint(0, ordered.place(Item(since, b"")))


def _tail(key: bytes, ordered: Ordered, since: int) -> Ordered:
    return Ordered(key, ordered.items[ordered.place(Item(since, b"")) :])


def _shortened(code: SymbolCode, items: Iterable[Item]) -> dict[int, Item]:
    return {code.shorten(item.time.to_bytes(8, "big") + item.id): item for item in items}
