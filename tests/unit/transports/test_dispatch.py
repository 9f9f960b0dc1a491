"""What leaves next: the most urgent of all, in turn where that is equal, and only as a link has room."""

from __future__ import annotations

from collections import deque
from typing import cast

import pytest
from still_link import StillLink

from offgrid_transports.dispatch import AT_ONCE_MAX, SINGLES_MAX, Dispatch
from offgrid_transports.path import Path
from offgrid_transports.session import Session
from offgrid_transports.transport import Priority


class Talker:
    """Stands in for a session: has frames of given priorities to send, the most urgent first."""

    def __init__(self, link: StillLink, ours: int, *frames: Priority) -> None:
        self.path, self.ours, self.peer = Path(link, f"to {ours}"), ours, f"peer {ours}"
        self.frames = deque(sorted(frames))
        self.asked = 0
        self.listens_ms, self.rests_ms, self.answers = -1.0, -1.0, False
        """Until when an answer to what it sends may come; and whether all it has to send are answers."""

    def urgency(self, now_ms: float) -> Priority | None:
        return self.frames[0] if self.frames else None

    def begins(self, now_ms: float) -> bool:
        return bool(self.frames) and not self.answers

    def next_frame(self, now_ms: float) -> bytes | None:
        self.asked += 1
        return b"%d %s" % (self.ours, self.frames.popleft().name.encode()) if self.frames else None


def dispatch(*links: StillLink) -> Dispatch:
    made = Dispatch()
    for link in links:
        made.attach(link)
    return made


def add(to: Dispatch, *talkers: Talker) -> None:
    for talker in talkers:
        to.add(cast("Session", talker))


def send(by: Dispatch) -> tuple[list[int], bool]:
    rested, more = by.send(0)
    return [session.ours for session in rested], more


@pytest.mark.parametrize("priority", list(Priority))
def test_a_frame_leaves_with_its_priority_to_its_address(priority: Priority) -> None:
    link = StillLink()
    by = dispatch(link)
    add(by, Talker(link, 7, priority))
    assert send(by) == ([7], False)
    assert link.sent == [("to 7", b"7 %s" % priority.name.encode(), priority)]
    assert send(by) == ([], False), "who has rested is not asked until it is added again"


def test_the_most_urgent_leaves_first_and_equals_take_turns() -> None:
    link = StillLink()
    by = dispatch(link)
    add(
        by,
        Talker(link, 1, Priority.BULK, Priority.BULK, Priority.BULK),
        Talker(link, 2, Priority.BULK, Priority.CONTROL),
        Talker(link, 3, Priority.PAYMENT),
    )
    assert send(by) == ([3, 2, 1], False)
    assert [frame[:3] for _, frame, _ in link.sent] == [b"2 C", b"3 P", b"1 B", b"2 B", b"1 B", b"1 B"]


def test_what_becomes_urgent_while_a_link_is_full_goes_first() -> None:
    link = StillLink(room=1)
    by, slow = dispatch(link), Talker(link, 1, *[Priority.BULK] * 3)
    add(by, slow)
    assert send(by) == ([], False)
    assert (len(link.sent), len(slow.frames)) == (1, 1), "one left, one waits sealed, and no more was asked for"
    add(by, Talker(link, 2, Priority.CONTROL))
    link.room = 10
    assert send(by) == ([], False)
    assert len(link.sent) == 1, "it has not said that there is room"
    by.on_room(link)
    assert send(by)[0] == [2, 1]
    assert [frame[:3] for _, frame, _ in link.sent] == [b"1 B", b"1 B", b"2 C", b"1 B"]


def test_a_frame_that_a_link_refuses_time_and_again_is_kept_and_no_other_is_asked_for() -> None:
    link = StillLink(room=0)
    by, talker = dispatch(link), Talker(link, 1, Priority.JOB, Priority.BULK)
    add(by, talker)
    for _ in range(3):
        assert send(by) == ([], False)
        by.on_room(link)
    assert talker.asked == 1
    link.room = 10
    send(by)
    assert [frame for _, frame, _ in link.sent] == [b"1 JOB", b"1 BULK"]


