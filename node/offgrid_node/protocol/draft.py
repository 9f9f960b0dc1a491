"""A step's effects, and rows as they will stand once they are committed.

Domains that keep most of their rows on disk alone read them when they need them. Within a batch a machine may be
stepped several times before anything is committed, so what it wrote stands before what the disk says. All steps of a
batch see the same instant; what an earlier instant wrote is committed, and need not be remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf.message import Message

from offgrid.v1 import state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Delete, DropEvents, Effect, Outgoing, Put, Raise, Record, Reply, Rows
from offgrid_node.protocol.errors import Fault

M = TypeVar("M", bound=Message)


class Draft:
    """Collects effects; `take` closes the step."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._written: dict[tuple[str, bytes], bytes | None] = {}
        self._rows: Rows | None = None
        self._now: Now | None = None

    @property
    def rows(self) -> Rows | None:
        """What is committed."""
        return self._rows

    def load(self, rows: Rows) -> None:
        self._rows = rows

    def begin(self, now: Now) -> None:
        """A step at `now` begins."""
        if now != self._now:
            self._now, self._written = now, {}

    # ---- rows

    def get(self, table: str, key: bytes) -> bytes | None:
        """Raises Corrupt."""
        if (table, key) in self._written:
            return self._written[table, key]
        return self._rows.get(table, key) if self._rows is not None else None

    def row(self, table: str, key: bytes, kind: type[M]) -> M | None:
        value = self.get(table, key)
        return kind.FromString(value) if value is not None else None

    def committed(self, table: str, start: bytes, *, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """What the disk says, from `start` on: without what this batch wrote."""
        return self._rows.scan(table, start, prefix=prefix) if self._rows is not None else iter(())

    @property
    def is_clean(self) -> bool:
        """Whether all that was written is committed."""
        return not self._written

    def changed(self, table: str) -> set[bytes]:
        """Keys of rows that this step wrote or deleted."""
        return {each.key for each in self._effects if isinstance(each, Put | Delete) and each.table == table}

    def put(self, table: str, key: bytes, row: Message) -> None:
        self.put_bytes(table, key, row.SerializeToString())

    def put_bytes(self, table: str, key: bytes, value: bytes) -> None:
        self._written[table, key] = value
        self._effects.append(Put(table, key, value))

    def delete(self, table: str, key: bytes) -> None:
        self._written[table, key] = None
        self._effects.append(Delete(table, key))

    # ---- the rest

    def record(self, etype: int, subject: str, **data: Any) -> None:
        """One journal event; `data` names the case of Event's oneof."""
        self._effects.append(Record(state_pb2.Event(etype=etype, subject=subject, **data)))

    def drop_events(self, upto: int) -> None:
        self._effects.append(DropEvents(upto))

    def reply(self, ticket: int, outcome: Message | Fault) -> None:
        self._effects.append(Reply(ticket, outcome))

    def tell(self, domain: str, event: object) -> None:
        self._effects.append(Raise(domain, event))

    def send(self, effect: Outgoing) -> None:
        self._effects.append(effect)

    def take(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects
