"""Counters and histograms, as Prometheus and OpenMetrics define them: they only ever grow, from zero at each start.

Labels may come from what peers say, so the number of series is bounded: beyond it all further ones are one, "other".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import msgspec

SERIES_MAX = 512  # of one instrument; as many as methods times kinds of callers, and room to grow
OTHER = "other"  # every label of the series that takes what is beyond SERIES_MAX
LABEL_CHARS_MAX = 64

Labels = tuple[str, ...]


class _Series:
    """The name, the words for people and the label names that every instrument has."""

    def __init__(self, name: str, about: str, labels: Sequence[str] = (), *, series_max: int = SERIES_MAX) -> None:
        self.name, self.about, self.labels = name, about, tuple(labels)
        self._series_max = series_max

    def _fit(self, labels: Labels, known: int) -> Labels:
        """The series that these labels count in, when they are not known yet and `known` others are."""
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(labels)} of them")
        if known >= self._series_max:
            return (OTHER,) * len(labels)
        return tuple(label[:LABEL_CHARS_MAX] for label in labels)


class Counter(_Series):
    """How often something happened, by labels."""

    def __init__(self, name: str, about: str, labels: Sequence[str] = (), *, series_max: int = SERIES_MAX) -> None:
        super().__init__(name, about, labels, series_max=series_max)
        self._counts: dict[Labels, int] = {} if labels else {(): 0}

    def add(self, *labels: str, count: int = 1) -> None:
        """Counts one more; `count=0` only makes the series known, so that it is there before anything happened."""
        if labels not in self._counts:
            labels = self._fit(labels, len(self._counts))
        self._counts[labels] = self._counts.get(labels, 0) + count

    def samples(self) -> Iterator[tuple[Labels, int]]:
        return iter(self._counts.items())


class Distribution(msgspec.Struct):
    """What a histogram holds for one series: how many fell into each bucket (not cumulated), and their sum.

    `counts` has one more entry than there are bounds: what was above all of them."""

    counts: list[int]
    total: float = 0.0


class Histogram(_Series):
    """How values are spread over fixed buckets; a value belongs to the first bucket whose bound is not below it."""

    def __init__(
        self,
        name: str,
        about: str,
        bounds: Sequence[float],
        labels: Sequence[str] = (),
        *,
        series_max: int = SERIES_MAX,
    ) -> None:
        super().__init__(name, about, labels, series_max=series_max)
        self.bounds = tuple(sorted(bounds))
        self._spread: dict[Labels, Distribution] = {} if labels else {(): self._empty()}

    def _empty(self) -> Distribution:
        return Distribution([0] * (len(self.bounds) + 1))

    def add(self, value: float, *labels: str) -> None:
        spread = self._spread.get(labels)
        if spread is None:
            spread = self._spread.setdefault(self._fit(labels, len(self._spread)), self._empty())
        spread.counts[bisect_left(self.bounds, value)] += 1
        spread.total += value

    def samples(self) -> Iterator[tuple[Labels, Distribution]]:
        return iter(self._spread.items())


__all__ = ["LABEL_CHARS_MAX", "OTHER", "SERIES_MAX", "Counter", "Distribution", "Histogram", "Labels"]
