"""The keys of sessions in memory alone: the twin of session_keys.py for simulators and tests."""

from __future__ import annotations

from collections.abc import Collection, Iterator


class MemorySessionKeys:
    """Outlives what it is given to, as a disk does."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}

    def get(self, session_id: str) -> bytes | None:
        return self._keys.get(session_id)

    def add(self, session_id: str, key: bytes) -> None:
        self._keys[session_id] = key

    def __iter__(self) -> Iterator[str]:
        return iter([*self._keys])

    def drop(self, session_ids: Collection[str]) -> None:
        for session_id in session_ids:
            self._keys.pop(session_id, None)
