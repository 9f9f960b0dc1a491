"""What happened is remembered: exactly while its events are there, within a bound that is said when they are gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from memory_desk import HOUR_US, WINDOW_MS, MemoryDesk
from session_desk import START_US, event

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, InvalidRequest, NotFound, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.state.sessions.tables import BLOCKS, SESSIONS, block_key
from offgrid_node.protocol.state.summaries.commands import DropSummaries, FoldSummaries
from offgrid_node.protocol.state.summaries.tables import JOURNAL, SUMMARIES, summarised_upto, summary_key
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.memory import asking, walking
from offgrid_node.services.retention import Budget, Retention, Surroundings
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.storage.store import Batch

PROMPT = "user.prompt"
HASH = "0" * 32


def prompt(prompt_id: str, at_us: int) -> list:
    return event(at_us, PROMPT, prompt_id=prompt_id, hash=HASH, length=1)


def energy(value: float, at_us: int) -> list:
    return event(at_us, "energy.update", energy=value, accumulator=0, model_id=f"m{int(value) % 3}")


def drop_blocks(desk: MemoryDesk, session: str) -> None:
    """As retention does."""
    keys = [key for key, _ in desk.store.scan(BLOCKS, prefix=session.encode())]
    desk.store.commit(Batch(writes={(BLOCKS, key): None for key in keys}))


@pytest.fixture
def desk() -> MemoryDesk:
    """Three windows of a session, of ten events each, half an hour apart, and what the journal says of them."""
    desk = MemoryDesk()
    session = desk.session("run")
    for window in range(3):
        at_us = desk.clock.now_us
        for n in range(10):
            number = window * 10 + n
            one = prompt(f"p-{number}", at_us + n) if n % 2 else energy(number, at_us + n)
            desk.record(session, one, sent=number)
        desk.wait(WINDOW_MS)
    desk.compact()
    return desk


class TestAWindow:
    def test_says_what_was_in_it(self, desk: MemoryDesk) -> None:
        first = desk.summaries("run")[0]
        start_s = START_US // 1_000 // WINDOW_MS * WINDOW_MS // 1_000
        assert first.window_id == f"window_{start_s}"
        assert (first.first, first.last, first.count) == (1, 10, 10)
        assert dict(first.types) == {"energy.update": 5, PROMPT: 5}
        figure = next(each for each in first.figures if each.name == "energy.update/energy")
        assert (figure.count, figure.least, figure.most, figure.mean) == (5, 0, 8, 4)
        assert (first.keys, dict(first.hitters)["m0"], first.hitters_error) == (8, 2, 0)
        assert len(first.sample) == 10
        assert first.sample[0].text.startswith("{")

    def test_of_the_journal_names_sessions(self, desk: MemoryDesk) -> None:
        found = desk.summaries()
        assert sum(each.count for each in found) == summarised_upto(desk.store)
        assert {*found[0].types} == {"SESSION_CHANGED"}
        assert "run" in found[0].hitters

    def test_is_not_summarised_before_it_is_over(self, desk: MemoryDesk) -> None:
        upto, session = summarised_upto(desk.store), desk.session()
        desk.record(session, event(desk.clock.now_us), sent=30)
        desk.start()
        desk.compact()
        assert summarised_upto(desk.store) == upto
        desk.wait(WINDOW_MS)
        desk.compact()
        assert summarised_upto(desk.store) == desk.store.journal_seq

    def test_under_way_is_summarised_when_it_is_asked_for(self, desk: MemoryDesk) -> None:
        session, before = desk.session(), len(desk.summaries())
        desk.record(session, energy(1, desk.clock.now_us), sent=30)
        ticket = desk.memory.compacting.compact_now()
        desk.wait(100)
        assert desk.settle(ticket).kept == 2
        assert summarised_upto(desk.store) == desk.store.journal_seq
        desk.record(session, energy(1, desk.clock.now_us), sent=31)
        desk.wait(WINDOW_MS)
        assert [each.count for each in desk.summaries()[before:]] == [1, 1]
        assert len({each.window_id for each in desk.summaries()[before:]}) == 1

    def test_is_summarised_once_by_whoever_comes_first(self, desk: MemoryDesk) -> None:
        desk.record(desk.session(), energy(1, desk.clock.now_us), sent=30)
        tickets = [desk.memory.compacting.compact_now() for _ in range(3)]
        desk.wait(100)
        assert sum(desk.settle(ticket).kept for ticket in tickets) == 2
        assert desk.count("energy.update").at_most == 16

    def test_with_very_many_events_has_several_summaries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(walking, "WINDOW_EVENTS", 4)
        desk = MemoryDesk()
        session = desk.session()
        for n in range(9):
            desk.record(session, energy(n, desk.clock.now_us), sent=n)
        desk.wait(WINDOW_MS)
        desk.compact()
        found = desk.summaries("run")
        assert len({each.window_id for each in found}) == 1
        assert [(each.first, each.count) for each in found] == [(1, 2), (3, 2), (5, 2), (7, 2), (9, 1)]

    def test_with_very_many_keys_has_several_summaries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(walking, "WINDOW_KEYS", 6)
        desk = MemoryDesk()
        session = desk.session()
        for n in range(9):
            desk.record(session, prompt(f"p-{n}", desk.clock.now_us), sent=n)
        desk.wait(WINDOW_MS)
        assert [(each.first, each.keys) for each in desk.summaries("run")] == [(1, 4), (5, 5)]

    def test_is_the_same_in_portions_of_any_size(self, desk: MemoryDesk, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = [*desk.store.scan(SUMMARIES, prefix=JOURNAL.encode())]
        rows = [(SUMMARIES, key) for key, _ in desk.store.scan(SUMMARIES)]
        desk.store.commit(Batch(writes=dict.fromkeys([("memory", b"upto"), *rows])))
        monkeypatch.setattr(walking, "PORTION_EVENTS", 3)
        desk.start()
        desk.compact()
        assert [*desk.store.scan(SUMMARIES, prefix=JOURNAL.encode())] == wanted


class TestTheClock:
    @pytest.mark.parametrize("step_us", [-HOUR_US, 48 * HOUR_US])
    def test_may_be_set_and_no_event_is_lost_or_counted_twice(self, step_us: int) -> None:
        desk = MemoryDesk()
        session = desk.session()
        for n in range(12):
            desk.clock.now_us += {4: step_us, 8: -step_us}.get(n, 0)
            desk.record(session, energy(n, desk.clock.now_us), sent=n)
            desk.wait(5 * 60_000)
        desk.wait(3 * WINDOW_MS)
        desk.compact()
        found, journal = desk.summaries("run"), desk.summaries()
        assert [n for each in found for n in range(each.first, each.last + 1)] == [*range(1, 13)]
        assert [n for each in journal for n in range(each.first, each.last + 1)] == [*range(1, 14)]
        drop_blocks(desk, session)
        assert desk.count("energy.update").at_least == 12
        assert desk.count("energy.update").at_most == 12

    def test_that_runs_on_makes_no_window_of_what_is_under_way(self) -> None:
        desk = MemoryDesk()
        session = desk.session()
        for n in range(4):
            desk.record(session, energy(n, desk.clock.now_us), sent=n)
            desk.wait(WINDOW_MS // 2)
        desk.compact()
        ends = [each.end_us for each in desk.summaries()]
        assert all(end <= desk.clock.now_us for end in ends)


class TestAKey:
    def test_is_found_exactly_while_events_are_there(self, desk: MemoryDesk) -> None:
        found = desk.seen("p-13")
        assert [(each.exact, each.first, each.at_least, each.at_most) for each in found.sightings] == [(True, 14, 1, 1)]
        assert not desk.seen("p-14").sightings
        assert not desk.seen("p-99").sightings
        assert found.basis.events + found.basis.summarised == found.basis.recorded

    def test_is_found_in_what_is_not_summarised_yet(self, desk: MemoryDesk) -> None:
        session = desk.session()
        desk.record(session, prompt("p-new", desk.clock.now_us), sent=30)
        sighting = desk.seen("p-new", session="run").sightings[0]
        assert (sighting.exact, sighting.first, sighting.window_id) == (True, 31, "")

    def test_is_found_after_the_events_are_gone(self, desk: MemoryDesk) -> None:
        session = desk.session()
        drop_blocks(desk, session)
        sighting = desk.seen("p-13").sightings[0]
        assert (sighting.exact, sighting.session_id, sighting.at_least) == (False, session, 1)
        assert sighting.window_id == desk.summaries("run")[1].window_id
        assert not desk.seen("p-14").sightings
        assert desk.seen("p-14").false_positive == 0, "a summary that counts all its keys errs in none"
        assert [each.at_least for each in desk.seen("m0", session="run").sightings] == [2, 2, 1]

    def test_in_a_time_is_sought_there_alone(self, desk: MemoryDesk) -> None:
        windows = desk.summaries("run")
        middle = {"since_us": windows[1].oldest_us, "until_us": windows[1].newest_us}
        assert len(desk.seen("p-13", **middle).sightings) == 1
        assert not desk.seen("p-3", **middle).sightings

    def test_of_the_journal_is_found_as_well(self, desk: MemoryDesk) -> None:
        session = desk.session()
        assert {each.session_id for each in desk.seen(session).sightings} == {""}
        assert sum(each.at_least for each in desk.seen(session).sightings) == 31
        assert desk.seen("run").sightings[0].at_least == 1

    def test_says_how_sure_it_is(self) -> None:
        """More keys than are counted: what is in none of the counters may never have been."""
        desk = MemoryDesk()
        session = desk.session()
        desk.record(session, *(prompt(f"p-{n}", desk.clock.now_us) for n in range(500)))
        desk.wait(2 * WINDOW_MS)
        desk.compact()
        drop_blocks(desk, session)
        found = desk.seen("p-77")
        assert [(each.at_least, each.at_most) for each in found.sightings] == [(0, 1)]
        assert 0 < found.false_positive < 1e-6
        assert all(desk.seen(f"p-{n}").sightings for n in range(0, 500, 50))


class TestACount:
    def test_is_exact_in_whole_windows(self, desk: MemoryDesk) -> None:
        drop_blocks(desk, desk.session())
        found = desk.count(PROMPT)
        assert (found.at_least, found.at_most, found.cut) == (15, 15, 0)
        assert (found.basis.events, found.basis.summarised, found.basis.recorded) == (0, 30, 30)

    def test_is_exact_in_cut_windows_while_events_are_there(self, desk: MemoryDesk) -> None:
        second = desk.summaries("run")[1]
        found = desk.count("energy.update", since_us=second.oldest_us + 1, until_us=second.newest_us)
        assert (found.at_least, found.at_most) == (4, 4)

    def test_says_how_far_a_cut_window_may_be_off(self, desk: MemoryDesk) -> None:
        drop_blocks(desk, desk.session())
        second = desk.summaries("run")[1]
        found = desk.count("energy.update", since_us=second.oldest_us + 1)
        assert (found.at_least, found.at_most, found.cut) == (5, 10, 1)
        assert desk.count("health.heartbeat", since_us=second.oldest_us + 1).cut == 0

    def test_takes_in_what_is_not_summarised_yet(self, desk: MemoryDesk) -> None:
        desk.record(desk.session(), energy(1, desk.clock.now_us), sent=30)
        assert desk.count("energy.update").at_least == 16
        assert desk.count("energy.update", since_us=desk.clock.now_us + 1).at_most == 0

    def test_of_the_journals_types(self, desk: MemoryDesk) -> None:
        found = desk.count(EventType.SESSION_CHANGED)
        assert (found.at_least, found.basis.recorded) == (31, desk.store.journal_seq)
        assert desk.count(EventType.TX_FINAL).at_most == 0
        assert desk.count(31).at_most == 0, "one that this node does not know"

    def test_of_what_the_journal_has_dropped(self, desk: MemoryDesk) -> None:
        second = desk.summaries()[1]
        key = desk.session()
        desk.store.commit(Batch(floor=second.first))
        found = desk.count(EventType.SESSION_CHANGED)
        assert (found.at_least, found.at_most, found.basis.events) == (31, 31, 0)
        cut = desk.count(EventType.SESSION_CHANGED, until_us=second.oldest_us)
        assert (cut.at_least, cut.at_most, cut.cut) == (11, 21, 1)
        assert [each.exact for each in desk.seen(key).sightings] == [False, False, True]

    def test_does_not_look_at_more_than_it_may(self, desk: MemoryDesk, monkeypatch: pytest.MonkeyPatch) -> None:
        second = desk.summaries("run")[1]
        monkeypatch.setattr(asking, "READ_MAX", 9)
        found = desk.count("energy.update", since_us=second.oldest_us + 1)
        assert (found.at_least, found.at_most, found.cut) == (5, 10, 1)

    def test_is_exact_where_summaries_went_before_their_events(self, desk: MemoryDesk) -> None:
        while desk.settle(desk.memory.joining.drop_oldest()).folded:
            pass
        assert desk.count(EventType.SESSION_CHANGED).at_least == 31
        assert desk.count(PROMPT).at_least == 15

    def test_leaves_out_a_session_that_is_not_all_here(self, desk: MemoryDesk) -> None:
        session = desk.session()
        row = state_pb2.SessionRow.FromString(desk.store.get(SESSIONS, session.encode()) or b"")
        row.session.origin.events = 99
        desk.store.commit(Batch(writes={(SESSIONS, session.encode()): row.SerializeToString()}))
        assert desk.count(PROMPT).at_most == 0

    def test_says_what_it_knows_nothing_of(self, desk: MemoryDesk) -> None:
        session = desk.session()
        drop_blocks(desk, session)
        desk.store.commit(Batch(writes={(SUMMARIES, summary_key(session, 1)): None}))
        found = desk.count("energy.update")
        assert (found.at_most, found.basis.recorded - found.basis.summarised - found.basis.events) == (10, 10)


class TestRetention:
    def test_drops_what_is_summarised_and_all_that_happened_is_still_told(self) -> None:
        """A budget of 1 MiB for 2 MB of events, of a window that is not over yet."""
        desk = MemoryDesk()
        around = Surroundings(
            lambda: None,
            lambda: summarised_upto(desk.store),
            desk.memory.compacting.compact_now,
            desk.handlers.summing_up,
            lambda sessions: desk.handlers.shredding.purge(sessions, "retention"),
            desk.memory.joining.fold_oldest,
            desk.memory.joining.drop_oldest,
        )
        session = desk.session("run")
        for n in range(50):
            data = {"note": f"{n}-".ljust(40_000, "x")}
            desk.record(session, event(desk.clock.now_us, queue_depth=n, **data), sent=n)
        retention = Retention(desk.runtime, Budget(base_mb=1), around, desk.later)
        retention.start()
        desk.wait(30_000)
        kept = desk.ask("get_session", state_pb2.GetSessionRequest(session="run")).session.kept
        assert 0 < kept < 12
        assert retention.held == ""
        found = desk.count("health.heartbeat")
        assert (found.at_least, found.at_most) == (50, 50)
        assert desk.count(EventType.SESSION_CHANGED).at_least == desk.store.journal_seq
        assert sum(each.at_least for each in desk.seen(session).sightings) == 51
        figure = desk.summaries("run")[0].figures[0]
        assert (figure.name, figure.least, figure.most) == ("health.heartbeat/queue_depth", 0, 49)


class TestAnAudit:
    def test_has_the_journal_say_who_asked_for_what_sessions_said(self) -> None:
        desk = MemoryDesk()
        desk.privacy = Privacy(audit=True)
        desk.start()
        desk.record(desk.session(), prompt("p", desk.clock.now_us))
        before = desk.store.journal_seq
        desk.summaries()
        desk.count(EventType.TX_FINAL)
        assert desk.store.journal_seq == before, "the journal is no secret"
        desk.seen("p")
        desk.count(PROMPT, session="run")
        desk.summaries("run")
        told = [state_pb2.Event.FromString(raw).session for _, raw in desk.store.events(before)]
        assert [(each.outcome, each.name) for each in told] == [("asked", ""), ("asked", "run"), ("asked", "run")]
        assert {each.by for each in told} == {str(ADMIN)}


class TestPages:
    def test_together_are_the_answer(self, desk: MemoryDesk, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(5):
            desk.record(desk.session(f"other {number}"), energy(number, desk.clock.now_us))
        whole, sightings = desk.count("energy.update"), desk.seen("m1").sightings
        monkeypatch.setattr(asking, "STEPS_MAX", 2)
        assert desk.count("energy.update") == whole
        assert desk.seen("m1").sightings == sightings
        monkeypatch.setattr(asking, "STEPS_MAX", 1_000)
        monkeypatch.setattr(asking, "EVENTS_MAX", 3)
        monkeypatch.setattr(asking, "READ_MAX", 12)
        assert desk.count("energy.update", until_us=START_US + 5) == desk.count("energy.update", until_us=START_US + 5)
        assert desk.seen("m1").sightings == sightings

    def test_belong_to_their_question(self, desk: MemoryDesk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asking, "STEPS_MAX", 1)
        request = state_pb2.AskCountRequest(kind=PROMPT)
        request.scope.page_token = desk.remembered("ask_count", request).next_page_token
        desk.remembered("ask_count", request)
        request.kind = "energy.update"
        with pytest.raises(InvalidRequest, match="another question"):
            desk.remembered("ask_count", request)

    def test_end_where_summaries_were_joined_meanwhile(self, desk: MemoryDesk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asking, "STEPS_MAX", 2)
        request = state_pb2.AskCountRequest(kind=PROMPT, scope=state_pb2.AskScope(session="run"))
        request.scope.page_token = desk.remembered("ask_count", request).next_page_token
        desk.settle(desk.memory.joining.fold_oldest())
        with pytest.raises(FailedPrecondition, match="ask again"):
            desk.remembered("ask_count", request)


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("ask_key", state_pb2.AskKeyRequest(), "key"),
        ("ask_key", state_pb2.AskKeyRequest(key="x" * 5_000), "key"),
        ("ask_key", state_pb2.AskKeyRequest(key="x", scope=state_pb2.AskScope(since_us=-1)), "scope.since_us"),
        ("ask_count", state_pb2.AskCountRequest(), "etype"),
        ("ask_count", state_pb2.AskCountRequest(etype=14, kind=PROMPT), "etype"),
        ("ask_count", state_pb2.AskCountRequest(kind="No Kind"), "kind"),
        ("ask_count", state_pb2.AskCountRequest(etype=14, scope=state_pb2.AskScope(session="run")), "scope.session"),
        ("ask_count", state_pb2.AskCountRequest(etype=14, scope={"since_us": 2, "until_us": 1}), "scope.until_us"),
        ("list_summaries", state_pb2.ListSummariesRequest(page_token="eA"), "page_token"),
    ],
)
def test_what_is_no_question_is_refused(desk: MemoryDesk, method: str, request_, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        desk.remembered(method, request_)
    assert field in str(caught.value.metadata) + caught.value.message


class TestAPurge:
    def test_takes_what_is_remembered_of_a_session(self, desk: MemoryDesk) -> None:
        session = desk.session()
        before = [*desk.store.scan(SUMMARIES, prefix=session.encode())]
        assert len(before) == 3
        assert not any(mark in value for _, value in before for mark in (b"p-13", b"energy", b"user.prompt"))
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
        desk.wait(1)
        assert not [*desk.store.scan(SUMMARIES, prefix=session.encode())]
        with pytest.raises(FailedPrecondition):
            desk.vault.open(session, "summary 1 10", state_pb2.SummaryRow.FromString(before[0][1]).body)
        assert not desk.seen("p-13").sightings
        assert desk.count(PROMPT).at_most == 0
        assert desk.count(PROMPT).basis.unreadable == 0
        with pytest.raises(FailedPrecondition, match="shredded"):
            desk.seen("p-13", session=session)

    def test_before_its_window_is_over_leaves_nothing_of_it(self, desk: MemoryDesk) -> None:
        session = desk.session("secret")
        desk.record(session, prompt("p-secret", desk.clock.now_us))
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
        desk.wait(2 * WINDOW_MS)
        desk.compact()
        assert not [*desk.store.scan(SUMMARIES, prefix=session.encode())]
        assert not any(b"p-secret" in row for row in desk.store.dump())

    def test_between_a_walk_and_its_end_leaves_nothing_of_it(self, desk: MemoryDesk) -> None:
        session = desk.session("secret")
        desk.record(session, prompt("p-secret", desk.clock.now_us))
        now_us = desk.clock.now_us + HOUR_US
        walk = walking.Walk(desk.store, desk.vault, desk.handlers.keys_of, WINDOW_MS * 1_000, now_us)
        made = walk.portion()
        assert isinstance(made, walking.KeepWindow)
        assert session in {placed.scope for placed in made.summaries}
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
        desk.settle(desk.runtime.ask("memory", "test", made))
        assert not [*desk.store.scan(SUMMARIES, prefix=session.encode())]


class TestWhatIsDamaged:
    def test_or_has_lost_its_key_is_passed_over(self, desk: MemoryDesk) -> None:
        session, keyless = desk.session(), desk.session("keyless")
        desk.record(session, energy(1, desk.clock.now_us), sent=30)
        desk.record(session, energy(1, desk.clock.now_us), sent=31)
        desk.record(keyless, energy(1, desk.clock.now_us), writer=b"writer-2")
        desk.store.damage(BLOCKS, block_key(session, 31))
        desk.keys.drop([keyless])
        desk.wait(2 * WINDOW_MS)
        desk.compact()
        assert summarised_upto(desk.store) == desk.store.journal_seq
        assert [(each.first, each.count) for each in desk.summaries("run")][-1] == (32, 1)
        assert desk.count("energy.update").basis.unreadable == 1

    @pytest.mark.parametrize("steps", [2, 1_000])
    def test_is_made_good_by_its_events_or_is_said_to_be_missing(
        self, desk: MemoryDesk, steps: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = desk.session()
        desk.store.damage(SUMMARIES, summary_key(session, 11))
        monkeypatch.setattr(asking, "STEPS_MAX", steps)
        found = desk.count(PROMPT)
        assert (found.at_least, found.at_most, found.basis.events) == (15, 15, 10)
        assert desk.seen("p-13").sightings[0].exact
        drop_blocks(desk, session)
        found = desk.count(PROMPT)
        assert (found.at_least, found.basis.recorded - found.basis.summarised - found.basis.events) == (10, 10)
        with pytest.raises(Corrupt):
            desk.summaries("run")

    def test_in_a_block_is_said_to_be_missing(self, desk: MemoryDesk) -> None:
        session = desk.session()
        for sent in (30, 31):
            desk.record(session, energy(1, desk.clock.now_us), sent=sent)
        desk.store.damage(BLOCKS, block_key(session, 31))
        found = desk.count("energy.update")
        assert (found.at_least, found.basis.recorded - found.basis.summarised - found.basis.events) == (16, 1)

    def test_in_the_row_of_a_session_holds_nothing_up(self, desk: MemoryDesk) -> None:
        session = desk.session("other")
        desk.record(session, energy(1, desk.clock.now_us))
        desk.store.damage(SESSIONS, session.encode())
        desk.wait(2 * WINDOW_MS)
        desk.compact()
        assert summarised_upto(desk.store) == desk.store.journal_seq
        found = desk.count("energy.update")
        assert (found.at_least, found.basis.unreadable) == (15, 1)

    def test_cannot_be_another_sessions(self, desk: MemoryDesk) -> None:
        """A row that was moved is not opened."""
        one, other = desk.session(), desk.session("other")
        row = desk.store.get(SUMMARIES, summary_key(one, 1))
        desk.store.commit(Batch(writes={(SUMMARIES, summary_key(other, 1)): row}))
        with pytest.raises(Corrupt, match=other):
            desk.summaries("other")
        assert desk.count(PROMPT).at_most == 15

    def test_in_the_journal_is_told(self, desk: MemoryDesk, monkeypatch: pytest.MonkeyPatch) -> None:
        def events(after_seq: int = 0) -> Iterator[tuple[int, bytes]]:
            raise Corrupt("event 5 of the journal is damaged", reason="ChecksumMismatch")
            yield 0, b""

        with monkeypatch.context() as patched:
            patched.setattr(desk.store, "events", events)
            desk.wait(WINDOW_MS)
            assert "event 5" in desk.memory.notices[0]
        desk.wait(WINDOW_MS)
        assert not desk.memory.notices


class TestAKill:
    @pytest.mark.parametrize("restarts", [True, False])
    @pytest.mark.parametrize("applied", [True, False])
    @pytest.mark.parametrize("at", range(4))
    def test_at_any_commit_leaves_each_event_in_one_summary(self, at: int, *, applied: bool, restarts: bool) -> None:
        desk = MemoryDesk()
        session = desk.session()
        for n in range(20):
            desk.record(session, energy(n, desk.clock.now_us), sent=n)
            if n // 5 == at and n % 5 == 4:
                desk.store.fail_next(Unavailable("the disk is gone", reason="DiskError"), applied=applied)
            desk.wait(WINDOW_MS // 5)
            if restarts and n // 5 == at:
                desk.store.crash()
                desk.start()
        desk.wait(2 * WINDOW_MS)
        desk.compact()
        assert [n for s in desk.summaries() for n in range(s.first, s.last + 1)] == [*range(1, 22)]
        assert [n for s in desk.summaries("run") for n in range(s.first, s.last + 1)] == [*range(1, 21)]

    def test_what_a_walk_could_not_open_is_looked_at_once_its_key_is_back(self) -> None:
        desk = MemoryDesk()
        session = desk.session()
        desk.record(session, energy(1, desk.clock.now_us))
        key = desk.keys.get(session)
        assert key is not None
        desk.keys.drop([session])
        desk.wait(2 * WINDOW_MS)
        desk.compact()
        assert not [*desk.store.scan(SUMMARIES, prefix=session.encode())]
        desk.keys.add(session, key)
        desk.record(session, energy(2, desk.clock.now_us), sent=1)
        desk.wait(2 * WINDOW_MS)
        assert [(each.first, each.last) for each in desk.summaries("run")] == [(2, 2)]
        told = desk.count("energy.update")
        assert (told.at_least, told.at_most) == (2, 2)

    def test_a_walk_that_comes_late_is_refused(self, desk: MemoryDesk) -> None:
        desk.record(desk.session(), energy(1, desk.clock.now_us), sent=30)
        now_us = desk.clock.now_us + 2 * HOUR_US
        walks = [
            walking.Walk(desk.store, desk.vault, desk.handlers.keys_of, WINDOW_MS * 1_000, now_us) for _ in range(2)
        ]
        first, second = (walk.portion() for walk in walks)
        desk.settle(desk.runtime.ask("memory", "test", first))
        with pytest.raises(FailedPrecondition) as caught:
            desk.settle(desk.runtime.ask("memory", "test", second))
        assert caught.value.reason == "SummariesMoved"
        assert desk.count("energy.update").at_most == 16


class TestJoining:
    def days(self, number: int) -> MemoryDesk:
        """Each with four windows of a session."""
        desk = MemoryDesk()
        desk.clock.now_us = START_US // 86_400_000_000 * 86_400_000_000 + 4 * 86_400_000_000
        session = desk.session()
        for n in range(number * 4):
            desk.record(session, prompt(f"p-{n}", desk.clock.now_us), energy(n, desk.clock.now_us), sent=2 * n)
            desk.wait(6 * 3_600_000)
        desk.compact()
        return desk

    def test_makes_one_of_the_oldest_day_and_then_of_the_oldest_week(self) -> None:
        desk = self.days(3)
        session = desk.session()
        drop_blocks(desk, session)
        before = desk.count(PROMPT)
        answer = desk.settle(desk.memory.joining.fold_oldest())
        assert (answer.folded, answer.kept) == (8, 2), "the journal's and the session's"
        assert [(each.first, each.last) for each in desk.summaries("run")][:2] == [(1, 8), (9, 10)]
        while desk.settle(desk.memory.joining.fold_oldest()).folded:
            pass
        assert 1 <= len(desk.summaries("run")) <= 2, "two weeks at most"
        assert desk.count(PROMPT) == before
        assert all(desk.seen(f"p-{n}").sightings for n in range(12))
        assert not desk.seen("p-12").sightings

    def test_keeps_apart_what_would_be_too_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("offgrid_node.services.memory.joining.KEYS_MAX", 4)
        desk = self.days(1)
        while desk.settle(desk.memory.joining.fold_oldest()).folded:
            pass
        assert [(each.first, each.last) for each in desk.summaries("run")] == [(1, 4), (5, 8)]

    def test_leaves_a_damaged_one_where_it_is(self) -> None:
        desk = self.days(1)
        desk.store.damage(SUMMARIES, summary_key(desk.session(), 5))
        while desk.settle(desk.memory.joining.fold_oldest()).folded:
            pass
        keys = [key for key in desk.store._tables[SUMMARIES].rows if key.startswith(desk.session().encode())]
        assert len(keys) == 3

    def test_never_reaches_over_what_was_forgotten(self) -> None:
        """As where a clock was set, and a window between two others was of an older day."""
        desk = self.days(1)
        session = desk.session()
        desk.settle(desk.runtime.ask("memory", "test", DropSummaries((summary_key(session, 3),))))
        while desk.settle(desk.memory.joining.fold_oldest()).folded:
            pass
        assert [(each.first, each.last) for each in desk.summaries("run")] == [(1, 2), (5, 8)]

    def test_goes_on_past_what_was_shredded_meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        desk = self.days(1)
        session, joining, plans = desk.session(), desk.memory.joining, list[int]()
        plan = joining._plan

        def shredded_behind_the_plan() -> list[FoldSummaries]:
            planned = plan()
            row = state_pb2.SessionRow.FromString(desk.store.get(SESSIONS, session.encode()) or b"")
            row.session.purged_us = 1
            desk.store.commit(Batch(writes={(SESSIONS, session.encode()): row.SerializeToString()}))
            plans.append(len(planned))
            return planned

        monkeypatch.setattr(joining, "_plan", shredded_behind_the_plan)
        answer = desk.settle(joining.fold_oldest())
        assert (answer.folded, answer.kept, plans) == (4, 1, [2]), "the journal's"
        answer = desk.settle(joining.fold_oldest())
        assert (answer.folded, plans) == (0, [2, 1, 1, 1]), "which the sweep will take: not for ever"

    def test_of_what_has_changed_meanwhile_is_refused(self) -> None:
        desk = self.days(1)
        plan = desk.memory.joining._plan()
        desk.settle(desk.memory.joining.fold_oldest())
        with pytest.raises(FailedPrecondition) as caught:
            desk.settle(desk.runtime.ask("memory", "test", plan[0]))
        assert caught.value.reason == "SummariesMoved"

    def test_forgets_the_oldest_day_at_last(self) -> None:
        desk = self.days(2)
        dropped = desk.settle(desk.memory.joining.drop_oldest()).folded
        assert dropped == 8
        assert [each.first for each in desk.summaries("run")] == [9, 11, 13, 15][: len(desk.summaries("run"))]
        while desk.settle(desk.memory.joining.drop_oldest()).folded:
            pass
        assert not [*desk.store.scan(SUMMARIES)]
        assert desk.count(PROMPT).at_least == 8, "the events are there still"


def test_a_session_that_is_unknown_is_named(desk: MemoryDesk) -> None:
    with pytest.raises(NotFound, match="nobody"):
        desk.seen("x", session="nobody")
