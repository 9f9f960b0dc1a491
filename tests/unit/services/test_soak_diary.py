"""The audit of `soak state-kills`: one that finds nothing wrong where something is proves nothing."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from session_desk import START_US, Desk
from test_porting_client import DeskCalls

from offgrid.client import Client
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.state.sessions.tables import BLOCKS, PURGING, SESSIONS, SNAPSHOTS, block_key
from offgrid_node.storage.format import CURSOR_KEY, FORMAT_KEY, STORE, format_of, format_row
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.session_keys import SESSION_KEYS, SessionKeys
from offgrid_node.storage.store import Batch
from offgrid_tools.soak.diary import Diary
from offgrid_tools.soak.marked_node import phases_of
from offgrid_tools.soak.old_form import BEFORE, MADE_UP, PORTION

EVENTS = 6


class World:
    """A desk, and a diary of one session of it: a block for each event."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.client = cast("Client", SimpleNamespace(sessions=DeskCalls(self.desk).sessions()))
        self.session = self.desk.session()
        self.diary = Diary(Random(1))
        self.page = self.diary.begin(self.session, "run")
        for sent in range(EVENTS):
            said = self.page.said.next(Random(sent), START_US + sent)
            self.record(
                [said.timestamp_us, said.kind, said.frame_id, said.energy_delta, json.dumps(said.data).encode()]
            )
        self.page.durable = EVENTS

    def record(self, event: list[Any]) -> None:
        sent = self.desk.ask("get_session", state_pb2.GetSessionRequest(session=self.session)).session.recorded
        self.desk.record(self.session, event, sent=sent)

    def change(self, change: dict[str, Any]) -> None:
        """Of the session's row."""
        row = state_pb2.SessionRow.FromString(self.desk.store.get(SESSIONS, self.session.encode()) or b"")
        for name, value in change.items():
            setattr(row.session, name, value)
        self.desk.store.commit(Batch(writes={(SESSIONS, self.session.encode()): row.SerializeToString()}))

    def found(self) -> str:
        return "; ".join(self.diary.check(self.client))


@pytest.fixture
def world() -> World:
    return World()


class TestADiary:
    def test_finds_nothing_where_nothing_is_wrong(self, world: World) -> None:
        assert world.found() == ""
        world.page.said.next(Random(9), START_US)
        assert world.found() == "", "what nobody has answered for may be there or not"
        world.page.purging = True
        assert world.found() == "", "a purge that was not answered may have come to be or not"
        world.desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[world.session]))
        world.page.purged = True
        assert world.found() == ""

    def test_misses_what_was_answered_for(self, world: World) -> None:
        world.page.durable = EVENTS + 1
        assert "7 events were answered for, 6 are recorded" in world.found()

    def test_knows_what_was_never_sent_or_is_another(self, world: World) -> None:
        events = world.page.said.events
        events[3] = events[3]._replace(timestamp_us=1)
        assert "event 4 is" in world.found()
        world.page.said.events = events[:5]
        assert "5 events were sent, 6 are recorded" in world.found()

    def test_knows_an_event_that_is_there_twice(self, world: World) -> None:
        said = world.page.said.events[EVENTS - 1]
        world.record([said.timestamp_us, said.kind, said.frame_id, said.energy_delta, json.dumps(said.data).encode()])
        world.page.said.next(Random(9), START_US)
        assert "event 7 is" in world.found()

    def test_knows_a_state_that_is_not_what_the_events_come_to(self, world: World) -> None:
        snapshot = world.client.sessions.snapshot(world.session)
        assert snapshot == EVENTS
        world.desk.start()
        world.page.said.events[0] = world.page.said.events[0]._replace(kind="another")
        assert "its state is not what 6 events come to" in "; ".join(world.page._check_state(world.client, EVENTS))

    def test_knows_what_is_kept_and_cannot_be_read(self, world: World) -> None:
        assert "of 7 events, 6 kept, the last" in "; ".join(world.page._check_records(world.client, EVENTS + 1))

    def test_knows_a_purge_that_was_answered_and_did_not_last(self, world: World) -> None:
        world.page.purging = world.page.purged = True
        assert world.found() == "run: its purge was answered, and it is not purged"
        world.page.purging = world.page.purged = False
        assert world.found() == ""
        world.change({"purged_us": 1, "ended_us": 1})
        assert world.found() == "run was open and is purged, and nobody has asked for that"

    def test_finds_a_word_or_a_key_of_what_was_shredded_in_any_file(self, world: World, tmp_path: Path) -> None:
        data = tmp_path / "data"
        data.mkdir()
        SessionKeys(data / SESSION_KEYS).add(world.session, b"k" * 32)
        world.diary.see_keys(data)
        assert world.diary.find_shredded([tmp_path]) == []
        world.page.purged = True
        assert world.diary.find_shredded([tmp_path]) == [f"{data / SESSION_KEYS}: something of run, which was purged"]
        (data / SESSION_KEYS).write_bytes(b"..PLANTED-run-4-..")
        assert len(world.diary.find_shredded([tmp_path])) == 1


def test_a_batch_is_told_by_what_is_in_it() -> None:
    assert phases_of(Batch(writes={(BLOCKS, b"k"): b"v", (SNAPSHOTS, b"k"): None})) == ["append"]
    assert phases_of(Batch(writes={(PURGING, b"k"): None}, floor=1)) == ["purge", "retention"]


def test_the_form_of_old_is_left_row_by_row_and_never_twice() -> None:
    store, count = MemoryStore(), 2 * PORTION + 1
    keys = [(BLOCKS, block_key("s-1", number)) for number in range(count)] + [(SESSIONS, b"s-1"), (SESSIONS, b"s-2")]
    store.commit(Batch(writes=dict.fromkeys(keys, BEFORE + b"row") | {(STORE, FORMAT_KEY): format_row(0)}))
    place = b""
    while True:
        batch, behind = MADE_UP[0].portion(store, place)
        assert len(batch.writes) <= PORTION
        store.commit(batch)
        if behind is None:
            break
        place = behind
    assert {store.get(*key) for key in keys} == {b"row"}
    with pytest.raises(Corrupt, match="led on twice"):
        MADE_UP[0].portion(store, b"")
    assert (format_of(store), store.get(STORE, CURSOR_KEY)) == (0, None)
