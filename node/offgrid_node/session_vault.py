"""The vault of sessions: their keys in a file of their own, and what is sealed under them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from offgrid_node.keys.blocks import KEY_BYTES, open_block, seal_block
from offgrid_node.protocol.state.sessions.blocks import bound_to
from offgrid_node.services.sessions.vault import keyless


class Keys(Protocol):
    """`storage/session_keys.py`, or its twin in memory."""

    def get(self, session_id: str) -> bytes | None: ...

    def add(self, session_id: str, key: bytes) -> None: ...

    def drop(self, session_ids: Collection[str]) -> None: ...

    def __iter__(self) -> Iterator[str]: ...


class SessionVault:
    """As services/sessions wants it."""

    def __init__(self, keys: Keys, random: Callable[[int], bytes] = os.urandom) -> None:
        self._keys, self._random = keys, random

    def create(self, session_id: str) -> None:
        self._keys.add(session_id, self._random(KEY_BYTES))

    def has(self, session_id: str) -> bool:
        return self._keys.get(session_id) is not None

    def all(self) -> Collection[str]:
        return [*self._keys]

    def seal(self, session_id: str, what: str, clear: bytes) -> bytes:
        return seal_block(self._key(session_id), bound_to(session_id, what), clear, self._random)

    def open(self, session_id: str, what: str, sealed: bytes) -> bytes:
        return open_block(self._key(session_id), bound_to(session_id, what), sealed)

    def drop(self, session_ids: Collection[str]) -> None:
        self._keys.drop(session_ids)

    def _key(self, session_id: str) -> bytes:
        key = self._keys.get(session_id)
        if key is None:
            raise keyless(session_id)
        return key
