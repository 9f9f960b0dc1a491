"""An input read as choices: what is done, to what, and how. A short input is one whose last choices are all 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Script:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def below(self, count: int) -> int:
        """A number from 0 to `count` - 1, of 65,536 at most."""
        return (self.byte() if count <= 256 else self.byte() << 8 | self.byte()) % count

    def pick(self, among: Sequence[T]) -> T:
        return among[self.below(len(among))]

    def take(self) -> bytes:
        """A few bytes behind their length."""
        return self.cut(self.byte())

    def cut(self, length: int) -> bytes:
        """As many bytes, or what is left."""
        self._at, begin = self._at + length, self._at
        return self._data[begin : self._at]

    def rest(self) -> bytes:
        return self.cut(len(self._data))

    def pieces(self) -> list[bytes]:
        """What is left, cut as a line or a stream may be; each piece behind its length, of 63 at most."""
        found = []
        while not self.ended:
            found.append(self.cut(self.byte() % 64))
        return found

    def damaged(self, whole: bytes) -> bytes:
        """These bytes with one thing wrong: a byte, an end, or something in between."""
        at = self.below(len(whole)) if whole else 0
        match self.below(4):
            case 0:
                return whole[:at] + bytes(((whole[at] if whole else 0) ^ (self.byte() or 1),)) + whole[at + 1 :]
            case 1:
                return whole[:at]
            case 2:
                return whole + (self.take() or b"\0")
            case _:
                return whole[:at] + (self.take() or b"\0") + whole[at:]
