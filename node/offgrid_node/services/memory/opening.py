"""A summary out of its row: decoded, and of a session opened before."""

from __future__ import annotations

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.state.summaries.summary import Summary, decode
from offgrid_node.protocol.state.summaries.tables import JOURNAL, bound_as
from offgrid_node.services.sessions.vault import Vault


def opened(vault: Vault, scope: str, row: state_pb2.SummaryRow) -> Summary:
    """Raises Corrupt, naming it; FailedPrecondition (SessionKeyless)."""
    try:
        body = row.body if scope == JOURNAL else vault.open(scope, bound_as(row.first, row.last), row.body)
        return decode(body)
    except Corrupt as fault:
        text = f"the summary of {scope}, events {row.first} to {row.last}: {fault.message}"
        metadata = {"scope": scope, "first": str(row.first)}
        raise Corrupt(text, reason="SummaryDamaged", metadata=metadata) from fault
