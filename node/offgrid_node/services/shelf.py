"""Typed look-ups in committed rows, whole and in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

from offgrid_node.protocol.errors import InvalidRequest, NotFound
from offgrid_node.protocol.jobs.bounds import ID_CHARS_MAX
from offgrid_node.protocol.jobs.naming import PREFIXED, stem_of
from offgrid_node.services.paging import decode_token, take_page
from offgrid_node.storage.rows import KEY_BYTES_MAX
from offgrid_node.storage.store import Store

M = TypeVar("M", bound=Message)


def all_of_them(row: Message) -> bool:
    """Whether a page takes a row in."""
    return True


class Shelf:
    """Rows as messages."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, table: str, row: type[M], row_id: str) -> M | None:
        if not row_id or len(row_id) > ID_CHARS_MAX:
            return None
        value = self._store.get(table, row_id.encode())
        return row.FromString(value) if value is not None else None

    def get(self, field: str, table: str, row: type[M], row_id: str) -> M:
        """Raises NotFound with the field and the id."""
        found = self.find(table, row, row_id)
        if found is None:
            what = row.DESCRIPTOR.name.lower()
            raise NotFound(
                f"there is no {what} {row_id!r}", reason=f"{what.capitalize()}NotFound", metadata={field: row_id}
            )
        return found

    def page(
        self,
        table: str,
        row: type[M],
        size: int,
        token: str,
        wanted: Callable[[M], bool] = all_of_them,
        *,
        reverse: bool = False,
    ) -> tuple[list[M], str]:
        """Rows in the order of their keys from the token on, or in the reverse one, and the token of the next page."""
        scan = _scan(self._store, table, b"", decode_token(token), reverse=reverse)
        found = ((key, row.FromString(value)) for key, value in scan)
        return take_page(((key, each if wanted(each) else None) for key, each in found), size)

    def page_of(
        self,
        owner: str,
        index: str,
        table: str,
        row: type[M],
        size: int,
        token: str,
        wanted: Callable[[M], bool] = all_of_them,
        *,
        reverse: bool = False,
    ) -> tuple[list[M], str]:
        """As `page`, of the rows that the table `index` has below `owner`: its keys are "<owner>/<row id>". The value
        PREFIXED says that a key stands for all rows whose ids go on from it with a "-"."""
        prefix, start = f"{owner}/".encode(), decode_token(token)
        if start and not start.startswith(prefix):
            raise InvalidRequest.field("page_token", "it belongs to a list with other filters; begin again without it")
        if len(owner) > ID_CHARS_MAX:
            return [], ""

        def rows() -> Iterator[tuple[bytes, M]]:
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

        return take_page(((key, each if wanted(each) else None) for key, each in rows()), size)


def _scan(store: Store, table: str, prefix: bytes, position: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
    """From the position on, which counts; none is where the order begins."""
    if reverse:
        return store.scan(table, prefix=prefix, end=position and (position + b"\0")[:KEY_BYTES_MAX], reverse=True)
    return store.scan(table, position, prefix=prefix)
