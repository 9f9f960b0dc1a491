"""The keys of sessions with their wrapped twin beside the backups: whoever has the recovery key's secret, and a backup,
reads sessions again; and what is shredded here is shredded there.

The wrapped file is replaced whole, like the keys' own (session_keys.py). A key goes out of it first: whoever is killed
in between shreds again at the next start, and a key that is nowhere but here opens nothing elsewhere. A new key comes
into it later, in a thread of its own: its folder may be slow, or away, and sessions begin all the same; what could not
be done is said (`trouble`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault
from offgrid_node.storage.disk import disk_fault, make_folder, write_durably
from offgrid_node.storage.session_keys import SessionKeys

_log = logging.getLogger("offgrid.backups")

Wrap = Callable[[Mapping[str, bytes]], bytes]
Carry = Callable[[Callable[[], None]], object]


class WrappedKeys:
    """As SessionKeys. `carry` has something done, in a thread that may wait or at once."""

    def __init__(self, keys: SessionKeys, path: Path, wrap: Wrap, carry: Carry) -> None:
        self._keys, self._path, self._wrap, self._carry = keys, path, wrap, carry
        self._lock = threading.Lock()
        self._due = False
        self.trouble = ""
        self._replace_soon()  # it may be of another recovery key, or of before a crash

    def get(self, session_id: str) -> bytes | None:
        return self._keys.get(session_id)

    def add(self, session_id: str, key: bytes) -> None:
        """Raises Unavailable; then nothing has changed."""
        self._keys.add(session_id, key)
        self._replace_soon()

    def drop(self, session_ids: Collection[str]) -> None:
        """Raises Unavailable; then the keys are all here still."""
        going = set(session_ids)
        with self._lock:  # nobody puts them back in between
            self._replace({name: key for name, key in self._keys.all().items() if name not in going})
            self._keys.drop(session_ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def _replace_soon(self) -> None:
        """Many that come together are one."""
        if not self._due:
            self._due = True
            self._carry(self._try_replace)

    def _try_replace(self) -> None:
        self._due = False
        try:
            with self._lock:
                self._replace(self._keys.all())
        except Fault as fault:
            _log.warning("the keys of sessions are not wrapped", extra=fields("keys_not_wrapped", why=fault.message))
            self.trouble = f"the keys of new sessions are not wrapped beside the backups: {fault.message}"

    def _replace(self, keys: Mapping[str, bytes]) -> None:
        try:
            make_folder(self._path.parent)
            write_durably(self._path, self._wrap(keys))
        except OSError as error:
            raise disk_fault(self._path.parent, f"cannot write {self._path}", error) from error
        self.trouble = ""


def drop_wrapped(path: Path) -> None:
    """For a node that has no recovery key any more. Raises Unavailable."""
    try:
        for each in (path, path.with_name(path.name + ".new")):  # the other one is what a crash left
            each.unlink(missing_ok=True)
    except OSError as error:
        raise disk_fault(path.parent, f"cannot remove {path}", error) from error
