"""How many rows this node keeps for each other node, so that none of them can fill its disk."""

from __future__ import annotations

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import Exhausted
from offgrid_node.protocol.quorum.tables import COUNTS, number_key, number_of


class Quota:
    """Counts rows of one kind by owner."""

    def __init__(self, draft: Draft, what: str, most: int) -> None:
        self._draft, self._what, self._most = draft, what, most

    def full(self, owner: str) -> bool:
        """Whether `take` would raise."""
        return number_of(self._draft.get(COUNTS, f"{self._what}/{owner}".encode())) >= self._most

    def take(self, owner: str) -> None:
        """One row more. Raises Exhausted (QuotaFull)."""
        key = f"{self._what}/{owner}".encode()
        kept = number_of(self._draft.get(COUNTS, key))
        if kept >= self._most:
            text = f"this node keeps {kept} {self._what} of {owner} and takes no more"
            raise Exhausted(text, reason="QuotaFull", metadata={"owner": owner})
        self._draft.put_bytes(COUNTS, key, number_key(kept + 1))

    def give_back(self, owner: str) -> None:
        """One row fewer."""
        key = f"{self._what}/{owner}".encode()
        self._draft.put_bytes(COUNTS, key, number_key(max(0, number_of(self._draft.get(COUNTS, key)) - 1)))
