"""Which of its keys each member signs with now, as the mesh's directory has told: 0 its first, 1 the one after it.

Lanes and holds name the number of the key that signs (sources.py); a witness votes only where that is the one of now.
A change that the mesh's root has taken back counts no more, so the number may fall.
"""

from __future__ import annotations

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.sources import KEY_NUMBER_BYTES, Source
from offgrid_node.protocol.ledger.tables import KEY_NUMBERS


class Keys:
    """Rows read once: few members ever change their key."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._numbers: dict[bytes, int] = {}  # by member, once asked about

    def on_replaced(self, node_id: str, number: int) -> bool:
        """Whether that is news."""
        if self.number(node := node_id_bytes(node_id)) != number:
            self._draft.put_bytes(KEY_NUMBERS, node, number.to_bytes(KEY_NUMBER_BYTES, "big"))
            self._numbers[node] = number
            return True
        return False

    def number(self, node: bytes) -> int:
        number = self._numbers.get(node)
        if number is None:
            number = self._numbers[node] = int.from_bytes(self._draft.get(KEY_NUMBERS, node) or b"", "big")
        return number

    def in_force(self, source: Source) -> bool:
        """Whether its owner signs with that key now."""
        return source.key is None or source.key == self.number(source.signer)
