"""What is under way between two nodes, and what a reset makes of it: whoever waits for an answer learns at once that
none comes, and nobody knows which of the requests had arrived."""

from __future__ import annotations

import itertools
from collections.abc import Callable

Break = Callable[[bool], None]  # told whether the request may still arrive


class Connections:
    """Open calls by the two nodes between which they are, whoever has made them."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._open: dict[frozenset[str], dict[int, Break]] = {}

    def open(self, source: str, target: str, on_broken: Break) -> Callable[[], None]:
        """A call begins; what is returned says that it has ended."""
        pair, number = frozenset((source, target)), next(self._numbers)
        self._open.setdefault(pair, {})[number] = on_broken
        return lambda: self._end(pair, number)

    def _end(self, pair: frozenset[str], number: int) -> None:
        calls = self._open.get(pair)
        if calls is not None and calls.pop(number, None) is not None and not calls:
            del self._open[pair]

    def reset(self, one: str, other: str, may_arrive: Callable[[], bool]) -> int:
        """Breaks all calls between them; `may_arrive` is asked of each. How many there were."""
        calls = self._open.pop(frozenset((one, other)), {})
        for on_broken in calls.values():
            on_broken(may_arrive())
        return len(calls)
