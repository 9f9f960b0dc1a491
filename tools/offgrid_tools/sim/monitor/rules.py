"""What the monitor asks of one domain's rules: tables of what concerns them, by type, so that nothing else costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from offgrid.v1 import state_pb2

Passed = Callable[[str, str, Any], None]  # source, target, message
Journaled = Callable[[str, state_pb2.Event], None]  # node, event
Written = Callable[[str, bytes, bytes | None], None]  # node, key, value; None: deleted


class Rules:
    """One domain's invariants: whatever breaks one raises Violation."""

    def requests(self) -> Mapping[type[Message], Passed]:
        """By type, what looks at a request as it leaves its sender."""
        return {}

    def replies(self) -> Mapping[type[Message], Passed]:
        """By type, what looks at a reply as it leaves who was asked."""
        return {}

    def lies(self) -> Mapping[type[Message], Passed]:
        """By type, what looks at what a liar lets go: its signatures count as what they are."""
        return {}

    def events(self) -> Mapping[str, Journaled]:
        """By the name of `Event.data`, what looks at an event once it is durable."""
        return {}

    def rows(self) -> Mapping[str, Written]:
        """By table, what looks at a row once it is durable: after the events of its transaction, the tables in the
        order in which the rules name them."""
        return {}

    def on_batch(self, node: str) -> None:
        """All events and rows of a transaction have been looked at."""

    def on_start(self, node: str) -> None:
        """A new life of the node begins."""

    def on_restored(self, node: str) -> None:
        """The node's disk is an older one from now on."""

    def on_comeback(self, node: str) -> None:
        """Likewise, and it goes on as honest as it was: what it was to know again is on that disk, all else is
        forgotten."""

    def check_store(self, node: str) -> None:
        """After each crash and at the end: whether the disk keeps what was promised."""
