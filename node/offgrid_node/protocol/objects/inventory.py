"""Who keeps what of whose: an owner's list of what each host has acked, and a host's of what it keeps for each owner.

The two are of the same form, so that an owner and a host, after a time apart, can tell whether they still agree: an
item is an object with those of its shards. Beside the items stands their sum, kept in the same transaction, which says
"in sync" in some bytes whatever the number of items (Bellare and Micciancio 1997, AdHash, modulo 2^256). It finds what
got lost; it is no proof against a host that lies, which may as well claim to keep what it has not: audits are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.objects.tables import INVENTORY_SUMS
from offgrid_node.protocol.sound import key_in, sound

COUNT_BYTES, SUM_BYTES = 8, 32
SUMMARY_BYTES = COUNT_BYTES + SUM_BYTES
NOTHING_KEPT = bytes(SUMMARY_BYTES)
ITEM_KIND = b"og.inventory.v1"
_MODULUS = 1 << 8 * SUM_BYTES


class Holding(msgspec.Struct, frozen=True):
    """An object, and which of its shards somebody keeps; (0,) where it is a copy."""

    object_id: str
    shards: tuple[int, ...]

    @property
    def item(self) -> bytes:
        return f"{self.object_id}/".encode() + bytes(self.shards)


class Inventory:
    """The rows of one table; `node` is the host that keeps, or the owner for whom it is kept."""

    def __init__(self, draft: Draft, table: str) -> None:
        self._draft, self._table = draft, table

    def put(self, node: str, object_id: str, shards: Iterable[int]) -> None:
        """Takes the place of what was said of the object before; none: nothing is kept of it."""
        key, value = inventory_key(node, object_id), bytes(shards)
        before = self._draft.get(self._table, key) or b""
        if before == value:
            return
        if value:
            self._draft.put_bytes(self._table, key, value)
        else:
            self._draft.delete(self._table, key)
        self._count(node, object_id, before, value)

    def mend(self, node: str, object_id: str, shards: Iterable[int]) -> None:
        """Where nobody can read the row any more, it says these again, which are what it said. The sum knows it still;
        where it is another row's damage, there was none."""
        key = inventory_key(node, object_id)
        try:
            self._draft.get(self._table, key)
        except Corrupt as fault:
            value = bytes(shards) if key_in(fault, self._table) == key else b""
            if value:
                self._draft.put_bytes(self._table, key, value)
            else:
                self._draft.delete(self._table, key)

    def change(self, object_id: str, before: Mapping[str, Iterable[int]], after: Mapping[str, Iterable[int]]) -> None:
        """Who kept what of an object, and who does now."""
        for node in {**before, **after}:
            self.put(node, object_id, after.get(node, ()))

    def has(self, node: str, holding: Holding) -> bool:
        return self._draft.get(self._table, inventory_key(node, holding.object_id)) == bytes(holding.shards)

    def shards(self, node: str, object_id: str) -> tuple[int, ...]:
        """None of what is not kept."""
        return tuple(self._draft.get(self._table, inventory_key(node, object_id)) or b"")

    def count(self, node: str) -> int:
        """Of objects."""
        return count_of(self._draft.get(INVENTORY_SUMS, sum_key(self._table, node)) or NOTHING_KEPT)

    def knows(self, node: str) -> bool:
        """Whether anything was ever put for the node."""
        return self._draft.get(INVENTORY_SUMS, sum_key(self._table, node)) is not None

    def _count(self, node: str, object_id: str, before: bytes, after: bytes) -> None:
        key = sum_key(self._table, node)
        summary = self._draft.get(INVENTORY_SUMS, key) or NOTHING_KEPT
        for shards, sign in ((before, -1), (after, 1)):
            if shards:
                summary = counted(summary, Holding(object_id, tuple(shards)), sign)
        self._draft.put_bytes(INVENTORY_SUMS, key, summary)


def counted(summary: bytes, holding: Holding, sign: int) -> bytes:
    """The summary with an item more, or (`sign` -1) less."""
    count = int.from_bytes(summary[:COUNT_BYTES], "big") + sign
    drawn = hashlib.blake2b(holding.item, digest_size=SUM_BYTES, person=ITEM_KIND).digest()
    total = (int.from_bytes(summary[COUNT_BYTES:], "big") + sign * int.from_bytes(drawn, "big")) % _MODULUS
    return count.to_bytes(COUNT_BYTES, "big") + total.to_bytes(SUM_BYTES, "big")


def count_of(summary: bytes) -> int:
    return int.from_bytes(summary[:COUNT_BYTES], "big")


def summary_of(rows: Rows, table: str, node: str) -> bytes:
    """Of committed rows."""
    return rows.get(INVENTORY_SUMS, sum_key(table, node)) or NOTHING_KEPT


def holdings_of(rows: Rows, table: str, node: str, prefix: str = "") -> Iterator[Holding]:
    """Of committed rows that are sound; only objects whose ids begin so."""
    skipped = len(inventory_key(node, ""))
    for key, value in sound(rows.scan, table, prefix=inventory_key(node, prefix)):
        yield Holding(key[skipped:].decode(), tuple(value))


def inventory_key(node: str, object_id: str) -> bytes:
    return f"{node}/{object_id}".encode()


def sum_key(table: str, node: str) -> bytes:
    return f"{table}/{node}".encode()
