"""Two sides of one reconciliation by coded symbols: who learns the difference, and who shows his set.

Over calls whoever asks says which window he wants next, and whoever answers keeps nothing between two windows. On a
road that carries a stream, or to many at once, `Showing` goes on and on until whoever listens has enough. With the
symbols it is said how many items the set has; whoever listens begins anew, with another key, should it have changed
meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.reconcile.symbols import (
    FIRST_SYMBOLS,
    SYMBOLS_MAX,
    Decoder,
    Sketch,
    Symbol,
    SymbolCode,
    decode_symbols,
    encode_symbols,
)

WINDOW_SYMBOLS_MAX = 1 << 15  # in one answer: half a megabyte, of ids of 8 bytes
AHEAD_SYMBOLS = 64  # worked out at once, and as many again as there are


class Asking:
    """The side that learns the difference; `ids` are its own."""

    def __init__(
        self,
        code: SymbolCode,
        ids: Iterable[int],
        first_symbols: int = FIRST_SYMBOLS,
        window_max: int = WINDOW_SYMBOLS_MAX,
    ) -> None:
        """`first_symbols` come with the first answer, at most `window_max` with one."""
        self._code, self._ids, self._window_max = code, frozenset(ids), window_max
        self._decoder = Decoder(code)
        self._own = Showing(code, self._ids)
        self._window = 0, first_symbols

    @property
    def complete(self) -> bool:
        return self._decoder.complete

    @property
    def window(self) -> tuple[int, int]:
        """The first symbol to ask for, and how many."""
        return self._window

    @property
    def differences(self) -> float:
        """About how many there are, as far as the answers tell."""
        return self._decoder.differences

    @property
    def here(self) -> set[int]:
        """Ids that only this side has."""
        return self._decoder.here

    @property
    def there(self) -> set[int]:
        """Ids that only the other side has, as it says."""
        return self._decoder.there

    def on_answer(self, raw: bytes, items: int) -> None:
        """The window's symbols, of a set of `items`. Raises PeerFault (BadSymbols, NoEnd)."""
        _, count = self._window
        self._feed(decode_symbols(self._code, raw, count), items)
        if not self.complete:
            self._window = self._decoder.fed, min(self._decoder.next_count(), self._window_max)

    def on_shown(self, raw: bytes, items: int) -> None:
        """The next symbols of a stream. Raises PeerFault (BadSymbols, NoEnd)."""
        self._feed(decode_symbols(self._code, raw, len(raw) // self._code.symbol_bytes), items)
        if not self.complete:
            self._decoder.next_count()

    def _feed(self, theirs: list[Symbol], items: int) -> None:
        self._decoder.surplus = items - len(self._ids)
        self._decoder.feed(theirs, self._own.symbols(len(theirs)))
        foreign = self._decoder.here - self._ids
        if foreign:
            text = f"symbols took {len(foreign)} ids away that were never here"
            raise PeerFault(text, reason="BadSymbols")


class Showing:
    """A set's symbols, one after the other from the first one on."""

    def __init__(self, code: SymbolCode, ids: Iterable[int]) -> None:
        self._code, self._ids = code, frozenset(ids)
        self._made: list[Symbol] = []
        self._shown = 0

    @property
    def items(self) -> int:
        return len(self._ids)

    def take(self, count: int) -> bytes:
        """The next `count` of them as they travel; b"" once there are no more to be had (SYMBOLS_MAX)."""
        return encode_symbols(self._code, self.symbols(min(count, SYMBOLS_MAX - self._shown)))

    def symbols(self, count: int) -> list[Symbol]:
        end = self._shown + count
        if end > len(self._made):
            more = max(end - len(self._made), len(self._made), AHEAD_SYMBOLS)  # each time all ids are gone through
            self._made += sketched(self._code, self._ids, len(self._made), more)
        taken = self._made[self._shown : end]
        self._shown = end
        return taken


def answer(code: SymbolCode, ids: Iterable[int], first: int, count: int) -> bytes:
    """A window of a set's symbols as it travels."""
    return encode_symbols(code, sketched(code, ids, first, count))


def sketched(code: SymbolCode, ids: Iterable[int], first: int, count: int) -> list[Symbol]:
    sketch = Sketch(code, first, count)
    sketch.add(ids)
    return sketch.symbols()
