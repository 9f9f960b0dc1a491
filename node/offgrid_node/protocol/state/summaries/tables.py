"""The rows of what is remembered."""

from __future__ import annotations

from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.state.tables import NUMBER_BYTES, number_key, number_of

SUMMARIES = "summaries"  # JOURNAL or a session's id + number of its first event (8 bytes, big-endian) → SummaryRow
MEMORY = "memory"  # one row, see below
UPTO_KEY = b"upto"  # → number of the journal (8 bytes, big-endian): of events up to it there are summaries
JOURNAL = "journal"  # the scope of the node's own events; that of an application's is its session


def summarised_upto(rows: Rows) -> int:
    """Up to which event of the journal all that happened, and all that sessions recorded by then, is in summaries."""
    row = rows.get(MEMORY, UPTO_KEY)
    return number_of(row) if row is not None else 0


def summary_key(scope: str, first: int) -> bytes:
    return scope.encode() + number_key(first)


def scope_of(key: bytes) -> str:
    return key[:-NUMBER_BYTES].decode()


def bound_as(first: int, last: int) -> str:
    """What a session's summary is bound to be, beside its session."""
    return f"summary {first} {last}"