def test_handshakes_go_before_sessions_and_none_is_lost_to_a_full_link() -> None:
    link = StillLink(room=1)
    by = dispatch(link)
    add(by, Talker(link, 1, Priority.CONTROL))
    for number in range(3):
        by.queue(Path(link, "new"), b"hello %d" % number, "new")
    send(by)
    link.room = 10
    by.on_room(link)
    send(by)
    assert [frame for _, frame, _ in link.sent] == [b"hello 0", b"hello 1", b"hello 2", b"1 CONTROL"]
    assert {priority for _, _, priority in link.sent} == {Priority.CONTROL}


def test_a_session_that_rests_begins_nothing_and_answers_all_the_same() -> None:
    link = StillLink()
    by, replaced, other = dispatch(link), Talker(link, 1, Priority.CONTROL), Talker(link, 2, Priority.BULK)
    replaced.rests_ms = 500.0
    add(by, replaced, other)
    assert send(by) == ([2], False)
    assert (by.wake_ms, [frame for _, frame, _ in link.sent]) == (500.0, [b"2 BULK"])
    replaced.answers = True
    assert send(by) == ([1], False)


class WayOver(StillLink):
    """A way over others, which begins on a link of this node's own."""

    def __init__(self, first_link: StillLink) -> None:
        super().__init__(shared=True)
        self.first_link = first_link


@pytest.mark.parametrize("asks_over_others", [True, False])
def test_while_an_answer_may_come_on_a_radio_nothing_is_begun_there_whoever_leads_over_it(
    asks_over_others: bool,
) -> None:
    radio, elsewhere = StillLink(shared=True), StillLink()
    way, other_way = WayOver(radio), WayOver(radio)
    by = dispatch(radio, elsewhere, way, other_way)
    asks = Talker(way if asks_over_others else radio, 1, Priority.JOB)
    asks.listens_ms = 700.0
    add(by, asks)
    assert send(by) == ([1], False)
    waits = Talker(radio if asks_over_others else way, 2, Priority.JOB), Talker(other_way, 3, Priority.JOB)
    add(by, *waits, Talker(elsewhere, 4, Priority.JOB))
    assert send(by) == ([4], False)
    assert (by.wake_ms, [talker.asked for talker in waits]) == (700.0, [0, 0])
    assert sorted(session.ours for session in by.send(700)[0]) == [2, 3]


def test_of_too_many_handshakes_the_oldest_give_way() -> None:
    link = StillLink()
    by = dispatch(link)
    for number in range(SINGLES_MAX + 3):
        by.queue(Path(link, "new"), b"%d" % number, "new")
    send(by)
    assert [int(frame) for _, frame, _ in link.sent] == list(range(3, SINGLES_MAX + 3))


def test_a_link_that_is_down_is_left_alone_and_holds_up_no_other() -> None:
    down, up = StillLink(), StillLink()
    down.up = False
    by, waiting = dispatch(down, up), Talker(down, 1, Priority.JOB)
    add(by, waiting, Talker(up, 2, Priority.JOB))
    assert send(by) == ([2], False)
    assert (waiting.asked, len(up.sent)) == (0, 1)
    down.up = True
    assert send(by) == ([1], False)


def test_a_link_that_is_down_keeps_no_frame_for_all_until_nobody_waits_for_it() -> None:
    link = StillLink(shared=True)
    by, asks = dispatch(link), Talker(link, 1, Priority.JOB)
    asks.listens_ms = 500.0
    add(by, asks)
    by.send(0)
    assert by.spread(Path(link, "*"), b"before", Priority.JOB)
    link.up = False
    by.send(1)
    assert not by.spread(Path(link, "*"), b"meanwhile", Priority.JOB)
    link.up = True
    assert by.spread(Path(link, "*"), b"after", Priority.JOB)
    by.send(500)
    assert [frame for _, frame, _ in link.sent] == [b"1 JOB", b"after"]


def test_what_a_link_takes_no_more_is_dropped_and_the_rest_goes_on() -> None:
    link = StillLink(frame_bytes=8)
    by = dispatch(link)
    add(by, Talker(link, 1, Priority.CONTROL, Priority.JOB))
    assert send(by) == ([1], False)
    assert [frame for _, frame, _ in link.sent] == [b"1 JOB"]


def test_a_session_that_moved_is_served_by_its_new_link_alone() -> None:
    old, new = StillLink(), StillLink()
    by, talker = dispatch(old, new), Talker(old, 1, Priority.JOB, Priority.JOB)
    add(by, talker)
    talker.path = Path(new, "there")
    add(by, talker)
    send(by)
    assert (old.sent, [address for address, _, _ in new.sent]) == ([], ["there", "there"])


