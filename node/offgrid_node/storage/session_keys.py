"""The keys of sessions: one each, all in one small file that is replaced whole.

What a session's events say is sealed under its key and nothing else, so whoever drops the key has shredded them,
wherever copies lie. So the file is in no backup and no segment of the journal.

    "OGSK" version 1 | count 4 | count times (session id 26 | key 32) | digest 16

Numbers are big-endian; the digest is BLAKE2b-128 over everything before it.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.storage.disk import disk_fault, write_durably

SESSION_KEYS = "sessions.keys"  # in the data folder
KEY_BYTES = 32
ID_CHARS = 26
_HEAD = struct.Struct(">4sBI")
_ENTRY_BYTES = ID_CHARS + KEY_BYTES
_MAGIC, _VERSION, _DIGEST_BYTES = b"OGSK", 1, 16


class SessionKeys:
    """In memory, and in the file before a change counts. One key may come while a thread drops others."""

    def __init__(self, path: Path) -> None:
        """Raises Corrupt, and Unavailable (reason DiskError)."""
        self._path, self._lock = path, threading.Lock()
        try:
            path.with_name(path.name + ".new").unlink(missing_ok=True)  # keys that a crash left there may be dropped
            content = path.read_bytes() if path.exists() else _encode({})
        except OSError as error:
            raise disk_fault(path, f"cannot read {path}", error) from error
        self._keys = _decode(content, path)

    def get(self, session_id: str) -> bytes | None:
        return self._keys.get(session_id)

    def add(self, session_id: str, key: bytes) -> None:
        """Raises Unavailable; then nothing has changed."""
        with self._lock:
            self._replace(self._keys | {session_id: key})

    def drop(self, session_ids: Collection[str]) -> None:
        """Whatever was sealed under them nobody will ever read. Raises Unavailable; then nothing has changed."""
        going = set(session_ids)
        with self._lock:
            if self._keys.keys() & going:
                self._replace({name: key for name, key in self._keys.items() if name not in going})

    def all(self) -> Mapping[str, bytes]:
        """By session."""
        return dict(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def _replace(self, keys: dict[str, bytes]) -> None:
        write_keys(self._path, keys)
        self._keys = keys


def write_keys(path: Path, keys: Mapping[str, bytes]) -> None:
    """Replaces the file. Raises Unavailable."""
    try:
        write_durably(path, _encode(keys))
    except OSError as error:
        raise disk_fault(path, f"cannot write {path}", error) from error


def _encode(keys: Mapping[str, bytes]) -> bytes:
    body = _HEAD.pack(_MAGIC, _VERSION, len(keys)) + b"".join(
        session_id.encode("ascii") + key for session_id, key in keys.items()
    )
    return body + _digest(body)


def _decode(content: bytes, path: Path) -> dict[str, bytes]:
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if len(content) < _HEAD.size + _DIGEST_BYTES or _digest(body) != digest:
        raise _damaged(path, "its checksum is wrong")
    magic, version, count = _HEAD.unpack_from(body)
    if (magic, version) != (_MAGIC, _VERSION) or len(body) != _HEAD.size + count * _ENTRY_BYTES:
        raise _damaged(path, f"it is no list of keys of version {_VERSION}")
    entries = (body[at : at + _ENTRY_BYTES] for at in range(_HEAD.size, len(body), _ENTRY_BYTES))
    return {entry[:ID_CHARS].decode("ascii"): entry[ID_CHARS:] for entry in entries}


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES, person=b"og.skeys.v1").digest()


def _damaged(path: Path, how: str) -> Corrupt:
    return Corrupt(
        f"{path}: {how}; without it no session can be read: put a copy of it back, or take it away and do without them",
        reason="SessionKeysDamaged",
        metadata={"path": str(path)},
    )
