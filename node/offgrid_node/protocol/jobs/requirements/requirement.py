"""A parsed requirement, ready to be asked of any number of hosts."""

from __future__ import annotations

from offgrid_node.protocol.jobs.requirements.attributes import Profile
from offgrid_node.protocol.jobs.requirements.nodes import Node

WHY_CHARS_MAX = 400


class Requirement:
    """Holds for a host's profile, or says why not. The empty one holds for all."""

    def __init__(self, tree: Node | None) -> None:
        self._tree = tree
        self._test = tree.compiled() if tree is not None else None

    def __str__(self) -> str:
        """The same requirement in its one written form: parsed again it is the same."""
        return "" if self._tree is None else str(self._tree)

    def holds(self, profile: Profile) -> bool:
        return self._test is None or self._test(profile)

    def why_not(self, profile: Profile) -> str:
        """Which part is false and what the host has instead; empty when it holds."""
        why = "" if self._tree is None else self._tree.why_not(profile)
        return why if len(why) <= WHY_CHARS_MAX else f"{why[: WHY_CHARS_MAX - 1]}…"
