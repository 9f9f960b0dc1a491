"""What the carriers are told of each change in the journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from offgrid.v1 import state_pb2
from offgrid_node.members import Members
from offgrid_node.protocol.etypes import EventType


class Carriers:
    """Stands for server and road, and writes down what they are told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def refresh(self) -> None:
        self.told.append("refresh")

    def retry(self, node: str) -> None:
        self.told.append(f"retry {node}")

    def disconnect(self, node: str) -> None:
        self.told.append(f"disconnect {node}")


@pytest.mark.parametrize(
    ("etype", "told"),
    [
        (EventType.MEMBER_ADMITTED, ["refresh"]),
        (EventType.MEMBER_REMOVED, ["refresh", "disconnect n"]),
        (EventType.PEER_ALIVE, ["retry n"]),
        (EventType.PEER_DEAD, []),
    ],
)
def test_an_event_reaches_the_carriers(etype: EventType, told: list[str]) -> None:
    carriers, members = told_of(etype, b"new")
    assert carriers.told == told
    assert members.certificates() == ((b"newer",) if "refresh" in told else (b"new",))


def test_connections_by_a_key_that_was_replaced_end() -> None:
    carriers, _ = told_of(EventType.MEMBER_ADMITTED, b"newer")
    assert carriers.told == ["refresh", "disconnect n"]


def told_of(etype: EventType, certificate: bytes) -> tuple[Carriers, Members]:
    """After an event of a member that has this certificate, where there was only b"new" before."""
    watchers: list[Callable[[Sequence[state_pb2.Event]], None]] = []
    directory = SimpleNamespace(certificates=lambda: [b"new"], certificate=lambda node_id: certificate)
    node: Any = SimpleNamespace(directory=directory, runtime=SimpleNamespace(watch=watchers.append))
    carriers: Any = Carriers()
    framed: Any = SimpleNamespace(refresh=lambda: None)
    members = Members(node, carriers, carriers, framed)
    directory.certificates = lambda: [b"newer"]
    watchers[0]([state_pb2.Event(etype=etype, subject="n")])
    return carriers, members
