"""Whom a command means, for what it says before the node is asked to do it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from offgrid.v1.mesh_pb2 import Member, Peer


def meant(node: str, peers: Iterable[Peer]) -> Member | None:
    """`node` is a name, an id, or an id's first characters; a name goes before, and whoever is a member still before
    who was removed. None: nobody is."""
    members = sorted((peer.member for peer in peers), key=lambda member: member.removed)
    named = (each for each in members if each.name == node)
    return next(named, None) or next((each for each in members if each.node_id.startswith(node)), None)
