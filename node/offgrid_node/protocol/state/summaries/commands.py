"""What the services hand to the memory machine: summaries made, and of sessions sealed."""

from __future__ import annotations

from dataclasses import dataclass

from offgrid.v1 import state_pb2


@dataclass(frozen=True, slots=True)
class Placed:
    """A summary of events of a scope: of the journal, or of a session."""

    scope: str
    row: state_pb2.SummaryRow


@dataclass(frozen=True, slots=True)
class KeepWindow:
    """What happened behind the journal's event `after`, up to `upto`: the journal's own summary, and one of each
    session that recorded something in between."""

    after: int
    upto: int
    summaries: tuple[Placed, ...]


@dataclass(frozen=True, slots=True)
class FoldSummaries:
    """The one in place of those, which lie one behind the other. `first`: the numbers of their first events."""

    placed: Placed
    first: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DropSummaries:
    """They are forgotten: rows by their keys."""

    keys: tuple[bytes, ...]
