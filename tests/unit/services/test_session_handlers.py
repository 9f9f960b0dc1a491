"""Sessions as applications use them: started, recorded into, read back, ended; and what is refused."""

from __future__ import annotations

import json

import pytest
from session_desk import START_US, Desk, event

from offgrid.kinds import DATA_BYTES_MAX, FRAME_MAX, KNOWN
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import (
    Corrupt,
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.state.sessions import machine, writers
from offgrid_node.protocol.state.sessions.blocks import EVENTS_MAX
from offgrid_node.protocol.state.sessions.tables import BLOCKS, KINDS, block_key
from offgrid_node.protocol.state.sessions.writers import COUNT_MAX
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.sessions import handlers
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.services.sessions.shredding import ORPHAN_MS
from offgrid_node.storage.store import Batch


@pytest.fixture
def desk() -> Desk:
    return Desk()


def numbers(found: list[state_pb2.Record]) -> list[int]:
    return [record.number for record in found]


class TestASession:
    def test_is_found_again_by_its_name_while_it_is_open(self, desk: Desk) -> None:
        first = desk.ask("start_session", state_pb2.StartSessionRequest(name="run"))
        again = desk.ask("start_session", state_pb2.StartSessionRequest(name="run"))
        assert (first.resumed, again.resumed) == (False, True)
        assert again.session == first.session
        ended = desk.ask("end_session", state_pb2.EndSessionRequest(session="run")).session
        assert ended.ended_us > ended.started_us
        other = desk.session("run")
        assert other != ended.session_id
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session="run")).session.session_id == other

    def test_that_has_ended_stays_so(self, desk: Desk) -> None:
        session = desk.session()
        ended = desk.ask("end_session", state_pb2.EndSessionRequest(session=session))
        assert desk.ask("end_session", state_pb2.EndSessionRequest(session=session)) == ended
        with pytest.raises(FailedPrecondition, match="has ended") as caught:
            desk.record(session, event())
        assert caught.value.reason == "SessionEnded"

    def test_is_found_by_its_name_after_its_end_until_another_has_it(self, desk: Desk) -> None:
        session = desk.session()
        desk.record(session, event())
        desk.ask("end_session", state_pb2.EndSessionRequest(session="run"))
        assert len(desk.records("run")) == 1
        other = desk.session("run")
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session="run")).session.session_id == other
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session=session)).session.recorded == 1

    def test_that_ends_while_another_is_started_is_started_again(self, desk: Desk) -> None:
        """What is in the inbox comes first: nobody gets a session without a key."""
        session = desk.session()
        ended = desk.handlers.end_session(ADMIN, state_pb2.EndSessionRequest(session=session))
        started = desk.handlers.start_session(ADMIN, state_pb2.StartSessionRequest(name="run"))
        desk.runtime.turn()
        assert isinstance(ended.outcome, state_pb2.EndSessionResponse)
        assert isinstance(started.outcome, Unavailable)
        assert desk.keys.get(desk.session()) is not None

    def test_whose_key_is_lost_gives_its_name_to_another(self, desk: Desk) -> None:
        session = desk.session()
        desk.keys.drop([session])
        other = desk.session()
        assert other != session
        assert desk.record(other, event()) == 1
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session=session)).session.ended_us

    def test_counts_what_was_recorded_and_what_its_writers_dropped(self, desk: Desk) -> None:
        session = desk.session()
        desk.record(session, event(START_US + 5), event(kind="energy.update", energy=1, accumulator=2))
        desk.record(session, event(), sent=2, energy_update=3)
        desk.record(session, event(), sent=3, energy_update=7)
        desk.record(session, event(), writer=b"writer-2", energy_update=1)
        told = desk.ask("get_session", state_pb2.GetSessionRequest(session="run")).session
        assert (told.recorded, told.kept, told.newest_us) == (5, 5, START_US + 5)
        assert told.kinds == {"health.heartbeat": 4, "energy.update": 1}
        assert told.dropped == {"energy.update": 8}, "each writer says how many so far"
        assert told.bytes == sum(len(state_pb2.BlockRow.FromString(row).sealed) for _, row in desk.store.scan(BLOCKS))

    def test_is_listed_newest_first_page_by_page(self, desk: Desk) -> None:
        made = [desk.session(f"run {number}") for number in range(5)]
        desk.ask("end_session", state_pb2.EndSessionRequest(session=made[3]))
        found, token = list[str](), ""
        while True:
            page = desk.ask("list_sessions", state_pb2.ListSessionsRequest(page_size=2, page_token=token))
            found += [session.session_id for session in page.sessions]
            if not (token := page.next_page_token):
                break
        assert found == made[::-1]
        for request, wanted in (
            (state_pb2.ListSessionsRequest(open_only=True), [made[n] for n in (4, 2, 1, 0)]),
            (state_pb2.ListSessionsRequest(name="run 2"), [made[2]]),
        ):
            assert [session.session_id for session in desk.ask("list_sessions", request).sessions] == wanted

    def test_too_many_at_once_are_refused(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "OPEN_MAX", 2)
        desk.session("a")
        desk.session("b")
        with pytest.raises(Exhausted, match="2 sessions are open"):
            desk.session("c")
        desk.start()
        with pytest.raises(Exhausted):
            desk.session("c")
        desk.ask("end_session", state_pb2.EndSessionRequest(session="a"))
        desk.session("c")

    @pytest.mark.parametrize("name", ["", "a" * 257, "\U0001f680" * 65, "a\nb", "s-" + "a" * 24])
    def test_needs_a_name(self, desk: Desk, name: str) -> None:
        with pytest.raises(InvalidRequest, match="name: "):
            desk.session(name)

    def test_that_there_is_not_is_named(self, desk: Desk) -> None:
        with pytest.raises(NotFound, match="'nothing'"):
            desk.record("nothing", event())


