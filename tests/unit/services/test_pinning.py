"""What is pinned never goes for want of room, so pins end where the room does."""

from __future__ import annotations

import pytest
from session_desk import Desk, event

from offgrid.v1 import state_pb2
from offgrid_node.protocol.effects import Machine
from offgrid_node.protocol.errors import Exhausted
from offgrid_node.protocol.state.sessions import pinning
from offgrid_node.protocol.state.sessions.machine import SessionsMachine


class Small(Desk):
    """Whose pinned sessions may have 1,000 bytes."""

    def machines(self) -> dict[str, Machine]:
        return {"sessions": SessionsMachine(self.store, {"session": 1}, pinned_bytes_max=1_000)}

    def filled(self, name: str, size: int) -> str:
        session = self.session(name)
        self.record(session, event(text="x" * size))
        return session

    def pin(self, session: str, *, pinned: bool = True) -> state_pb2.Session:
        request = state_pb2.PinSessionRequest(session=session, pinned=pinned)
        found: state_pb2.Session = self.ask("pin_session", request).session
        return found


@pytest.fixture
def desk() -> Small:
    return Small()


def test_pins_fit_the_room_that_is_theirs(desk: Small) -> None:
    one, two = desk.filled("one", 400), desk.filled("two", 600)
    desk.pin(one)
    with pytest.raises(Exhausted, match=r"together at most 1000 are allowed.*unpin or purge one first") as refused:
        desk.pin(two)
    assert refused.value.reason == "PinsFull"
    assert not desk.ask("get_session", state_pb2.GetSessionRequest(session=two)).session.pinned
    assert desk.pin(one).pinned  # a second time is no second pin


@pytest.mark.parametrize("how", ["unpinned", "purged", "unpinned and restarted"])
def test_what_is_pinned_no_more_makes_room(desk: Small, how: str) -> None:
    one, two = desk.filled("one", 400), desk.filled("two", 600)
    desk.pin(one)
    if how == "purged":
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[one]))
    else:
        desk.pin(one, pinned=False)
    if how == "unpinned and restarted":
        desk.start()
    assert desk.pin(two).pinned


def test_a_restart_forgets_no_pin(desk: Small) -> None:
    one, two = desk.filled("one", 400), desk.filled("two", 600)
    desk.pin(one)
    desk.start()
    with pytest.raises(Exhausted):
        desk.pin(two)


def test_a_pinned_session_may_grow_beyond_it(desk: Small) -> None:
    one, two = desk.filled("one", 400), desk.filled("two", 10)
    desk.pin(one)
    assert desk.record(one, event(text="x" * 800), sent=1) == 2
    with pytest.raises(Exhausted):
        desk.pin(two)


def test_no_more_sessions_are_pinned_than_a_pin_can_look_at(desk: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinning, "PINNED_MAX", 2)
    one, two, three = (desk.session(name) for name in ("one", "two", "three"))
    desk.pin(one)
    desk.pin(two)
    with pytest.raises(Exhausted, match="2 sessions are pinned"):
        desk.pin(three)
