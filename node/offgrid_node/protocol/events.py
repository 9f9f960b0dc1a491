"""What one domain tells another within a batch (through `Raise`)."""

from __future__ import annotations

from dataclasses import dataclass

CORE, BROKER, HOST = 1, 2, 3  # the values of offgrid.v1.Role


@dataclass(frozen=True, slots=True)
class PeerUp:
    """mesh → jobs: a member is alive, with the roles that its config asks for and its record allows.

    Said again whenever the roles change, and for this node itself at start.
    """

    node_id: str
    name: str
    roles: frozenset[int]


@dataclass(frozen=True, slots=True)
class PeerDown:
    """mesh → jobs: a member is dead, or was removed."""

    node_id: str
