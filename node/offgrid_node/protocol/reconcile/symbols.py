"""Rateless set reconciliation: a set as an endless row of coded symbols, of which the other needs as many as differ.

After Yang, Gilad and Alizadeh, "Practical Rateless Set Reconciliation" (SIGCOMM 2024). An id stands in symbol 0, and in
symbol i with probability 1 / (1 + i/2); which they are follows from the id and a key. What two sets share cancels when
their symbols are subtracted; a symbol in which one id is left gives that away, and with it all its other symbols. Some
1.35 symbols for each difference suffice, however large the sets are.

A symbol is a plain sum here, not an exclusive or: of (id, check) modulo 2^(8·(id_bytes + 4)), and of ones, which count,
modulo 256: to tell one id from several, and which side has it, more is not needed. So an id that is there twice does
not vanish, and one addition of a long number serves all three.

What can go wrong, with the key drawn at random by whoever decodes, once the other's set stands: a symbol of several ids
passes for one of a single id with probability 2^-32 a look (the check's width; a few looks a symbol), which ends in
SYMBOLS_MAX reached, not in a wrong answer: `complete` needs symbol 0, over every id of both sets, to be all zero (2^-96
for ids of 8 bytes). Two ids of one set that are equal once shortened (2^-64 a pair) hide each other: see `shorten`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from math import ceil, sqrt

import msgspec

from offgrid_node.protocol.errors import PeerFault

KEY_BYTES = 16
CHECK_BYTES = 4
ID_BYTES_MIN, ID_BYTES_MAX = 8, 32
SYMBOLS_MAX = 1 << 18  # that one session asks for: some 190,000 differences, in 4 MB and tens of MB of memory
FIRST_SYMBOLS = 32  # with the first answer: enough for some 20 differences
SYMBOLS_PER_DIFFERENCE = 1.35
STEP_LEAST, STEP_MOST = 0.1, 4.0  # what is asked for next, by what has come so far
ITEMS_MAX = 1 << 31  # in one set
TRACE_KIND, SHORT_KIND = b"og.symbol.v1", b"og.shortid.v1"

_SEED_BYTES, _COUNT_BITS = 8, 32
_COUNTS = 256  # a symbol's count is one byte
_STEP, _MASK = 0xDA942042E4DD58B5, (1 << 64) - 1
_COUNT_MASK, _COUNT_HALF = (1 << _COUNT_BITS) - 1, 1 << (_COUNT_BITS - 1)


class Symbol(msgspec.Struct, frozen=True):
    """`total` is the sum of ids with their checks, `count` that of ones, modulo 256."""

    total: int
    count: int


class SymbolCode(msgspec.Struct, frozen=True):
    """How ids become symbols: `id_bytes` wide, under a session's `key`."""

    key: bytes
    id_bytes: int

    @property
    def word_bytes(self) -> int:
        return self.id_bytes + CHECK_BYTES

    @property
    def symbol_bytes(self) -> int:
        """Of one as it travels."""
        return self.word_bytes + 1

    def shorten(self, item: bytes) -> int:
        """An item of any length as an id of this code. What is made of the same items under another key collides
        elsewhere."""
        return int.from_bytes(
            hashlib.blake2b(item, digest_size=self.id_bytes, key=self.key, person=SHORT_KIND).digest(), "big"
        )

    def trace(self, id_: int) -> tuple[int, int]:
        """Where its row of symbols begins, an odd number, and its check."""
        raw = id_.to_bytes(self.id_bytes, "big")
        drawn = hashlib.blake2b(raw, digest_size=_SEED_BYTES + CHECK_BYTES, key=self.key, person=TRACE_KIND).digest()
        return int.from_bytes(drawn[:_SEED_BYTES], "big") | 1, int.from_bytes(drawn[_SEED_BYTES:], "big")


def following(index: int, state: int) -> tuple[int, int]:
    """The next symbol after `index` in which an id stands; correctly rounded floats give the same everywhere."""
    state = state * _STEP & _MASK
    return index + ceil((index + 1.5) * (4294967296.0 / sqrt(state + 1.0) - 1.0)), state


class Sketch:
    """The symbols `first` to `first + count` of a set, kept while ids come and go."""

    def __init__(self, code: SymbolCode, first: int, count: int) -> None:
        self._code, self._first = code, first
        self._cells = [0] * count  # the sum of ids with checks above, that of ones in the lowest bits

    def add(self, ids: Iterable[int], sign: int = 1) -> None:
        """Some 10 µs an id; whoever has many hands them over in parts. `sign` -1 takes them out again."""
        cells, first, end, trace = self._cells, self._first, self._first + len(self._cells), self._code.trace
        for id_ in ids:
            state, check = trace(id_)
            word, index = sign * ((((id_ << 32) | check) << _COUNT_BITS) + 1), 0
            while index < end:
                if index >= first:
                    cells[index - first] += word
                state = state * _STEP & _MASK  # `following`, without the call
                index += ceil((index + 1.5) * (4294967296.0 / sqrt(state + 1.0) - 1.0))

    def symbols(self) -> list[Symbol]:
        modulus = 1 << 8 * self._code.word_bytes
        counts = [((cell + _COUNT_HALF) & _COUNT_MASK) - _COUNT_HALF for cell in self._cells]
        return [
            Symbol((cell - count >> _COUNT_BITS) % modulus, count % _COUNTS)
            for cell, count in zip(self._cells, counts, strict=True)
        ]


