"""Who is alive, as the mesh domain tells it: the brokers, hosts and cores that the parts may count on."""

from __future__ import annotations

from offgrid_node.protocol.events import PeerDown, PeerUp
from offgrid_node.protocol.pace import Paces, all_free


class Peers:
    """Live members and their roles in force."""

    def __init__(self, paces: Paces = all_free) -> None:
        self.pace = paces
        """Of the road to a node."""
        self._roles: dict[str, frozenset[int]] = {}
        self._known_as: dict[str, tuple[str, str]] = {}
        self._down: set[str] = set()
        self._with_role: dict[int, tuple[str, ...]] = {}  # as asked since the last change

    def on_up(self, event: PeerUp) -> None:
        self._with_role.clear()
        self._roles[event.node_id] = event.roles
        self._known_as[event.node_id] = event.name, event.failure_domain
        self._down.discard(event.node_id)

    def on_down(self, event: PeerDown) -> None:
        self._with_role.clear()
        self._roles.pop(event.node_id, None)
        self._known_as.pop(event.node_id, None)
        self._down.add(event.node_id)

    def is_alive(self, node_id: str) -> bool:
        return node_id in self._roles

    def is_down(self, node_id: str) -> bool:
        """The mesh has said so. Of whom it has not spoken yet, as after a restart, the opposite is not known either."""
        return node_id in self._down

    def has_role(self, node_id: str, role: int) -> bool:
        return role in self._roles.get(node_id, ())

    def known_as(self, node_id: str) -> tuple[str, str]:
        """Name and failure domain, as its membership record says; empty of one that is not alive."""
        return self._known_as.get(node_id, ("", ""))

    def with_role(self, role: int) -> tuple[str, ...]:
        """Node ids in a fixed order, so that a replay chooses alike."""
        found = self._with_role.get(role)
        if found is None:
            found = self._with_role[role] = tuple(sorted(node for node in self._roles if self.has_role(node, role)))
        return found
