"""The rule of secrecy: what a user keeps, and how they call it, is in clear nowhere but with the owner's node.

Users plant marks in what they keep; no message between nodes may hold one, nor any blob of anybody, nor any row or
event of another node.
"""

from __future__ import annotations

from collections.abc import Iterator

from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Rules


class SecretRules(Rules):
    """Of marks that users have planted."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._owner_of: dict[bytes, str] = {}

    def plant(self, mark: bytes, owner: str) -> None:
        """A user at `owner` keeps, or calls something by, what holds this mark."""
        self._owner_of[mark] = owner

    def on_bytes(self, source: str, target: str, data: bytes) -> None:
        """A message leaves a node."""
        for mark in self._owner_of:
            if mark in data:
                raise Violation(f"{self._evidence.name_of(source)} says {mark!r} to {self._evidence.name_of(target)}")

    def check_store(self, node: str) -> None:
        if not self._owner_of:
            return
        for place, data in self._everything(node):
            for mark, owner in self._owner_of.items():
                if mark in data and (owner != node or place == "blob"):
                    raise Violation(f"{self._evidence.name_of(node)} has {mark!r} in clear, in a {place}")

    def _everything(self, node: str) -> Iterator[tuple[str, bytes]]:
        store = self._evidence.stores[node]
        yield from (("blob", data) for data in self._evidence.blobs[node].contents())
        yield from (("row", data) for data in store.dump())
        yield from (("event", data) for _, data in store.copy().events())
