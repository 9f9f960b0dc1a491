"""What a summary takes of an application's event: what its kind's schema calls a key, and all numbers in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from offgrid_node.protocol.state.sessions.blocks import Entry
from offgrid_node.protocol.state.summaries.summary import Facts

DEPTH_MAX = 4
NUMBERS_MAX = 256  # of one event
ENERGY_DELTA = "energy_delta"

_read = msgspec.json.decode


def facts_of(entry: Entry, keys: Sequence[str]) -> Facts:
    """`keys`: properties of its kind. A number is named by its kind and its path, as energy.update/energy; those in
    lists are passed over."""
    _, kind, _, energy_delta, text = entry
    data = _read(text)
    numbers = [*islice(_numbers(kind, data, DEPTH_MAX), NUMBERS_MAX)]
    if energy_delta is not None:
        numbers.append((ENERGY_DELTA, energy_delta))
    found = [key for name in keys for key in _texts(data.get(name))]
    return Facts(kind, found, numbers, text.decode(errors="replace"))


def _numbers(path: str, data: dict[str, Any], depth: int) -> Iterator[tuple[str, float]]:
    for name, value in data.items():
        kind = type(value)
        if kind is int or kind is float:
            yield f"{path}/{name}", value
        elif kind is dict and depth > 1:
            yield from _numbers(f"{path}/{name}", value, depth - 1)


def _texts(value: object) -> Sequence[str]:
    if isinstance(value, str):
        return (value,)
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else ()
