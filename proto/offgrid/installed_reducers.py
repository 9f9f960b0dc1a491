"""The reducers that sessions are folded by: the built-in one, and those that packages on this machine register."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from offgrid.reducers import Reducer, SessionReducer

GROUP = "offgrid.reducers"
NAMES = ("name", "version", "initial", "apply")
NAME_CHARS_MAX = 64


def load_reducers(points: Iterable[EntryPoint] | None = None) -> tuple[dict[str, Reducer], list[str]]:
    """By name, and a sentence for each that cannot be used. `points`: those that are installed, unless given."""
    found: dict[str, Reducer] = {SessionReducer.name: SessionReducer()}
    problems = []
    for point in sorted(entry_points(group=GROUP) if points is None else points, key=lambda each: each.name):
        try:
            reducer = _reducer(point.load())
        except Exception as error:  # noqa: BLE001 - whatever a stranger's package does, the node starts
            problems.append(f"the reducer {point.name} ({point.value}) is left out: {error!r}")
            continue
        if reducer.name in found:
            problems.append(f"the reducer {point.name} ({point.value}) is left out: there is a {reducer.name} already")
            continue
        found[reducer.name] = reducer
    return found, problems


def _reducer(loaded: Any) -> Reducer:
    made = loaded() if isinstance(loaded, type) else loaded
    lacking = [name for name in NAMES if not hasattr(made, name)]
    if lacking:
        raise TypeError(f"it has no {', '.join(lacking)}")
    name, version = made.name, made.version
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise ValueError(f"its name is {name!r}; 1 to {NAME_CHARS_MAX} printable characters are allowed")
    if type(version) is not int or not 0 < version < 1 << 32:
        raise ValueError(f"its version is {version!r}; a number from 1 on is allowed")
    reducer: Reducer = made
    return reducer
