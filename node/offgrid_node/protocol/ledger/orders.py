"""What admins of the mesh order of the next committee, and who is an admin.

An order is valid for ever by any key that was its issuer's; whether it has force is asked only by those who wish and
vote: its issuer is an admin now, has signed by its key of now, and the order is for the epoch that comes next. Where
several have force a leader takes the newest. Bounded: ORDERS_MAX, of one issuer PER_ISSUER_MAX, for that epoch.
"""

from __future__ import annotations

from collections.abc import Iterable

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.checkpoints import Order
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import OrderItem, decode_item
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.tables import ADMINS, ORDERS

ORDERS_MAX = 64
PER_ISSUER_MAX = 4


class Orders:
    """All in rows, read once."""

    def __init__(self, salt: bytes, draft: Draft, epochs: Epochs, keys: Keys) -> None:
        self._salt, self._draft, self._epochs, self._keys = salt, draft, epochs, keys
        self._orders: dict[bytes, OrderItem] = {}  # by digest
        self._admins: set[bytes] = set()

    def load(self) -> None:
        self._admins.update(key for key, _ in self._draft.committed(ADMINS, b""))
        self._orders = {}
        for digest, row in self._draft.committed(ORDERS, b""):
            item = decode_item(row, self._salt)
            assert isinstance(item, OrderItem)
            self._orders[digest] = item

    # ---- questions

    def is_admin(self, node: bytes) -> bool:
        return node in self._admins

    def has(self, digest: bytes) -> bool:
        return digest in self._orders

    def best(self) -> OrderItem | None:
        """The newest that has force."""
        found = [item for item in self._orders.values() if self.has_force(item.order)]
        return max(found, key=lambda item: (item.order.created_us, item.digest), default=None)

    def in_force(self, digest: bytes) -> Order | None:
        item = self._orders.get(digest)
        return item.order if item is not None and self.has_force(item.order) else None

    def has_force(self, order: Order) -> bool:
        return order.issuer in self._admins and self._keys.number(order.issuer) == order.key

    # ---- inputs

    def on_admin(self, node_id: str, admin: bool) -> None:
        node = node_id_bytes(node_id)
        if admin and node not in self._admins:
            self._admins.add(node)
            self._draft.put_bytes(ADMINS, node, b"")
        elif not admin and node in self._admins:
            self._admins.discard(node)
            self._draft.delete(ADMINS, node)

    def on_admins(self, node_ids: Iterable[str]) -> None:
        """These and no others."""
        named = set(node_ids)
        for node_id in {base32(node) for node in self._admins} - named:
            self.on_admin(node_id, False)
        for node_id in named:
            self.on_admin(node_id, True)

    def on_order(self, item: OrderItem) -> bool:
        """Signed by its issuer. Whether it is kept, and was not before."""
        order = item.order
        if (order.ledger, order.epoch) != (self._epochs.ledger, self._epochs.number + 1) or self.has(item.digest):
            return False
        of_issuer = [each for each in self._orders.values() if each.order.issuer == order.issuer]
        full = len(of_issuer) >= PER_ISSUER_MAX
        if full or len(self._orders) >= ORDERS_MAX:
            some = of_issuer if full else [*self._orders.values()]
            idle = [each for each in some if not self.has_force(each.order)]
            if not idle and order.key < self._keys.number(order.issuer):
                return False  # signed by a key that was replaced, where all others have force
            self._drop(idle or some)
        self._orders[item.digest] = item
        self._draft.put_bytes(ORDERS, item.digest, item.encode())
        return True

    def enter(self) -> None:
        """Another epoch has begun: these were for it."""
        for digest in self._orders:
            self._draft.delete(ORDERS, digest)
        self._orders = {}

    def _drop(self, some: list[OrderItem]) -> None:
        """The oldest of these."""
        oldest = min(some, key=lambda item: (item.order.created_us, item.digest))
        del self._orders[oldest.digest]
        self._draft.delete(ORDERS, oldest.digest)
