"""What goes with a record of the log beside its sentence, as the node's log has it: an event and facts."""

from __future__ import annotations

from collections.abc import Mapping


def fields(event: str, /, **facts: object) -> dict[str, Mapping[str, str]]:
    """The `extra` of a logging call."""
    return {"fields": {"event": event, **{name: str(fact) for name, fact in facts.items()}}}
