"""A mapping that stays what it is; unlike `MappingProxyType` it can be hashed, copied and pickled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

_V = TypeVar("_V")


class FrozenMap(Mapping[str, _V]):
    """Equal to any mapping with the same items."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, _V]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> _V:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)
