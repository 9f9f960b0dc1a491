"""What people are told when too few witnesses are in reach: who is missing, since when, and what is at risk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offgrid_tools.cli.amounts import credits_of, weight_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from offgrid.v1.ledger_pb2 import GetLedgerStatusResponse, Witness


def cut_off(status: GetLedgerStatusResponse) -> Iterator[tuple[str, object]]:
    """Facts; none while a quorum is in reach."""
    if not status.open or status.reach_milli >= status.quorum_milli:
        return
    away, count = [witness for witness in status.witnesses if witness.away_ms], len(status.witnesses)
    yield "cut off", f"{len(away)} of {count} witnesses are out of reach: {_since(away)}"
    weights = f"{weight_of(status.reach_milli)} of the {weight_of(status.quorum_milli)} that it takes"
    yield "", f"those in reach weigh {weights}: nothing becomes final until {_who_helps(status, away)}"


def at_risk(status: GetLedgerStatusResponse) -> Iterator[tuple[str, object]]:
    """Facts: what this node has signed, or was signed to it, and is not final."""
    going, coming, accepted = status.pending_out_micro, status.pending_in_micro, status.accepted_in_micro
    if going or coming:
        yield "at risk", f"{credits_of(going)} going out, {credits_of(coming)} coming in: offgrid tx list --open"
    if accepted:
        yield "accepted", f"{credits_of(accepted)} of what comes in, within your credit lines: offgrid wallet credit"


def _since(away: Iterable[Witness]) -> str:
    from offgrid_tools.cli.output import duration

    return ", ".join(f"{witness.name or witness.node_id} for {duration(witness.away_ms)}" for witness in away)


def _who_helps(status: GetLedgerStatusResponse, away: Iterable[Witness]) -> str:
    """The fewest that must come back."""
    missing_milli, count = status.quorum_milli - status.reach_milli, 0
    for weight_milli in sorted((witness.weight_milli for witness in away), reverse=True):
        if missing_milli <= 0:
            break
        missing_milli -= weight_milli
        count += 1
    return "one of them is back" if count == 1 else f"{count} of them are back"
