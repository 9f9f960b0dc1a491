"""Sessions that leave a node and come into another, and what the journal says of that."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from session_desk import START_US, Desk, event

from offgrid.reducers import STATE_BYTES_MAX, Recorded
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import (
    Corrupt,
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
)
from offgrid_node.protocol.state.sessions import machine
from offgrid_node.protocol.state.sessions.blocks import decode
from offgrid_node.protocol.state.sessions.commands import DropOldest, ForgetSessions
from offgrid_node.protocol.state.sessions.tables import BLOCKS, IMPORTS, block_key
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.sessions import auditing, exporting
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.services.sessions.reading import Reading
from offgrid_node.services.stream import Stream
from offgrid_node.storage.store import Batch

DIGEST = b"d" * 32
CHAT = {"type": "object", "properties": {"said": {"type": "string", "x-content": True}}}
HASH = "blake2b-256:" + "0" * 64


@pytest.fixture
def desk() -> Desk:
    return Desk()


def told(desk: Desk) -> list[tuple[str, str, int]]:
    """What the journal says of sessions: outcome, by whom, of how many events."""
    events = (state_pb2.Event.FromString(raw) for _, raw in desk.store.events(0))
    return [(e.session.outcome, e.session.by, e.session.events) for e in events if e.HasField("session")]


def filled(desk: Desk, count: int = 5) -> str:
    session = desk.session()
    for place in range(count):
        desk.record(session, event(START_US + place, frame=place, uptime_s=place), sent=place)
    return session


def register(desk: Desk, kind: str, schema: Any) -> None:
    desk.ask("register_kind", state_pb2.RegisterKindRequest(kind=kind, schema=json.dumps(schema).encode()))


def exported(desk: Desk, session: str, content: bool | None = None) -> tuple[state_pb2.ExportHead, list[Any]]:
    head, *parts = desk.ask("export_session", state_pb2.ExportSessionRequest(session=session, content=content))
    following, entries = head.head.first, []
    for part in parts:
        assert part.first == following
        found = decode(part.events)
        following, entries = following + len(found), entries + found
    return head.head, entries


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


def coming(events: int, name: str = "run", digest: bytes = DIGEST, **more: Any) -> state_pb2.BeginImportRequest:
    origin = state_pb2.Origin(node_id="node-0", session_id="s-there", digest=digest, first=1, events=events)
    return state_pb2.BeginImportRequest(session=state_pb2.Session(name=name, origin=origin, **more))


def bring(desk: Desk, session: str, first: int, *events: list[Any]) -> int:
    request = state_pb2.ImportEventsRequest(session=session, first=first, events=msgspec.msgpack.encode(events))
    return int(desk.ask("import_events", request).recorded)


def begun(desk: Desk, events: int = 3, **more: Any) -> str:
    return str(desk.ask("begin_import", coming(events, **more)).session.session_id)


def ended(desk: Desk, session: str) -> state_pb2.Session:
    found: state_pb2.Session = desk.ask("end_import", state_pb2.EndImportRequest(session=session)).session
    return found


class TestAnImport:
    def test_keeps_times_numbers_and_where_it_comes_from(self, desk: Desk) -> None:
        session = begun(desk, started_us=7, ended_us=9, dropped={"health.heartbeat": 4}, lost=2)
        assert bring(desk, session, 1, event(8), event(9)) == 2
        assert bring(desk, session, 3, event(10)) == 3
        whole = ended(desk, session)
        assert (whole.started_us, whole.ended_us, whole.lost, whole.dropped["health.heartbeat"]) == (7, 9, 2, 4)
        assert (whole.origin.node_id, whole.origin.session_id, whole.origin.digest) == ("node-0", "s-there", DIGEST)
        assert whole.origin.imported_us > START_US
        assert [(r.number, r.timestamp_us) for r in desk.records("run")] == [(1, 8), (2, 9), (3, 10)]
        state = desk.ask("show_state", state_pb2.ShowStateRequest(session="run"))
        assert json.loads(state.state)["events"] == 3
        assert [each for each in told(desk) if each[1]] == [("importing", "admin", 3), ("imported", "admin", 3)]

    def test_that_was_open_where_it_comes_from_ends_with_its_newest_event(self, desk: Desk) -> None:
        session = begun(desk, started_us=7)
        bring(desk, session, 1, event(8), event(9), event(9))
        assert ended(desk, session).ended_us == 9

    def test_of_the_same_digest_is_answered_with_the_session_that_it_became(self, desk: Desk) -> None:
        session = begun(desk)
        bring(desk, session, 1, event(), event(), event())
        whole = ended(desk, session)
        keys = [*desk.keys]
        again = desk.ask("begin_import", coming(3)).session
        assert (again, [*desk.keys]) == (whole, keys)
        assert ended(desk, session) == whole
        assert begun(desk, digest=b"e" * 32) != session

    def test_goes_on_where_it_was_left(self, desk: Desk) -> None:
        session = begun(desk)
        bring(desk, session, 1, event(), event())
        desk.start()
        again = desk.ask("begin_import", coming(3)).session
        assert (again.session_id, again.recorded, again.origin.imported_us) == (session, 2, 0)
        bring(desk, session, 3, event())
        assert ended(desk, session).recorded == 3

    def test_takes_a_block_that_comes_twice_once(self, desk: Desk) -> None:
        session = begun(desk)
        assert [bring(desk, session, 1, event(), event()) for _ in range(2)] == [2, 2]
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session=session)).session.recorded == 2

    @pytest.mark.parametrize(
        ("first", "count", "said"),
        [(3, 1, "event 2 .* comes next, and not event 3"), (2, 3, "is to have 3 events"), (1, 2, "recorded")],
    )
    def test_takes_no_gap_nor_more_than_there_are_to_be(self, desk: Desk, first: int, count: int, said: str) -> None:
        session = begun(desk)
        bring(desk, session, 1, event())
        with pytest.raises(Fault, match=said):
            bring(desk, session, first, *[event()] * count)

    def test_that_is_half_is_never_taken_for_a_whole_one(self, desk: Desk) -> None:
        session = begun(desk)
        bring(desk, session, 1, event(), event())
        asked: list[Callable[[], object]] = [
            lambda: desk.records(session),
            lambda: exported(desk, session),
            lambda: desk.ask("show_state", state_pb2.ShowStateRequest(session=session)),
            lambda: desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session)),
            lambda: desk.ask("end_session", state_pb2.EndSessionRequest(session=session)),
            lambda: desk.record(session, event()),
            lambda: ended(desk, session),
        ]
        for ask in asked:
            with pytest.raises(FailedPrecondition, match="2 of 3 events have been imported") as caught:
                ask()
            assert caught.value.reason == "SessionImporting"
        listed = desk.ask("list_sessions", state_pb2.ListSessionsRequest()).sessions
        assert (listed[0].ended_us, listed[0].origin.imported_us) == (0, 0)

    def test_that_is_half_can_be_purged_and_begun_anew(self, desk: Desk) -> None:
        session = begun(desk)
        bring(desk, session, 1, event())
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
        other = begun(desk)
        assert other != session
        bring(desk, other, 1, event(), event(), event())
        assert ended(desk, other).recorded == 3

    def test_that_was_purged_and_forgotten_can_be_begun_anew(self, desk: Desk) -> None:
        before = begun(desk)
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[before]))
        desk.wait(1)
        desk.runtime.ask("sessions", "retention", ForgetSessions((before,)))
        desk.runtime.turn()
        assert not [*desk.store.scan(IMPORTS)]

        assert begun(desk) != before

    def test_whose_key_is_lost_begins_anew(self, desk: Desk) -> None:
        session = begun(desk)
        bring(desk, session, 1, event())
        desk.keys.drop([session])
        other = begun(desk)
        assert other != session
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session=session)).session.ended_us

    def test_does_not_take_the_name_of_a_session_that_is_open(self, desk: Desk) -> None:
        here = desk.session("run")
        session = begun(desk, events=0)
        ended(desk, session)
        assert desk.session("run") == here
        desk.ask("end_session", state_pb2.EndSessionRequest(session=here))
        other = begun(desk, events=0, digest=b"e" * 32)
        ended(desk, other)
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session="run")).session.session_id == other

    def test_checks_each_event_against_its_kind(self, desk: Desk) -> None:
        session = begun(desk)
        with pytest.raises(InvalidRequest) as caught:
            bring(desk, session, 1, event(), event(status="fine"))
        (violation,) = caught.value.violations
        assert violation.field == "events[1]/status"

    def test_takes_content_as_this_node_may_have_it(self, desk: Desk) -> None:
        register(desk, "chat.turn", CHAT | {"properties": {"said": CHAT["properties"]["said"] | {"maxLength": 9}}})
        session = begun(desk, 2)
        with pytest.raises(InvalidRequest):
            bring(desk, session, 1, event(kind="chat.turn", said="to be"))
        bring(desk, session, 1, event(kind="chat.turn", said=HASH))
        desk.privacy = Privacy(raw_content=True)
        desk.start()
        bring(desk, session, 2, event(kind="chat.turn", said="to be"))
        other = begun(desk, 2, digest=b"e" * 32)
        bring(desk, other, 1, event(kind="chat.turn", said=HASH))
        with pytest.raises(InvalidRequest):
            bring(desk, other, 2, event(kind="chat.turn", said="too long by far"))

    def test_counts_as_open_until_it_is_whole(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "OPEN_MAX", 1)
        session = begun(desk, events=0)
        keys = [*desk.keys]
        with pytest.raises(Exhausted):
            begun(desk, digest=b"e" * 32)
        assert [*desk.keys] == keys, "the key that was made for it is gone"
        ended(desk, session)
        desk.session("other")

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": ""}, "session.name"),
            ({"digest": b"short"}, "session.origin.digest"),
            ({"started_us": -1}, "session.started_us"),
            ({"lost": 1 << 60}, "session.lost"),
            ({"events": 1 << 60}, "session.origin.events"),
            ({"dropped": {"no.such": 1}}, "dropped[no.such]"),
        ],
    )
    def test_says_what_is_wrong_with_it(self, desk: Desk, change: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            begun(desk, **change)
        assert [violation.field for violation in caught.value.violations] == [field]

    @pytest.mark.parametrize(
        ("first", "change", "field"),
        [
            (0, {}, "session.origin.first"),
            (1, {}, "bases[0].number"),
            (5, {"number": 3}, "bases[0].number"),
            (5, {"number": 8}, "bases[0].number"),
            (5, {"reducer": ""}, "bases[0].reducer"),
            (5, {"state": b"\xc1"}, "bases[0].state"),
            (5, {"state": b"\0" * (STATE_BYTES_MAX + 1)}, "bases[0].state"),
        ],
    )
    def test_says_what_is_wrong_with_what_came_before(
        self, desk: Desk, first: int, change: dict[str, Any], field: str
    ) -> None:
        request = coming(3)
        request.session.origin.first = first
        request.bases.add(**{"reducer": "session", "version": 1, "number": 5, "state": b"\x80"} | change)
        with pytest.raises(InvalidRequest) as caught:
            desk.ask("begin_import", request)
        assert [violation.field for violation in caught.value.violations] == [field]

    def test_is_none_of_a_session_that_was_recorded_here(self, desk: Desk) -> None:
        session = desk.session()
        for ask in (lambda: bring(desk, session, 1, event()), lambda: ended(desk, session)):
            with pytest.raises(FailedPrecondition, match="none that is imported"):
                ask()


class TestAudited:
    @pytest.fixture
    def desk(self) -> Desk:
        desk = Desk()
        desk.privacy = Privacy(audit=True)
        desk.start()
        return desk

    def test_states_that_are_shown_are_told_of(self, desk: Desk) -> None:
        session = filled(desk)
        desk.ask("show_state", state_pb2.ShowStateRequest(session=session, number=3))
        assert told(desk)[-1] == ("shown", "admin", 3)

    def test_a_reading_is_told_of_a_few_times_and_for_no_less_than_it_was(self, desk: Desk) -> None:
        session = filled(desk, 100)
        before = len(told(desk))
        assert len(desk.records(session, page_size=3)) == 100
        said = [events for outcome, _, events in told(desk)[before:] if outcome == "read"]
        assert (said[0], len(said)) == (3, 7)
        assert 100 <= sum(said) < 200

    def test_a_page_alone_is_told_of_exactly(self, desk: Desk) -> None:
        session = filled(desk, 4)
        desk.records(session, kinds=["user.prompt"])
        desk.records(session)
        assert [events for outcome, _, events in told(desk) if outcome == "read"] == [4]

    def test_a_page_that_nobody_announced_is_told_of_anew(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(auditing, "LISTS_MAX", 0)
        session = filled(desk, 9)
        desk.records(session, page_size=2)
        assert [events for outcome, _, events in told(desk) if outcome == "read"] == [2, 2, 2, 2, 1]

    def test_nothing_is_told_of_readings_unless_it_is_asked_for(self) -> None:
        desk = Desk()
        session = filled(desk)
        desk.records(session)
        desk.ask("show_state", state_pb2.ShowStateRequest(session=session))
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
        assert told(desk) == [("started", "", 0), ("ended", "", 0), ("purged", "admin", 5)]