def test_a_session_that_is_dropped_is_not_asked() -> None:
    link = StillLink()
    by, talker = dispatch(link), Talker(link, 1, Priority.JOB)
    add(by, talker)
    by.drop(cast("Session", talker))
    assert send(by) == ([], False)
    assert talker.asked == 0


def test_only_so_many_frames_leave_in_one_go() -> None:
    link = StillLink()
    by = dispatch(link)
    add(by, Talker(link, 1, *[Priority.BULK] * (AT_ONCE_MAX + 1)))
    assert send(by) == ([], True)
    assert len(link.sent) == AT_ONCE_MAX
    assert send(by) == ([1], False)
    assert len(link.sent) == AT_ONCE_MAX + 1


def test_whose_frames_have_used_a_links_time_is_known_for_an_hour() -> None:
    link = StillLink()
    by = dispatch(link)
    add(by, Talker(link, 1, Priority.BULK, Priority.CONTROL), Talker(link, 2, Priority.BULK))
    by.queue(Path(link, "new"), b"hello", "new")
    send(by)
    assert by.spending(link).last_hour(0) == {
        ("new", Priority.CONTROL): len(b"hello"),
        ("peer 1", Priority.CONTROL): len(b"1 CONTROL"),
        ("peer 1", Priority.BULK): len(b"1 BULK"),
        ("peer 2", Priority.BULK): len(b"2 BULK"),
    }
    assert by.spending(link).last_hour(59 * 60_000) == by.spending(link).last_hour(0)
    assert by.spending(link).last_hour(61 * 60_000) == {}


class TestListening:
    """On a shared medium who sends hears nothing."""

    def test_while_an_answer_may_come_nobody_else_is_asked(self) -> None:
        link = StillLink(shared=True)
        by, first, second = dispatch(link), Talker(link, 1, Priority.JOB), Talker(link, 2, Priority.JOB)
        first.listens_ms = 500.0
        add(by, first, second)
        assert by.send(0) == ([first], False)
        assert [frame[:1] for _, frame, _ in link.sent] == [b"1"]
        assert by.wake_ms == 500.0
        by.send(499)
        assert len(link.sent) == 1
        by.send(500)
        assert [frame[:1] for _, frame, _ in link.sent] == [b"1", b"2"]

    def test_when_it_has_come_the_next_one_is(self) -> None:
        link = StillLink(shared=True)
        by, first, second = dispatch(link), Talker(link, 1, Priority.JOB), Talker(link, 2, Priority.JOB)
        first.listens_ms = 500.0
        add(by, first, second)
        by.send(0)
        first.listens_ms = -1.0
        by.send(10)
        assert [frame[:1] for _, frame, _ in link.sent] == [b"1", b"2"]

    def test_others_are_answered_meanwhile(self) -> None:
        link = StillLink(shared=True)
        by, first, second = dispatch(link), Talker(link, 1, Priority.JOB), Talker(link, 2, Priority.JOB)
        first.listens_ms, second.answers = 500.0, True
        add(by, first)
        by.send(0)
        add(by, second)
        by.send(1)
        assert [frame[:1] for _, frame, _ in link.sent] == [b"1", b"2"]

    def test_on_other_links_nobody_waits(self) -> None:
        link = StillLink()
        by, first, second = dispatch(link), Talker(link, 1, Priority.JOB), Talker(link, 2, Priority.JOB)
        first.listens_ms = 500.0
        add(by, first, second)
        by.send(0)
        assert len(link.sent) == 2

    def test_a_frame_for_all_waits_as_well_and_leaves_before_those_who_ask_about_it(self) -> None:
        link = StillLink(shared=True)
        by, first, second = dispatch(link), Talker(link, 1, Priority.JOB), Talker(link, 2, Priority.JOB)
        first.listens_ms = 500.0
        add(by, first)
        by.send(0)
        by.spread(Path(link, "*"), b"all", Priority.BULK)
        add(by, second)
        by.send(1)
        assert (len(link.sent), by.wake_ms) == (1, 500.0)
        by.send(500)
        assert link.sent[1] == ("*", b"all", Priority.BULK)
        assert link.sent[2][1][:1] == b"2"
