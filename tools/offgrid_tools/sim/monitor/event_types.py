"""Every event of a journal has a type that users are told of, and carries what they are told that it does."""

from __future__ import annotations

from offgrid.event_types import SEMANTIC, EventType
from offgrid.v1 import state_pb2
from offgrid_tools.sim.monitor.evidence import Violation

WHAT_APPLICATIONS_PUT = "object"  # in the outbox, by any type that is promised to users


def must_carry_what_its_type_says(event: state_pb2.Event) -> None:
    """Raises Violation."""
    case, types = event.WhichOneof("data") or "", {etype.value: etype for etype in EventType}
    etype = types.get(event.etype)
    if etype is None or event.type != etype.name:
        raise Violation(f"the journal has an event of type {event.etype} {event.type!r}, which nobody is told of")
    if case not in (etype.data or ("",)) and not (case == WHAT_APPLICATIONS_PUT and event.etype in SEMANTIC):
        raise Violation(
            f"{etype.name} carries {case or 'nothing'}; it may carry {' or '.join(etype.data) or 'nothing'}"
        )
