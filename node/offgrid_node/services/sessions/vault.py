"""What seals a session's events, as the handlers need it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from offgrid_node.protocol.errors import FailedPrecondition

KEYLESS = "SessionKeyless"


class Vault(Protocol):
    """Seals under a session's key; whoever drops the key has shredded what was sealed. `what` says what it is."""

    def create(self, session_id: str) -> None:
        """A key for it, durable. Raises Unavailable."""
        ...

    def has(self, session_id: str) -> bool: ...

    def all(self) -> Collection[str]:
        """The sessions that have a key here, as those came."""
        ...

    def seal(self, session_id: str, what: str, clear: bytes) -> bytes:
        """Raises FailedPrecondition (SessionKeyless) where there is no key."""
        ...

    def drop(self, session_ids: Collection[str]) -> None:
        """Raises Unavailable; then nothing has changed."""
        ...

    def open(self, session_id: str, what: str, sealed: bytes) -> bytes:
        """Raises Corrupt for what was not sealed so, and as `seal`."""
        ...


def keyless(session_id: str) -> FailedPrecondition:
    text = (
        f"what the session {session_id} says cannot be read: its key is not on this machine; put the file of keys "
        "back, if there is a copy"
    )
    return FailedPrecondition(text, reason=KEYLESS, metadata={"session_id": session_id})
