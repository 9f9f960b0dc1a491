"""A session in an application: what may be recorded, and what is said when it was not all kept."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message

from offgrid.client import sessions
from offgrid.client.errors import OffgridError
from offgrid.client.sessions import NotDurable, Session, Sessions
from offgrid.kinds import RejectedEvent
from offgrid.v1 import state_pb2


class Node:
    """Answers as a node does; `away`: it takes no events."""

    def __init__(self) -> None:
        self.away = False
        self.asked: list[str] = []

    def unary(self, method: str, request: Message, answer: type[Message], **more: Any) -> Message:
        self.asked.append(method.partition("/")[2])
        if isinstance(request, state_pb2.RecordEventsRequest) and self.away:
            raise OffgridError("UNAVAILABLE", "NoAnswer", "away")
        if isinstance(request, state_pb2.StartSessionRequest):
            return state_pb2.StartSessionResponse(session=state_pb2.Session(session_id="s-1", name=request.name))
        return answer()


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def session(node: Node, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(sessions, "CLOSE_S", 5.0)
    calls: Any = node
    return Sessions(calls).open("run")


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"frame": "a"}, TypeError, "integer"),
        ({"frame": 1.5}, TypeError, "integer"),
        ({"frame": -1}, ValueError, "frame: -1; 0 to"),
        ({"frame": 1 << 64}, ValueError, "frame: "),
        ({"timestamp_us": -5}, ValueError, "timestamp_us: -5"),
        ({"energy_delta": float("nan")}, ValueError, "energy_delta: nan"),
        ({"energy_delta": 1e300}, ValueError, "energy_delta: 1e"),
        ({"data": {"x": float("nan")}}, ValueError, "JSON"),
        ({"data": {"x": {1, 2}}}, (TypeError, ValueError), "."),
        ({"data": {"x": b"bytes"}}, (TypeError, ValueError), "."),
        ({"data": {1: 2}}, (TypeError, ValueError), "."),
        ({"data": {"x": "y" * 70_000}}, ValueError, "data: .* at most"),
        ({"data": {"status": "fine"}}, RejectedEvent, "/status"),
        ({"kind": "no.such"}, RejectedEvent, "not known here"),
    ],
)
def test_what_cannot_be_recorded_is_refused_at_once(
    session: Session, more: dict[str, Any], error: type[Exception], said: str
) -> None:
    event: dict[str, Any] = {"kind": "health.heartbeat", "data": {}} | more
    with pytest.raises(error, match=said):
        session.record(event.pop("kind"), event.pop("data"), **event)
    assert session.figures.accepted == 0
    session.close()


def test_leaving_it_with_events_that_are_not_durable_says_so_and_leaves_it_open(node: Node, session: Session) -> None:
    node.away = True
    session.record("health.heartbeat", {})
    with pytest.raises(NotDurable, match="1 of 1 events that were accepted are not durable"):
        session.end(0.3)
    assert "EndSession" not in node.asked


def test_leaving_it_ends_it_unless_the_program_failed(node: Node, session: Session) -> None:
    session.record("health.heartbeat", {})
    session.__exit__(KeyError, KeyError("the program's own"), None)
    assert (session.figures.durable, "EndSession" in node.asked) == (1, False)
    calls: Any = node
    with Sessions(calls).open("run") as again:
        again.record("health.heartbeat", {})
    assert (again.figures.durable, node.asked[-1]) == (1, "EndSession")


def test_a_client_that_is_closed_closes_its_sessions(node: Node) -> None:
    calls: Any = node
    room = Sessions(calls)
    session = room.open("run")
    session.record("health.heartbeat", {})
    room.close()
    assert session.figures.durable == 1
    with pytest.raises(OffgridError, match="closed"):
        session.record("health.heartbeat", {})
