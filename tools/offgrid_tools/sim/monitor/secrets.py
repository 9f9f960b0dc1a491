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
        self._knowing: dict[bytes, tuple[str, ...]] = {}

    def plant(self, mark: bytes, owner: str, *readers: str) -> None:
        """A user at `owner` keeps, or calls something by, what holds this mark. `readers` may be told by what name."""
        self._knowing[mark] = owner, *readers

    def on_bytes(self, source: str, target: str, data: bytes) -> None:
        """A message leaves a node."""
        for mark, (owner, *readers) in self._knowing.items():
            if mark in data and not (source == owner and target in readers):
                raise Violation(f"{self._evidence.name_of(source)} says {mark!r} to {self._evidence.name_of(target)}")

    def check_store(self, node: str) -> None:
        if not self._knowing:
            return
        for place, data in self._everything(node):
            for mark, knowing in self._knowing.items():
                if mark in data and (node not in knowing or place == "blob"):
                    raise Violation(f"{self._evidence.name_of(node)} has {mark!r} in clear, in a {place}")

    def _everything(self, node: str) -> Iterator[tuple[str, bytes]]:
        store = self._evidence.stores[node]
        yield from (("blob", data) for data in self._evidence.blobs[node].contents())
        yield from (("row", data) for data in store.dump())
        yield from (("event", data) for _, data in store.copy().events())
