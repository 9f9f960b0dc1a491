"""Accounts as people name them: a member's name or id, with `/3` behind it for its lane 3; `/3` is this node's.

An account of nobody's whom this node knows by name is known by its id alone: 32 characters. A hold that this node pays
out of, or is paid from, is told by its number and the other one's name; who means it says its id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.ids import NODE_ID, NODE_ID_BYTES, base32, node_id_bytes
from offgrid_node.protocol.ledger.lanes import LANES_MAX, lane_count
from offgrid_node.protocol.ledger.sources import HoldTerms, lane_account
from offgrid_node.protocol.ledger.tables import ACCOUNTS, GIVEN, LANES_KEY, LANES_SEEN, META, TAKEN
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.services.ledger.opening import resolve
from offgrid_node.storage.store import Store


class AccountNames:
    """Ids of accounts are those of nodes, and for lanes 32 characters of the same form."""

    def __init__(self, store: Store, self_id: str, directory: Callable[[], Directory]) -> None:
        self._store, self._self_id, self._directory = store, self_id, directory
        self._own = {self_id: 0}

    def own(self) -> Mapping[str, int]:
        """This node's accounts, each with the number of its lane, in their order."""
        count, account = lane_count(self._store.get(META, LANES_KEY)), node_id_bytes(self._self_id)
        for lane in range(len(self._own), count + 1):
            self._own[base32(lane_account(account, lane))] = lane
        return self._own

    def of(self, account: str) -> str:
        """Empty for one that has no name here. Of another's lane it is known once that has signed something."""
        owner, lane = self._owner(account)
        record = self._directory().member(owner)
        if record is None:
            return self._hold(node_id_bytes(account))
        return f"{record.name}/{lane}" if lane else record.name

    def _hold(self, account: bytes) -> str:
        """ "hold 2 for barn", or "hold 2 of attic", whose payer that is; empty for what is no hold of this node's."""
        if (given := self._store.get(GIVEN, account)) is not None:
            terms = HoldTerms.decode(ledger_pb2.GivenHold.FromString(given).terms)
            return f"hold {terms.number} for {self._called(terms.payee)}"
        if (taken := self._store.get(TAKEN, account)) is not None:
            terms = HoldTerms.decode(ledger_pb2.TakenHold.FromString(taken).voucher.terms)
            return f"hold {terms.number} of {self._called(terms.payer)}"
        return ""

    def _called(self, account: bytes) -> str:
        node = base32(account)
        record = self._directory().member(node)
        return node if record is None else record.name

    def _owner(self, account: str) -> tuple[str, int]:
        if lane := self.own().get(account, 0):
            return self._self_id, lane
        is_node = self._directory().member(account) is not None
        seen = self._store.get(LANES_SEEN, node_id_bytes(account)) if not is_node else None
        if seen is None:
            return account, 0
        return base32(seen[:NODE_ID_BYTES]), int.from_bytes(seen[NODE_ID_BYTES:], "big")

    def account(self, field: str, text: str, *, removed: bool = False) -> str:
        """The account that is meant; "" is this node's. Raises InvalidRequest, which names the field, and NotFound."""
        node, lane = self.place(field, text, removed=removed)
        return base32(lane_account(node_id_bytes(node), lane)) if lane else node

    def place(self, field: str, text: str, *, removed: bool = False) -> tuple[str, int]:
        """The same as its owner and the number of its lane, one that a node may have: what is paid to any other its
        owner's node cannot spend. An account that is known by its id alone counts as one of its own."""
        owner, slash, number = text.partition("/")
        if slash and not (number.isascii() and number.isdecimal() and len(number) <= 4 and int(number) <= LANES_MAX):
            raise InvalidRequest.field(
                field, f"{text[:64]!r}: behind the / a lane's number is needed, 0 to {LANES_MAX}"
            )
        if not slash and NODE_ID.match(owner) and self._is_account(owner):
            return self._owner(owner)
        node = resolve(field, owner, self._directory(), removed=removed) if owner else self._self_id
        return node, int(number) if slash else 0

    def _is_account(self, text: str) -> bool:
        return self._store.get(ACCOUNTS, node_id_bytes(text)) is not None
