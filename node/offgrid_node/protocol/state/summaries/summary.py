"""A summary: what is left of a window's events when they are gone, and of several windows together.

MessagePack of an array, dicts in the order of their keys: the same events give the same bytes, wherever and whenever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce

import msgspec

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.state.summaries import figures, hitters, keyset
from offgrid_node.protocol.state.summaries.figures import Figure, Figures
from offgrid_node.protocol.state.summaries.hitters import Hitters, hitters_of
from offgrid_node.protocol.state.summaries.sample import Reservoir, Sampled, smallest


class Summary(msgspec.Struct, array_like=True, frozen=True):
    """`oldest_us` and `newest_us` are of events, by their own word; `types` counts them."""

    count: int
    oldest_us: int
    newest_us: int
    types: dict[str, int]
    figures: dict[str, Figure]
    keys: bytes
    hitters: Hitters
    sample: list[Sampled]

    def bounds(self, key: str) -> tuple[int, int]:
        """How many of its events have that key: at least and at most."""
        if not keyset.may_have(self.keys, keyset.place_of(key)):
            return 0, 0
        least, most = self.hitters.bounds(keyset.counted(key))
        return least, min(most, self.count)


class Facts(msgspec.Struct, frozen=True):
    """What a summary takes of one event. `text`: what it is about."""

    type: str
    keys: Sequence[str]
    numbers: Sequence[tuple[str, float]]
    text: str


class Gathering:
    """Takes a window's events one by one. `seed`: see sample.py."""

    def __init__(self, seed: str) -> None:
        self._types, self._keys = Counter[str](), Counter[str]()
        self._figures, self._reservoir = Figures(), Reservoir(seed)
        self.count, self._oldest_us, self._newest_us = 0, 0, 0

    def add(self, number: int, timestamp_us: int, facts: Facts) -> None:
        self._oldest_us = min(self._oldest_us, timestamp_us) if self.count else timestamp_us
        self._newest_us = max(self._newest_us, timestamp_us) if self.count else timestamp_us
        self.count += 1
        self._types[facts.type] += 1
        for key in {*facts.keys}:
            if key:
                self._keys[keyset.counted(key)] += 1
        for name, value in facts.numbers:
            self._figures.add(name, value)
        self._reservoir.offer(number, timestamp_us, facts.type, facts.text)

    @property
    def keys(self) -> int:
        return len(self._keys)

    def summary(self) -> Summary:
        return Summary(
            self.count,
            self._oldest_us,
            self._newest_us,
            dict(self._types),
            self._figures.figures(),
            keyset.encode(map(keyset.place_of, self._keys)),
            hitters_of(self._keys),
            self._reservoir.sample(),
        )


def join(several: Sequence[Summary]) -> Summary:
    """Of at least one, none of which has an event of another's."""
    types = Counter[str]()
    for each in several:
        types.update(each.types)
    return Summary(
        sum(each.count for each in several),
        min(each.oldest_us for each in several),
        max(each.newest_us for each in several),
        dict(types),
        figures.join(each.figures for each in several),
        keyset.union([each.keys for each in several]),
        reduce(hitters.join, (each.hitters for each in several)),
        smallest(sampled for each in several for sampled in each.sample),
    )


def keys_of(several: Iterable[Summary]) -> int:
    """So many places their union has at most."""
    return sum(keyset.count(each.keys) for each in several)


encode = msgspec.msgpack.Encoder(order="sorted").encode
_decode = msgspec.msgpack.Decoder(Summary).decode


def decode(encoded: bytes) -> Summary:
    """Raises Corrupt."""
    try:
        return _decode(encoded)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Corrupt(f"a summary cannot be read: {error}", reason="SummaryDamaged") from error
