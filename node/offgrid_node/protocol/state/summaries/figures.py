"""Numbers that events carry: how many, smallest, largest and sum, by the name of the field.

Of very many names the first in the order of letters are kept. A name that falls out somewhere has as many before it in
any union, so what is kept is counted in full, in whatever order summaries are joined; sums alone are rounded, as floats
are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

FIGURES_MAX = 64
NAME_CHARS_MAX = 128
NUMBER_MAX = 1e290  # either way: the sum of as many as there can be stays finite


class Figure(NamedTuple):
    number: int
    least: float
    most: float
    sum: float

    @property
    def mean(self) -> float:
        return self.sum / self.number


class Figures:
    """Takes numbers one by one."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Any]] = {}  # how many, least, most, sum

    def add(self, name: str, number: float) -> None:
        """What is no finite number, or beyond NUMBER_MAX, or has too long a name, is passed over."""
        if not -NUMBER_MAX <= number <= NUMBER_MAX or len(name) > NAME_CHARS_MAX:
            return
        value, kept = float(number), self._kept.get(name)
        if kept is None:
            self._kept[name] = [1, value, value, value]
            if len(self._kept) > 2 * FIGURES_MAX:
                self._kept = {each: self._kept[each] for each in sorted(self._kept)[:FIGURES_MAX]}
            return
        kept[0] += 1
        if value < kept[1]:
            kept[1] = value
        if value > kept[2]:
            kept[2] = value
        kept[3] += value

    def figures(self) -> dict[str, Figure]:
        return {name: Figure(*self._kept[name]) for name in sorted(self._kept)[:FIGURES_MAX]}


def join(several: Iterable[Mapping[str, Figure]]) -> dict[str, Figure]:
    found: dict[str, list[Figure]] = {}
    for figures in several:
        for name, figure in figures.items():
            found.setdefault(name, []).append(figure)
    return {name: _joined(found[name]) for name in sorted(found)[:FIGURES_MAX]}


def _joined(parts: list[Figure]) -> Figure:
    return Figure(
        sum(each.number for each in parts),
        min(each.least for each in parts),
        max(each.most for each in parts),
        math.fsum(each.sum for each in parts),
    )
