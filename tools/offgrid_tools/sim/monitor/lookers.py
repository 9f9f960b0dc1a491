"""Who looks at what: all rules' tables as one, by the kind of a message, an event's name or a row's table. Several
rules may look at the same; they do so in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

from google.protobuf.message import Message

from offgrid_tools.sim.monitor.rules import Journaled, Passed, Rules, Written

Kind = TypeVar("Kind")
Seen = ParamSpec("Seen")


class Lookers:
    """Of these rules."""

    def __init__(self, rules: Iterable[Rules]) -> None:
        self.requests: dict[type[Message], Passed] = {}
        self.replies: dict[type[Message], Passed] = {}
        self.lies: dict[type[Message], Passed] = {}
        self.events: dict[str, Journaled] = {}
        self.rows: dict[str, Written] = {}
        for each in rules:
            _join(self.requests, each.requests())
            _join(self.replies, each.replies())
            _join(self.lies, each.lies())
            _join(self.events, each.events())
            _join(self.rows, each.rows())


def _join(lookers: dict[Kind, Callable[Seen, None]], more: Mapping[Kind, Callable[Seen, None]]) -> None:
    for kind, look in more.items():
        first = lookers.get(kind)
        lookers[kind] = look if first is None else _both(first, look)


def _both(first: Callable[Seen, None], second: Callable[Seen, None]) -> Callable[Seen, None]:
    def look(*args: Seen.args, **kwargs: Seen.kwargs) -> None:
        first(*args, **kwargs)
        second(*args, **kwargs)

    return look
