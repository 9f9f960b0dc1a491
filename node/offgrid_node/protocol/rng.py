"""Chance as the machines see it: handed in, never looked up. `random.Random` is one; the daemon's is the system's."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Rng(Protocol):
    """What the machines ask of it; all of it is deterministic under a seeded Random."""

    def random(self) -> float: ...

    def randbytes(self, n: int) -> bytes: ...

    def randrange(self, start: int, stop: int) -> int: ...

    def choice(self, seq: Sequence[T]) -> T: ...

    def sample(self, population: Sequence[T], k: int) -> list[T]: ...

    def shuffle(self, x: MutableSequence[Any]) -> None: ...
