"""What an owner finds out about its hosts: how far, how fast, how roomy they are, and how that grows old."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.events import BROKER, HOST, PeerUp
from offgrid_node.protocol.objects.errands import Shipped
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.measuring import (
    AGAIN_MS,
    APART_MS,
    EVERY_MS,
    FIRST_MS_MAX,
    GET_CAPACITY,
    SILENT_ROUNDS_MAX,
    SPEED_AGE_MAX_MS,
    SPEED_BYTES_MIN,
    UNDER_WAY_MAX,
    AskTag,
    Measuring,
)
from offgrid_node.protocol.objects.preference import UNKNOWN, Facts
from offgrid_node.protocol.objects.settings import REPAIR_AFTER_MS

ROOM = objects_pb2.GetCapacityResponse(keeps_replicas=True, owner_free_bytes=1_000)
FULL = objects_pb2.GetCapacityResponse(keeps_replicas=True, owner_free_bytes=0)


class Owner:
    """The part of a machine that measures, and time that passes from question to question."""

    def __init__(self, hosts: int = 1) -> None:
        self.draft, self.rng, self.now_ms = Draft(), Random(1), 0
        self.hosts = Hosts("owner", REPAIR_AFTER_MS)
        self.anew: list[str] = []  # hosts that were found to have begun anew
        self.measuring = Measuring(self.hosts, self.draft, lambda node, now: self.anew.append(node))
        for number in range(hosts):
            self.meet(f"h{number}")

    @property
    def now(self) -> Now:
        return Now(self.now_ms, 0)

    def meet(self, node: str) -> None:
        assert self.hosts.on_up(PeerUp(node, "", frozenset({HOST}), 1_000, ""), self.now)
        self.measuring.on_up(node, self.now, self.rng)

    def lose(self, node: str) -> None:
        assert self.hosts.on_down(node, self.now)
        self.measuring.on_down(node)

    def facts(self, node: str = "h0") -> Facts:
        return self.hosts.get(node, 0).facts

    def next_calls(self) -> list[Call]:
        """What is asked at the next instant at which anything is."""
        due_ms = self.measuring.deadline_ms()
        assert due_ms is not None
        self.now_ms = max(self.now_ms, due_ms)
        self.measuring.close_step(self.now, self.rng)
        return [effect for effect in self.draft.take() if isinstance(effect, Call)]

    def answer(self, call: Call, said: object, after_ms: int = 3) -> bool:
        self.now_ms += after_ms
        reply, fault = (None, said) if isinstance(said, Unavailable) else (said, None)
        assert isinstance(call.tag, AskTag)
        return self.measuring.on_answered(call.tag, Answered(call.tag, call.node, reply, fault), self.now)

    def ask(self, said: object = ROOM, after_ms: int = 3) -> bool:
        (call,) = self.next_calls()
        assert (call.method, call.early) == (GET_CAPACITY, True)
        return self.answer(call, said, after_ms)

    def ship(self, sent_bytes: int, took_ms: int, *, acked: bool = True) -> None:
        ack = common_pb2.Signed() if acked else None
        self.measuring.on_shipped(Shipped("o-1", "h0", ack, None, sent_bytes, took_ms), self.now)


def test_a_host_is_asked_soon_after_it_comes_and_then_about_once_a_minute() -> None:
    owner, asked = Owner(), []
    for _ in range(20):
        owner.ask()
        asked.append(owner.now_ms)
    assert asked[0] <= FIRST_MS_MAX + 3
    gaps = [later - sooner for sooner, later in itertools.pairwise(asked)]
    assert all(EVERY_MS * 3 // 4 <= gap <= EVERY_MS * 5 // 4 + 3 for gap in gaps)
    assert len(set(gaps)) > 10, "not in step with other owners"


def test_of_many_hosts_each_is_asked_less_often_and_few_at_once() -> None:
    owner, count = Owner(hosts=200), 0
    while owner.now_ms < 3_600_000:
        for call in owner.next_calls():
            owner.answer(call, ROOM, 0)
            count += 1
    assert count <= 1.1 * 3_600_000 / APART_MS + 200
    silent, calls = Owner(hosts=50), []
    while silent.measuring.deadline_ms() is not None:
        calls += silent.next_calls()
    assert len(calls) == UNDER_WAY_MAX
    silent.answer(calls[0], Unavailable("away"))
    assert len(silent.next_calls()) == 1


def test_a_host_that_names_its_life_for_the_first_time_has_begun_anew_whether_it_seemed_gone_or_not() -> None:
    owner, named = Owner(), list[int]()

    def says(life: bytes) -> None:
        owner.ask(objects_pb2.GetCapacityResponse(life=life))
        named.append(len(owner.anew))

    for life in (b"a", b"a", b"b", b"b"):
        says(life)
    assert named == [1, 1, 2, 2]
    owner.meet("h0")
    says(b"b")
    assert named[-1] == 2, "it said something new of itself, and is the same"
    owner.lose("h0")
    owner.meet("h0")
    says(b"b")
    assert named[-1] == 3, "it was away, and what it had acked until now may be of an earlier life"


def test_what_a_host_says_and_how_long_that_took() -> None:
    owner = Owner()
    assert owner.facts() == UNKNOWN
    for round_trip_ms in (40, 7, 900, 9, 8):
        owner.ask(after_ms=round_trip_ms)
    assert owner.facts() == Facts(room_bytes=1_000, round_trip_ms=9), "the middle one"
    owner.ask(objects_pb2.GetCapacityResponse(drained=True), 9)
    assert owner.facts() == Facts(takes=False, drained=True, room_bytes=0, round_trip_ms=9)


@pytest.mark.parametrize(
    ("before", "after", "more"),
    [
        (FULL, ROOM, True),
        (ROOM, ROOM, False),
        (ROOM, FULL, False),
        (objects_pb2.GetCapacityResponse(owner_free_bytes=5), ROOM, True),
        (ROOM, objects_pb2.GetCapacityResponse(keeps_replicas=True, owner_free_bytes=9_999, drained=True), False),
    ],
)
def test_it_is_told_when_a_host_takes_more_than_it_did(before: object, after: object, more: bool) -> None:
    owner = Owner()
    owner.ask(before)
    assert owner.ask(after) == more


def test_a_host_that_does_not_answer_is_one_of_which_nothing_is_known() -> None:
    owner = Owner()
    owner.ask(FULL)
    for _ in range(SILENT_ROUNDS_MAX - 1):
        assert not owner.ask(Unavailable("away"))
        assert owner.facts().room_bytes == 0
    assert owner.ask(common_pb2.Signed()), "an answer that is none; it may have room after all"
    assert owner.facts() == UNKNOWN
    owner.ask(ROOM, 2)
    assert owner.facts() == Facts(room_bytes=1_000, round_trip_ms=2)


def test_a_host_that_does_not_answer_is_asked_again_soon_and_then_ever_later() -> None:
    """It may only just have started, and what it knew of itself before, as that it is drained, counts at once."""
    owner, asked = Owner(), []
    for _ in range(SILENT_ROUNDS_MAX + 4):
        owner.ask(Unavailable("not listening yet"), 0)
        asked.append(owner.now_ms)
    gaps = [later - sooner for sooner, later in itertools.pairwise(asked)]
    assert gaps[:5] == [AGAIN_MS, 2 * AGAIN_MS, 4 * AGAIN_MS, 8 * AGAIN_MS, 16 * AGAIN_MS]
    assert all(EVERY_MS * 3 // 4 <= gap <= EVERY_MS * 5 // 4 for gap in gaps[5:])
    owner.ask(ROOM)
    owner.ask(Unavailable("away"), 0)
    unanswered_ms = owner.now_ms
    owner.ask(ROOM, 0)
    assert owner.now_ms - unanswered_ms == AGAIN_MS, "the answer before has made it begin anew"


def test_how_fast_a_host_takes_what_is_shipped_and_that_it_grows_old() -> None:
    owner = Owner()
    for took_ms in (100, 1_000, 200):
        owner.ship(SPEED_BYTES_MIN, took_ms)
    owner.ship(SPEED_BYTES_MIN - 1, 1)  # too little to say anything
    owner.ship(SPEED_BYTES_MIN, 1, acked=False)
    owner.ship(0, 0)
    assert owner.facts() == Facts(bytes_per_s=SPEED_BYTES_MIN * 5)
    owner.now_ms += SPEED_AGE_MAX_MS
    owner.ask()
    assert owner.facts().bytes_per_s is None


def test_what_was_shipped_takes_room_until_the_host_says_how_much_is_left() -> None:
    owner = Owner()
    owner.ask(ROOM)
    owner.ship(900, 1, acked=False)
    assert owner.facts().room_bytes == 100
    owner.ship(900, 1)
    assert owner.facts().room_bytes == 0
    owner.ask(ROOM)
    assert owner.facts().room_bytes == 1_000


def test_a_host_that_goes_is_not_asked_and_begins_anew() -> None:
    owner = Owner()
    owner.ask(FULL)
    (call,) = owner.next_calls()
    owner.lose("h0")
    assert owner.measuring.deadline_ms() is None
    assert not owner.answer(call, ROOM)
    assert not owner.hosts.get("h0", 0).alive
    owner.meet("h0")
    assert owner.facts() == UNKNOWN
    owner.ask(ROOM)
    assert owner.facts().room_bytes == 1_000


def test_an_answer_that_a_former_life_of_this_node_asked_for_is_as_good() -> None:
    (call,) = Owner().next_calls()
    reloaded = Owner()
    reloaded.now_ms = 1_000
    reloaded.answer(call, ROOM, 0)
    assert reloaded.facts().room_bytes == 1_000
    assert len(reloaded.next_calls()) == 1


def test_one_that_says_something_new_of_itself_keeps_what_is_known() -> None:
    owner = Owner()
    owner.ask(ROOM)
    owner.meet("h0")
    assert owner.facts().room_bytes == 1_000
    assert not owner.hosts.on_up(PeerUp("h0", "", frozenset({BROKER}), 1_000, ""), owner.now)
    assert not owner.hosts.get("h0", 0).alive
