"""Typed look-ups in committed rows: one by its id, or many in order from where a page begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.message import Message

from offgrid_node.protocol.errors import Corrupt, InvalidRequest, NotFound
from offgrid_node.protocol.jobs.bounds import ID_CHARS_MAX
from offgrid_node.protocol.jobs.naming import PREFIXED, stem_of
from offgrid_node.protocol.objects.deletion import place_of
from offgrid_node.protocol.sound import sound
from offgrid_node.services.paging import decode_token
from offgrid_node.storage.rows import KEY_BYTES_MAX
from offgrid_node.storage.store import Store

DAMAGED_MAX = 1_000  # rows that one page names

M = TypeVar("M", bound=Message)


class Shelf:
    """Rows as messages."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, table: str, row: type[M], row_id: str) -> M | None:
        if not row_id or len(row_id) > ID_CHARS_MAX:
            return None
        value = self._store.get(table, row_id.encode())
        return row.FromString(value) if value is not None else None

    def place_of(self, object_id: str) -> str:
        """The id that an object has by now: another one if it was sealed anew."""
        return place_of(self._store, object_id) if len(object_id) <= ID_CHARS_MAX else object_id

    def get(self, field: str, table: str, row: type[M], row_id: str) -> M:
        """Raises NotFound with the field and the id."""
        found = self.find(table, row, row_id)
        if found is None:
            what = row.DESCRIPTOR.name.lower()
            raise NotFound(
                f"there is no {what} {row_id!r}", reason=f"{what.capitalize()}NotFound", metadata={field: row_id}
            )
        return found

    def rows(self, table: str, row: type[M], token: str, *, reverse: bool = False) -> Iterator[tuple[bytes, M]]:
        """Rows with their keys, for `take_page`: in the order of keys from the token's on, or in the reverse one."""
        scan = _scan(self._store, table, b"", decode_token(token), reverse=reverse)
        return ((key, row.FromString(value)) for key, value in scan)

    def sound_rows(self, table: str, row: type[M], token: str, damaged: list[bytes]) -> Iterator[tuple[bytes, M]]:
        """As `rows`, but for those that are damaged: their keys go to `damaged`. Raises Corrupt (reason RowsDamaged)
        beyond DAMAGED_MAX."""
        for key, value in sound_on_page(self._store, table, decode_token(token), damaged):
            yield key, row.FromString(value)

    def rows_of(
        self, owner: str, index: str, table: str, row: type[M], token: str, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, M]]:
        """As `rows`, of those that the table `index` has below `owner`: its keys are "<owner>/<row id>". The value
        PREFIXED says that a key stands for all rows whose ids go on from it with a "-"."""
        prefix, start = f"{owner}/".encode(), decode_token(token)
        if start and not start.startswith(prefix):
            raise InvalidRequest.field("page_token", "it belongs to a list with other filters; begin again without it")
        if len(owner) > ID_CHARS_MAX:
            return
        first = start[len(prefix) :]
        stem = stem_of(first.decode("latin-1")).encode("latin-1")  # whatever a token holds
        position = prefix + (first if reverse else stem) if first else b""  # a stem sorts before what it stands for
        for key, value in _scan(self._store, index, prefix, position, reverse=reverse):
            row_id = key[len(prefix) :]
            if value == PREFIXED:
                below = row_id + b"-"
                within = first if first.startswith(below) else b""
                for name, found in _scan(self._store, table, below, within, reverse=reverse):
                    yield prefix + name, row.FromString(found)
            elif (reverse or row_id >= first) and (found_one := self._store.get(table, row_id)) is not None:
                yield key, row.FromString(found_one)


def sound_on_page(store: Store, table: str, start: bytes, damaged: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Rows for one page, but for those that are damaged: their keys go to `damaged`. Raises Corrupt (reason
    RowsDamaged) beyond DAMAGED_MAX."""

    def note(key: bytes) -> None:
        if len(damaged) == DAMAGED_MAX:
            text = f"more than {DAMAGED_MAX} rows of table {table} are damaged: restore the store from a backup"
            raise Corrupt(text, reason="RowsDamaged")
        damaged.append(key)

    return sound(store.scan, table, start, on_damaged=note)


def _scan(store: Store, table: str, prefix: bytes, position: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
    """From the position on, which counts; none is where the order begins."""
    if reverse:
        return store.scan(table, prefix=prefix, end=position and (position + b"\0")[:KEY_BYTES_MAX], reverse=True)
    return store.scan(table, position, prefix=prefix)