class Decoder:
    """Takes the difference of two sets out of both their symbols, fed in order from symbol 0.

    `there` are ids that only the other has, `here` those that only this side has; so it says. Whoever uses them checks
    that `here` are his own. Work and memory follow the symbols fed: each gives away one id at most, and an id stands in
    some 2·ln(n) of n symbols.
    """

    def __init__(self, code: SymbolCode) -> None:
        self._code = code
        self._modulus = 1 << 8 * code.word_bytes
        self._totals: list[int] = []
        self._counts: list[int] = []  # modulo 256
        self.surplus = 0  # by how many items the other's set is larger, as it says; the estimate alone rests on it
        self._coming: list[tuple[int, int, int, int]] = []  # next symbol, state, word, sign of each id found
        self.there: set[int] = set()
        self.here: set[int] = set()

    @property
    def fed(self) -> int:
        return len(self._totals)

    @property
    def complete(self) -> bool:
        """Symbol 0 sums every id: nothing is left when nothing is left there."""
        return bool(self._totals) and not self._totals[0] and not self._counts[0]

    def feed(self, theirs: Sequence[Symbol], ours: Sequence[Symbol]) -> None:
        for other, own in zip(theirs, ours, strict=True):
            if self.complete:
                return
            self._feed((other.total - own.total) % self._modulus, (other.count - own.count) % _COUNTS)

    def _feed(self, total: int, count: int) -> None:
        index = self.fed
        while self._coming and self._coming[0][0] == index:
            _, state, word, sign = heappop(self._coming)
            total, count = (total - sign * word) % self._modulus, (count - sign) % _COUNTS
            following_index, state = following(index, state)
            heappush(self._coming, (following_index, state, word, sign))
        self._totals.append(total)
        self._counts.append(count)
        self._peel([index])

    def _peel(self, looks: list[int]) -> None:
        """Every symbol that one id is left in, until there is none."""
        while looks:
            index = looks.pop()
            sign = {1: 1, _COUNTS - 1: -1}.get(self._counts[index], 0)
            if not sign:
                continue
            word = self._totals[index] * sign % self._modulus
            id_ = word >> 8 * CHECK_BYTES
            state, check = self._code.trace(id_)
            if check != word & 0xFFFFFFFF or id_ in self.there or id_ in self.here:
                continue  # several ids, or what a liar made: no id is found twice, so this ends
            (self.there if sign > 0 else self.here).add(id_)
            looks += self._take_out(state, word, sign)

    def _take_out(self, state: int, word: int, sign: int) -> Iterator[int]:
        """Out of all symbols that were fed, and out of those to come."""
        index, touched = 0, []
        while index < self.fed:
            self._totals[index] = (self._totals[index] - sign * word) % self._modulus
            self._counts[index] = (self._counts[index] - sign) % _COUNTS
            touched.append(index)
            index, state = following(index, state)
        heappush(self._coming, (index, state, word, sign))
        return iter(touched)

    def next_count(self) -> int:
        """How many symbols to ask for next: as many as the counts so far let one expect, within bounds, so that few
        round trips are needed and few symbols are asked for in vain. Raises PeerFault (reason NoEnd) when so many have
        come that what the other sends can hardly be the symbols of a set."""
        fed = self.fed
        if fed >= SYMBOLS_MAX:
            text = f"{fed} symbols told {len(self.there) + len(self.here)} differences, and there are more"
            raise PeerFault(text, reason="NoEnd")
        if not fed:
            return FIRST_SYMBOLS
        wanted = ceil(SYMBOLS_PER_DIFFERENCE * self.differences) - fed
        return min(max(wanted, ceil(fed * STEP_LEAST)), ceil(fed * STEP_MOST), SYMBOLS_MAX - fed)

    @property
    def differences(self) -> float:
        """About how many there are, once some symbols were fed."""
        return self._left() + len(self.there) + len(self.here)

    def _left(self) -> float:
        """About how many ids the symbols still hold: of d ids the count of symbol i strays by d·p·(1 - p) in the
        square, p = 1 / (1 + i/2), from what the surplus lets one expect. Of many thousand it strays by more than a byte
        can tell; then the first symbols let one expect too few, and those to come more."""
        whole = self.surplus - len(self.there) + len(self.here)
        if self.complete:
            return 0
        strays = (
            ((count - 2 * whole // (2 + i) + _COUNTS // 2) % _COUNTS - _COUNTS // 2) ** 2 * (2 + i) ** 2 / (2 * i)
            for i, count in enumerate(self._counts)
            if i
        )
        return max(sum(strays) / max(1, self.fed - 1), abs(whole))


# ---- as they travel


def encode_symbols(code: SymbolCode, symbols: Sequence[Symbol]) -> bytes:
    """Each as its total and, in one byte, its count."""
    return b"".join(symbol.total.to_bytes(code.word_bytes, "big") + bytes([symbol.count]) for symbol in symbols)


def decode_symbols(code: SymbolCode, raw: bytes, count: int) -> list[Symbol]:
    """Exactly `count` of them. Raises PeerFault (reason BadSymbols)."""
    size = code.symbol_bytes
    if len(raw) != count * size:
        raise PeerFault(f"{len(raw)} bytes of symbols; {count} of them take {count * size}", reason="BadSymbols")
    return [
        Symbol(int.from_bytes(raw[at : at + size - 1], "big"), raw[at + size - 1]) for at in range(0, len(raw), size)
    ]
