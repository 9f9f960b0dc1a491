"""What the services hand to the memory machine: summaries made, and of sessions sealed."""

from __future__ import annotations

import msgspec

from offgrid.v1 import state_pb2


class Placed(msgspec.Struct, frozen=True):
    """A summary of events of a scope: of the journal, or of a session."""

    scope: str
    row: state_pb2.SummaryRow


class KeepWindow(msgspec.Struct, frozen=True):
    """What happened behind the journal's event `after`, up to `upto`: the journal's own summary, and one of each
    session that recorded something in between."""

    after: int
    upto: int
    summaries: tuple[Placed, ...]


class FoldSummaries(msgspec.Struct, frozen=True):
    """The one in place of those, which lie one behind the other. `first`: the numbers of their first events."""

    placed: Placed
    first: tuple[int, ...]


class DropSummaries(msgspec.Struct, frozen=True):
    """They are forgotten: rows by their keys."""

    keys: tuple[bytes, ...]
