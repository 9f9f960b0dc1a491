"""Keys are dropped where a slow disk holds nobody up: what is so before, meanwhile, and where the process dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from session_desk import Desk, event

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import FailedPrecondition, Unavailable
from offgrid_node.protocol.state.sessions.tables import BLOCKS, PURGING
from offgrid_node.runtime import Ticket
from offgrid_node.services.bulk import Ended
from offgrid_node.services.caller import ADMIN


class SlowDesk(Desk):
    """Whose disk does nothing before it `works`."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        super().__init__()

    def carry(self, work: Callable[[], Any], ended: Ended) -> None:
        self.waiting.append(lambda: ended(work()))

    def work(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()
            self.runtime.turn()

    def restart(self) -> None:
        self.waiting.clear()
        self.start()
        self.handlers.shredding.start()

    def purge(self, session: str) -> Ticket:
        ticket = self.handlers.purge_sessions(ADMIN, state_pb2.PurgeSessionsRequest(sessions=[session]))
        self.runtime.turn()
        return ticket


@pytest.fixture
def desk() -> SlowDesk:
    return SlowDesk()


def is_left(desk: SlowDesk, session: str) -> tuple[bool, int]:
    """Its key, and rows."""
    return session in desk.keys, sum(1 for table in (BLOCKS, PURGING) for _ in desk.store.scan(table))


def test_whoever_asks_is_answered_once_the_key_is_gone(desk: SlowDesk) -> None:
    session = desk.session()
    desk.record(session, event(), event())
    purging = desk.purge(session)
    assert (purging.outcome, session in desk.keys) == (None, True)
    desk.work()
    assert isinstance(purging.outcome, state_pb2.PurgeSessionsResponse)
    assert (purging.outcome.events, is_left(desk, session)) == (2, (False, 0))


def test_meanwhile_the_session_is_shredded_to_everybody_and_others_go_on(desk: SlowDesk) -> None:
    session, other = desk.session("one"), desk.session("two")
    desk.record(session, event())
    desk.purge(session)
    for ask in (lambda: desk.record(session, event(), sent=1), lambda: desk.records(session)):
        with pytest.raises(FailedPrecondition, match="shredded"):
            ask()
    assert desk.record(other, event()) == 1
    assert desk.session("one") != session


def test_who_dies_before_the_key_is_gone_drops_it_at_the_next_start(desk: SlowDesk) -> None:
    session = desk.session()
    desk.record(session, event())
    desk.purge(session)
    desk.restart()
    desk.work()
    assert is_left(desk, session) == (False, 0)


def test_a_disk_that_keeps_the_key_is_told_of_and_asked_again(desk: SlowDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(session_ids: Any) -> None:
        raise Unavailable("the folder of backups is away", reason="DiskError")

    session = desk.session()
    desk.record(session, event())
    with monkeypatch.context() as patch:
        patch.setattr(desk.keys, "drop", refuse)
        purging = desk.purge(session)
        desk.work()
    assert isinstance(purging.outcome, Unavailable)
    assert session in desk.keys
    again = desk.purge(session)
    desk.work()
    assert isinstance(again.outcome, state_pb2.PurgeSessionsResponse)
    assert is_left(desk, session) == (False, 0)
