"""Sessions that leave a node, and what the journal says of that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from porting_desk import CHAT, HASH, exported, filled, register, told
from session_desk import START_US, Desk, event

from offgrid.reducers import Recorded
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import (
    Corrupt,
    FailedPrecondition,
)
from offgrid_node.protocol.state.sessions.blocks import decode
from offgrid_node.protocol.state.sessions.commands import DropOldest
from offgrid_node.protocol.state.sessions.tables import BLOCKS, block_key
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.sessions import exporting
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.services.sessions.reading import Reading
from offgrid_node.services.stream import Stream
from offgrid_node.storage.store import Batch


@pytest.fixture
def desk() -> Desk:
    return Desk()


class TestAnExport:
    def test_has_the_session_its_kinds_and_all_events_in_order(self, desk: Desk) -> None:
        session = filled(desk)
        head, entries = exported(desk, session)
        assert (head.node_id, head.first, head.events, head.hashed) == ("node-1", 1, 5, True)
        assert (head.session.name, [kind.kind for kind in head.kinds]) == ("run", ["health.heartbeat"])
        assert [(entry.timestamp_us, entry.frame_id) for entry in entries] == [(START_US + n, n) for n in range(5)]

    def test_of_an_empty_session_has_none(self, desk: Desk) -> None:
        head, entries = exported(desk, desk.session())
        assert (head.events, entries) == (0, [])

    def test_gives_others_their_turn_and_leaves_no_event_out(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(exporting, "TAKE_BYTES", 1)
        monkeypatch.setattr(exporting, "BLOCK_BYTES_MAX", 200)
        session = desk.session()
        desk.record(session, *(event(START_US + n, uptime_s=n) for n in range(50)))
        desk.record(session, *(event(START_US + n, uptime_s=n) for n in range(50, 60)), sent=50)
        timers = len(desk.timers)
        head, *parts = desk.ask("export_session", state_pb2.ExportSessionRequest(session=session))
        entries = [entry for part in parts for entry in decode(part.events)]
        assert [json.loads(entry.data)["uptime_s"] for entry in entries] == [*range(60)]
        assert (head.head.events, max(len(part.events) for part in parts) < 200) == (60, True)
        assert len(desk.timers) == timers

    def test_leaves_content_out_unless_it_is_asked_for(self, desk: Desk) -> None:
        desk.privacy = Privacy(raw_content=True)
        desk.start()
        register(desk, "chat.turn", CHAT)
        session = desk.session()
        desk.record(session, event(kind="chat.turn", said="to be"), event(kind="chat.turn", said=HASH, more=1))
        head, entries = exported(desk, session)
        said = [json.loads(entry.data)["said"] for entry in entries]
        assert head.hashed
        assert said[0].startswith("blake2b-256:")
        assert said[1] == HASH, "what was hashed before is not hashed again"
        head, entries = exported(desk, session, content=True)
        assert (head.hashed, json.loads(entries[0].data)["said"]) == (False, "to be")
        desk.privacy = Privacy(raw_content=True, export_content=True)
        desk.start()
        assert not exported(desk, session)[0].hashed
        assert exported(desk, session, content=False)[0].hashed

    def test_says_what_came_before_without_what_a_reducer_may_have_kept(self) -> None:
        class Newest:
            name, version = "newest", 1

            def initial(self) -> Any:
                return {}

            def apply(self, state: Any, event: Recorded) -> Any:
                return event.data

        desk = Desk()
        desk.privacy = Privacy(raw_content=True)
        desk.reducers["newest"] = Newest()
        desk.start()
        register(desk, "chat", {"type": "object", "properties": {"text": {"type": "string", "x-content": True}}})
        session = desk.session()
        for sent, text in enumerate(("secret", "more")):
            desk.record(session, event(kind="chat", text=text), sent=sent)
        for reducer in desk.reducers:
            desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session, reducer=reducer))
        desk.runtime.ask("sessions", "retention", DropOldest(3, 1_000_000, 0))
        desk.runtime.turn()

        kept = {content: exported(desk, session, content)[0] for content in (False, True)}

        assert {head.first for head in kept.values()} == {2}
        assert [base.reducer for base in kept[False].bases] == ["session"]
        assert [base.reducer for base in kept[True].bases] == ["session", "newest"]

    def test_hashes_what_another_schema_let_through(self, desk: Desk) -> None:
        desk.privacy = Privacy(raw_content=True)
        desk.start()
        register(desk, "chat.turn", {"type": "object"})
        session = desk.session()
        desk.record(session, event(kind="chat.turn", said={"deep": "secret"}))
        register(desk, "chat.turn", CHAT)
        assert b"secret" not in exported(desk, session)[1][0].data

    def test_ends_where_its_next_event_is_dropped_meanwhile(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        session = filled(desk)
        stream: Any = desk.handlers.export_session(ADMIN, state_pb2.ExportSessionRequest(session=session))
        after = Reading.after
        monkeypatch.setattr(Reading, "after", lambda self, session, at: after(self, session, at + 1))
        with pytest.raises(FailedPrecondition, match="event 1 was dropped meanwhile"):
            desk.drain(stream)

    def test_has_what_was_there_when_it_began(self, desk: Desk) -> None:
        session = filled(desk)
        stream: Any = desk.handlers.export_session(ADMIN, state_pb2.ExportSessionRequest(session=session))
        desk.record(session, event(), sent=5)
        head, *parts = desk.drain(stream)
        assert (head.head.events, sum(len(decode(part.events)) for part in parts)) == (5, 5)

    def test_is_in_the_journal_before_anything_leaves(self, desk: Desk) -> None:
        session = filled(desk)
        stream = desk.handlers.export_session(ADMIN, state_pb2.ExportSessionRequest(session=session))
        assert isinstance(stream, Stream)
        assert stream.take() == []
        desk.drain(stream)
        assert told(desk)[-1] == ("exported", "admin", 5)

    def test_ends_where_events_are_damaged_or_missing(self, desk: Desk) -> None:
        session = filled(desk)
        desk.store.commit(Batch(writes={(BLOCKS, block_key(session, 5)): None}))
        with pytest.raises(Corrupt, match="events 5 to 5 are missing"):
            exported(desk, session)

    def test_ends_where_the_session_is_shredded_meanwhile(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(exporting, "TAKE_BYTES", 1)
        session = filled(desk)
        stream: Any = desk.handlers.export_session(ADMIN, state_pb2.ExportSessionRequest(session=session))
        desk.runtime.turn()
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
        with pytest.raises(FailedPrecondition, match="was shredded"):
            desk.drain(stream)
