"""Which keys came most often: the counters of Misra and Gries (1982), joined as Agarwal et al. have it ("Mergeable
summaries", 2012).

A key's count here is never above the true one, and below it by `error` at most; so one that has no counter came `error`
times at most. With n occurrences counted in all, `error` is n / (HITTERS_MAX + 1) at most, however often summaries were
joined. Joining does not hang on which of two comes first; of three it may, within the bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

HITTERS_MAX = 32


class Hitters(NamedTuple):
    counts: dict[str, int]
    error: int

    def bounds(self, key: str) -> tuple[int, int]:
        """How often it came: at least and at most."""
        least = self.counts.get(key, 0)
        return least, least + self.error


def hitters_of(counts: Mapping[str, int]) -> Hitters:
    """Of what was counted in full."""
    return _pruned(counts, 0)


def join(one: Hitters, other: Hitters) -> Hitters:
    return _pruned(Counter(one.counts) + Counter(other.counts), one.error + other.error)


def _pruned(counts: Mapping[str, int], error: int) -> Hitters:
    if len(counts) <= HITTERS_MAX:
        return Hitters(dict(counts), error)
    less = sorted(counts.values(), reverse=True)[HITTERS_MAX]
    return Hitters({key: count - less for key, count in counts.items() if count > less}, error + less)
