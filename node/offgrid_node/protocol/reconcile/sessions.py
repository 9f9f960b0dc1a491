"""Two sides of one reconciliation by coded symbols: who asks for windows of them, and who answers from his set.

Whoever answers keeps nothing between two windows; he says with each how many items his set has, and whoever asks begins
anew, with another key, should the set have changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.reconcile.symbols import Decoder, Sketch, Symbol, SymbolCode, decode_symbols, encode_symbols

WINDOW_SYMBOLS_MAX = 1 << 15  # in one answer: half a megabyte, of ids of 8 bytes


class Asking:
    """The side that learns the difference; `ids` are its own."""

    def __init__(self, code: SymbolCode, ids: Iterable[int]) -> None:
        self._code, self._ids = code, frozenset(ids)
        self._decoder = Decoder(code)
        self._window = 0, min(self._decoder.next_count(), WINDOW_SYMBOLS_MAX)

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
        first, count = self._window
        theirs = decode_symbols(self._code, raw, first, count, items)
        self._decoder.feed(theirs, sketched(self._code, self._ids, first, count))
        foreign = self._decoder.here - self._ids
        if foreign:
            text = f"symbols took {len(foreign)} ids away that were never here"
            raise PeerFault(text, reason="BadSymbols")
        if not self.complete:
            self._window = self._decoder.fed, min(self._decoder.next_count(), WINDOW_SYMBOLS_MAX)


def answer(code: SymbolCode, ids: Iterable[int], first: int, count: int, items: int) -> bytes:
    """A window of symbols of a set of `items` ids, as it travels."""
    return encode_symbols(code, sketched(code, ids, first, count), first, items)


def sketched(code: SymbolCode, ids: Iterable[int], first: int, count: int) -> list[Symbol]:
    sketch = Sketch(code, first, count)
    sketch.add(ids)
    return sketch.symbols()
