"""A few events of a window as they were, each as likely as any other: of random priorities the smallest stay.

An event's priority is a hash over its window and its number, so whoever works it out comes to the same; the sample of
two windows together is the smallest of both samples, however they are put together (bottom-k, Cohen and Kaplan 2007).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from heapq import heapify, heappushpop
from typing import NamedTuple

SAMPLE_MAX = 32
TEXT_BYTES_MAX = 256  # of one event; a longer one is left out, and only said to have been there
_PERSON = b"og.memory.smpl"


class Sampled(NamedTuple):
    """`text`: what it is about, in the journal; in a session its data, as JSON. Empty where it is too long."""

    priority: int
    number: int
    timestamp_us: int
    type: str
    text: str


class Reservoir:
    """Takes a window's events one by one. `seed`: the window's own, and its session's."""

    def __init__(self, seed: str) -> None:
        self._hash = hashlib.blake2b(seed.encode(), digest_size=8, person=_PERSON)
        self._kept: list[tuple[int, Sampled]] = []  # a heap, the largest priority first

    def offer(self, number: int, timestamp_us: int, type_name: str, text: str) -> None:
        hashed = self._hash.copy()
        hashed.update(number.to_bytes(8, "big"))
        priority = int.from_bytes(hashed.digest(), "big") >> 1  # 63 bits: signed wherever it goes
        full = len(self._kept) == SAMPLE_MAX
        if full and -priority < self._kept[0][0]:
            return
        shown = text if len(text.encode(errors="replace")) <= TEXT_BYTES_MAX else ""
        entry = (-priority, Sampled(priority, number, timestamp_us, type_name, shown))
        if full:
            heappushpop(self._kept, entry)
            return
        self._kept.append(entry)
        if len(self._kept) == SAMPLE_MAX:
            heapify(self._kept)

    def sample(self) -> list[Sampled]:
        return smallest(each for _, each in self._kept)


def smallest(events: Iterable[Sampled]) -> list[Sampled]:
    return sorted({*events})[:SAMPLE_MAX]