class TestEvents:
    def test_come_back_as_they_were_given(self, desk: Desk) -> None:
        session = desk.session()
        data = b'{"models_involved": ["a"],  "interference_type": "x", "strength": 1e-7}'
        desk.record(session, [START_US, "pattern.interference", 17, -0.25, data], event(START_US + 1))
        first, second = desk.records(session)
        assert (first.number, first.kind, first.timestamp_us) == (1, "pattern.interference", START_US)
        assert (first.frame_id, first.energy_delta, first.data) == (17, -0.25, data)
        assert not second.HasField("frame_id")
        assert not second.HasField("energy_delta")

    def test_are_in_the_journal_and_survive_a_kill(self, desk: Desk) -> None:
        session = desk.session()
        assert desk.record(session, event(), event()) == 1
        desk.start()
        assert desk.record(session, event(), sent=2) == 3
        assert numbers(desk.records(session)) == [1, 2, 3]
        told = [state_pb2.Event.FromString(raw) for _, raw in desk.store.events()]
        assert {each.etype for each in told} == {EventType.SESSION_CHANGED}
        assert [(each.block.first, each.block.count) for each in told if each.HasField("block")] == [(1, 2), (3, 1)]

    def test_sent_again_are_recorded_once(self, desk: Desk) -> None:
        session = desk.session()
        for _ in range(2):
            assert desk.record(session, event(), event()) == 1
        assert desk.record(session, event(), sent=2) == 3
        desk.start()
        assert desk.record(session, event(), sent=2) == 3
        assert len(desk.records(session)) == 3
        with pytest.raises(InvalidRequest, match="3 of this writer's are recorded"):
            desk.record(session, event(), sent=1)

    def test_of_several_writers_are_told_apart_and_only_so_many_remembered(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writers, "WRITERS_MAX", 3)
        session = desk.session()
        for number in range(4):
            desk.record(session, event(), writer=number.to_bytes(8, "big"), energy_update=5)
        assert desk.record(session, event(), writer=(1).to_bytes(8, "big"), energy_update=5) == 2, "it is remembered"
        told = desk.ask("get_session", state_pb2.GetSessionRequest(session=session)).session
        assert (told.recorded, told.dropped, told.lost) == (4, {"energy.update": 20}, 0)
        desk.record(session, event(), writer=bytes(8), sent=1, energy_update=6)
        told = desk.ask("get_session", state_pb2.GetSessionRequest(session=session)).session
        assert (told.recorded, told.dropped, told.lost) == (5, {"energy.update": 20}, 0), "it is taken at its word"

    def test_that_a_store_put_back_has_lost_are_counted(self, desk: Desk) -> None:
        session = desk.session()
        desk.record(session, event(), event())
        desk.record(session, event(), sent=5)
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session=session)).session.lost == 3

    def test_dropped_are_bounded_in_kinds_and_number(self, desk: Desk) -> None:
        session = desk.session()
        with pytest.raises(InvalidRequest, match=r"dropped\[no.such\]: not known here"):
            desk.record(session, event(), no_such=1)
        with pytest.raises(InvalidRequest, match="at most"):
            desk.record(session, event(), energy_update=COUNT_MAX + 1)
        request = state_pb2.RecordEventsRequest(session=session, writer=bytes(8))
        request.figures.refused.update({f"kind-{number}": 1 for number in range(machine.KINDS_MAX + 1)})
        with pytest.raises(InvalidRequest, match=r"figures\.refused: 257 kinds; at most 256 are allowed"):
            desk.ask("record_events", request)
        for number in range(5):
            desk.record(session, event(), writer=number.to_bytes(8, "big"), energy_update=COUNT_MAX)
        told = desk.ask("get_session", state_pb2.GetSessionRequest(session=session)).session
        assert told.dropped["energy.update"] == COUNT_MAX

    def test_sent_again_after_the_end_are_answered_as_before(self, desk: Desk) -> None:
        session = desk.session()
        assert desk.record(session, event()) == 1
        desk.ask("end_session", state_pb2.EndSessionRequest(session=session))
        assert desk.record(session, event()) == 1
        with pytest.raises(FailedPrecondition, match="has ended"):
            desk.record(session, event(), sent=1)

    def test_are_found_by_kind_time_number_and_frame_both_ways(self, desk: Desk) -> None:
        session = desk.session()
        for number in range(1, 31):
            kind = "energy.update" if number % 3 == 0 else "health.heartbeat"
            data = {"energy": 1, "accumulator": number} if number % 3 == 0 else {}
            desk.record(session, event(START_US + number, kind, number // 5, **data), sent=number - 1)
        for newest_first in (False, True):

            def found(**asked: object) -> list[int]:
                listed = numbers(desk.records(session, page_size=4, newest_first=newest_first, **asked))  # noqa: B023
                return listed[::-1] if newest_first else listed  # noqa: B023

            assert found() == [*range(1, 31)]
            assert found(kinds=["energy.update"]) == [*range(3, 31, 3)]
            assert found(since_us=START_US + 10, until_us=START_US + 12) == [10, 11, 12]
            assert found(until_number=7) == [*range(1, 8)]
            assert found(until_number=10, kinds=["energy.update"]) == [3, 6, 9]
            assert found(until_number=99) == [*range(1, 31)]
            assert found(frame_id=2) == [10, 11, 12, 13, 14]
            assert found(frame_id=2, kinds=["energy.update"]) == [12]
            assert found(kinds=["user.prompt"]) == []

    def test_of_a_rare_kind_cost_bounded_pages(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handlers, "SCAN_BLOCKS_MAX", 3)
        session = desk.session()
        for number in range(10):
            kind, data = ("energy.update", {"energy": 1, "accumulator": 1}) if number == 7 else ("health.heartbeat", {})
            desk.record(session, event(START_US, kind, **data), sent=number)
        page = desk.ask("list_records", state_pb2.ListRecordsRequest(session=session, kinds=["energy.update"]))
        assert (len(page.records), bool(page.next_page_token)) == (0, True)
        for newest_first in (False, True):
            assert numbers(desk.records(session, kinds=["energy.update"], newest_first=newest_first)) == [8]

    def test_that_are_not_looked_at_cost_bounded_pages_too(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        session = desk.session()
        for number in range(20):
            desk.record(session, event(START_US + number, filling="x" * 1_000), sent=number)
        monkeypatch.setattr(handlers, "SCAN_BYTES_MAX", 1_000)
        request = state_pb2.ListRecordsRequest(session=session, since_us=START_US + 19)
        page = desk.ask("list_records", request)
        assert (len(page.records), bool(page.next_page_token)) == (0, True)
        assert numbers(desk.records(session, since_us=START_US + 19)) == [20]

    def test_that_break_a_rule_are_refused_with_the_path_and_nothing_is_recorded(self, desk: Desk) -> None:
        session, good = desk.session(), event()
        for wrong, said in (
            (event(kind="energy.update", energy="x", accumulator=1), r"events\[1\]/energy: energy.update: .*number"),
            (
                event(kind="user.prompt", prompt_id="p", hash="0" * 32, length=1, text="s"),
                r"events\[1\]: user.prompt: ",
            ),
            (event(kind="no.such"), r"events\[1\]/kind: no.such: not known here: energy.update, "),
            ([START_US, "health.heartbeat", None, None, b"[1]"], r"events\[1\]: .*an object is needed"),
            ([START_US, "health.heartbeat", None, None, b"{"], r"events\[1\].data: no JSON"),
            ([-1, "health.heartbeat", None, None, b"{}"], r"events\[1\].timestamp_us: .* >= 0"),
            ([START_US, "health.heartbeat", -1, None, b"{}"], r"events\[1\].frame_id: .* >= 0"),
            ([START_US, "health.heartbeat", FRAME_MAX, None, b"{}"], rf"events\[1\].frame_id: .* <= {FRAME_MAX - 1}$"),
            ([START_US, "health.heartbeat", None, float("nan"), b"{}"], r"events\[1\].energy_delta: .*`float`"),
            ([START_US, "health.heartbeat", None, 2e15, b"{}"], r"events\[1\].energy_delta: .* <= 1000000"),
            ([START_US, "health.heartbeat", None, None, b"[" * 60_000], r"events\[1\].data: no JSON"),
            (event(text="x" * DATA_BYTES_MAX), rf"events\[1\].data: .* <= {DATA_BYTES_MAX}$"),
            ([START_US, "health.heartbeat"], r"events\[1\]: .* of length 5, got 2"),
            (["now", "health.heartbeat", None, None, b"{}"], r"events\[1\].timestamp_us: .*got `str`"),
        ):
            with pytest.raises(InvalidRequest, match=said):
                desk.record(session, good, wrong)
        with pytest.raises(InvalidRequest, match="1001 events"):
            desk.record(session, *[good] * (EVENTS_MAX + 1))
        with pytest.raises(InvalidRequest, match="0 events"):
            desk.record(session)
        with pytest.raises(InvalidRequest, match="writer: 3 bytes"):
            desk.record(session, good, writer=b"abc")
        assert desk.records(session) == []

    def test_a_token_of_another_list_is_refused(self, desk: Desk) -> None:
        session = desk.session()
        desk.record(session, event(), event(), event())
        request = state_pb2.ListRecordsRequest(session=session, page_size=1)
        token = desk.ask("list_records", request).next_page_token
        with pytest.raises(InvalidRequest, match="other filters"):
            desk.ask("list_records", state_pb2.ListRecordsRequest(session=session, page_token=token, newest_first=True))


class TestWhatTheySay:
    def test_is_nowhere_in_clear(self, desk: Desk) -> None:
        session = desk.session()
        desk.record(session, event(marker="PLANTED-7261"))
        assert json.loads(desk.records(session)[0].data) == {"marker": "PLANTED-7261"}
        rows = [value for table in desk.store.tables for _, value in desk.store.scan(table)]
        assert not any(b"PLANTED" in value for value in (*rows, *(raw for _, raw in desk.store.events())))

    def test_is_gone_with_the_key(self, desk: Desk) -> None:
        session = desk.session()
        desk.record(session, event())
        desk.keys.drop([session])
        for ask in (desk.records, lambda each: desk.record(each, event(), sent=1)):
            with pytest.raises(FailedPrecondition) as caught:
                ask(session)
            assert caught.value.reason == "SessionKeyless"

    def test_passes_for_no_other_sessions(self, desk: Desk) -> None:
        one, other = desk.session("one"), desk.session("other")
        desk.record(one, event())
        row = desk.store.get(BLOCKS, block_key(one, 1))
        desk.store.commit(Batch(writes={(BLOCKS, block_key(other, 1)): row}))
        desk.keys.add(other, desk.keys.get(one) or b"")
        with pytest.raises(Corrupt, match="does not open"):
            desk.records(other)

    def test_that_is_missing_or_has_changed_places_is_named(self, desk: Desk) -> None:
        session = desk.session()
        for number in range(3):
            desk.record(session, event(START_US + number), sent=number)
        one, two = (desk.store.get(BLOCKS, block_key(session, number)) for number in (1, 2))
        swapped = {(BLOCKS, block_key(session, 1)): two, (BLOCKS, block_key(session, 2)): one}
        for number, said in ((1, "events 1 to 1"), (2, "events 2 to 2"), (3, "events 3 to 3")):
            row = desk.store.get(BLOCKS, block_key(session, number))
            desk.store.commit(Batch(writes={(BLOCKS, block_key(session, number)): None}))
            for newest_first in (False, True):
                with pytest.raises(Corrupt, match=f"{said} are missing"):
                    desk.records(session, newest_first=newest_first)
            desk.store.commit(Batch(writes={(BLOCKS, block_key(session, number)): row}))
        desk.store.commit(Batch(writes=swapped))
        for newest_first in (False, True):
            with pytest.raises(Corrupt, match=r"the block at event . says that it begins at event"):
                desk.records(session, newest_first=newest_first)

    def test_that_is_damaged_is_named_and_never_given(self, desk: Desk) -> None:
        session = desk.session()
        desk.record(session, event(), event())
        row = state_pb2.BlockRow.FromString(desk.store.get(BLOCKS, block_key(session, 1)) or b"")
        for sealed in (row.sealed[:-1], row.sealed[:10], bytes(len(row.sealed))):
            damaged = state_pb2.BlockRow(first=1, count=2, last_us=row.last_us, sealed=sealed).SerializeToString()
            desk.store.commit(Batch(writes={(BLOCKS, block_key(session, 1)): damaged}))
            with pytest.raises(Corrupt, match=session):
                desk.records(session)


def test_no_key_is_left_of_a_session_that_was_not_started(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "OPEN_MAX", 1)
    session = desk.session("a")
    with pytest.raises(Exhausted):
        desk.session("b")
    desk.session("a")
    assert [*desk.keys] == [session]


def test_a_key_of_no_session_stays_while_the_store_may_be_an_old_one(desk: Desk) -> None:
    """A crash came between key and session; or the store was put back from before the session."""
    orphan = desk.session("a")
    for table in desk.store.tables:
        for key, _ in [*desk.store.scan(table)]:
            desk.store.commit(Batch(writes={(table, key): None}))
    desk.start()
    desk.handlers.shredding.start()
    assert [*desk.keys] == [orphan]
    desk.wait(2 * ORPHAN_MS)
    younger = desk.session("b")
    desk.handlers.shredding.start()
    assert [*desk.keys] == [younger]


def test_a_commit_of_which_nobody_knows_whether_it_came_leaves_the_key(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = desk.store.commit

    def in_doubt(batch: Batch) -> int:
        commit(batch)
        raise Unavailable("the disk says nothing")

    with monkeypatch.context() as broken:
        broken.setattr(desk.store, "commit", in_doubt)
        with pytest.raises(Fault):
            desk.session()
    desk.start()
    assert desk.record(desk.session(), event()) == 1


@pytest.mark.parametrize("refuses", [Exhausted("full"), Unavailable("loading")])
def test_a_start_that_nobody_heard_leaves_no_key(desk: Desk, monkeypatch: pytest.MonkeyPatch, refuses: Fault) -> None:
    def ask(*args: object, **more: object) -> None:
        raise refuses

    monkeypatch.setattr(desk.runtime, "ask", ask)
    with pytest.raises(type(refuses)):
        desk.session()
    assert [*desk.keys] == []


def test_a_key_that_cannot_be_kept_starts_no_session(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(session_id: str, key: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(desk.keys, "add", refuse)
    with pytest.raises(OSError, match="disk full"):
        desk.session()
    assert desk.ask("list_sessions", state_pb2.ListSessionsRequest()).sessions == []


class TestAKind:
    CHAT = json.dumps(
        {"type": "object", "properties": {"said": {"type": "string", "x-content": True}}, "required": ["said"]}
    ).encode()

    def register(self, desk: Desk, kind: str = "chat.turn", schema: bytes = CHAT) -> state_pb2.Kind:
        asked = state_pb2.RegisterKindRequest(kind=kind, schema=schema)
        kept: state_pb2.Kind = desk.ask("register_kind", asked).kind
        return kept

    def test_that_is_registered_is_recorded_and_outlives_the_process(self, desk: Desk) -> None:
        session, hashed = desk.session(), "blake2b-256:" + "0" * 64
        with pytest.raises(InvalidRequest, match="not known here"):
            desk.record(session, event(kind="chat.turn", said=hashed))
        kept = self.register(desk)
        desk.record(session, event(kind="chat.turn", said=hashed))
        desk.start()
        desk.record(session, event(kind="chat.turn", said=hashed), sent=1)
        listed = desk.ask("list_kinds", state_pb2.ListKindsRequest())
        assert [each.kind for each in listed.kinds] == [*KNOWN, "chat.turn"]
        assert (listed.kinds[-1], listed.store_raw_content) == (kept, False)

    def test_has_its_content_hashed_unless_the_node_stores_it(self, desk: Desk) -> None:
        session = desk.session()
        self.register(desk)
        with pytest.raises(InvalidRequest, match=r"events\[0\]/said"):
            desk.record(session, event(kind="chat.turn", said="to be"))
        desk.privacy = Privacy(raw_content=True)
        desk.start()
        desk.record(session, event(kind="chat.turn", said="to be"))
        assert desk.ask("list_kinds", state_pb2.ListKindsRequest()).store_raw_content

    @pytest.mark.parametrize(
        ("kind", "schema", "said"),
        [
            ("energy.update", b"{}", "known everywhere"),
            ("Chat", b"{}", "no name of a kind"),
            ("chat", b"{", "schema: "),
            ("chat", b'{"type": "nonsense"}', "schema: chat: /type"),
            ("chat", b"[" * 9_999, "schema: "),
        ],
    )
    def test_that_is_none_is_refused(self, desk: Desk, kind: str, schema: bytes, said: str) -> None:
        with pytest.raises(InvalidRequest, match=said):
            self.register(desk, kind, schema)

    def test_more_than_so_many_are_refused_and_a_known_one_may_change(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "KINDS_MAX", 2)
        for kind in ("a", "b", "b"):
            self.register(desk, kind)
        with pytest.raises(Exhausted, match="2 kinds are registered"):
            self.register(desk, "c")
        self.register(desk, "a", b"{}")
        desk.record(desk.session(), event(kind="a", anything=1))

    def test_whose_row_is_damaged_is_left_out_until_it_is_registered_anew(self, desk: Desk) -> None:
        self.register(desk, "a", b"{}")
        self.register(desk, "b", b"{}")
        desk.store.damage(KINDS, b"a")
        desk.start()
        listed = desk.ask("list_kinds", state_pb2.ListKindsRequest())
        assert [each.kind for each in listed.kinds] == [*KNOWN, "b"]
        desk.record(desk.session(), event(kind="b"))
        self.register(desk, "a", b"{}")
        desk.start()
        desk.record(desk.session(), event(kind="a"), sent=1)

    def test_is_kept_as_short_as_it_can_be_said(self, desk: Desk) -> None:
        assert self.register(desk, "a", b'{ "type" :' + b" " * 1_000_000 + b'"object" }').schema == b'{"type":"object"}'
