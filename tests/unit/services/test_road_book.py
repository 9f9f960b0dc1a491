"""Which carrier is asked first: one that brings no word is passed over until an echo has come back by it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from offgrid.v1 import links_pb2
from offgrid_node.protocol.errors import CONNECTION_REFUSED, Exhausted, InvalidRequest, OutcomeUnknown, Unavailable
from offgrid_node.services.roads.book import AGAIN_FIRST_MS, AGAIN_MAX_MS, KNOWN_MAX, LATE_MAX, RoadBook


@dataclass(frozen=True)
class Named:
    name: str


GRPC, LINKS = Named("grpc"), Named("links")
ANSWER = links_pb2.EchoResponse()


class Clock:
    def __init__(self) -> None:
        self.now_ms = 0
        self.book = RoadBook(lambda: self.now_ms)

    def names(self, node: str = "barn") -> list[str]:
        return [road.name for road in self.book.order(node, [GRPC, LINKS])]


@pytest.mark.parametrize("reason", ["NotConnected", CONNECTION_REFUSED])
def test_one_that_cannot_be_reached_comes_last_at_once_and_for_that_node_alone(reason: str) -> None:
    clock = Clock()
    assert clock.names() == ["grpc", "links"]
    clock.book.ended("barn", "grpc", Unavailable("gone", reason=reason))
    assert clock.names() == ["links", "grpc"]
    assert clock.names("attic") == ["grpc", "links"]


def test_where_all_fail_the_order_is_as_it_was() -> None:
    clock = Clock()
    for road in ("links", "grpc"):
        clock.book.ended("barn", road, Unavailable("gone", reason="NotConnected"))
    assert clock.names() == ["grpc", "links"]


def test_a_late_answer_may_be_the_peers_fault_but_not_several_in_a_row() -> None:
    clock = Clock()
    late = OutcomeUnknown("late", reason="DeadlineExceeded")
    for _ in range(LATE_MAX - 1):
        clock.book.ended("barn", "grpc", late)
    clock.book.ended("barn", "grpc", ANSWER)
    for _ in range(LATE_MAX - 1):
        clock.book.ended("barn", "grpc", late)
    assert clock.names()[0] == "grpc"
    clock.book.ended("barn", "grpc", late)
    assert clock.names()[0] == "links"


@pytest.mark.parametrize(
    "answer", [ANSWER, Exhausted("full", reason="Busy"), Unavailable("loading", reason="Reloading")], ids=str
)
def test_whatever_its_end_says_itself_shows_that_it_leads_there(answer: object) -> None:
    clock = Clock()
    for _ in range(LATE_MAX):
        clock.book.ended("barn", "grpc", answer)
    assert clock.names()[0] == "grpc"


@pytest.mark.parametrize(
    "refused", [InvalidRequest("no", reason="UnknownMethod"), Exhausted("too long", reason="RequestTooLarge")], ids=str
)
def test_what_was_refused_before_it_left_shows_nothing(refused: object) -> None:
    clock = Clock()
    clock.book.ended("barn", "grpc", Unavailable("gone", reason="NotConnected"))
    clock.book.ended("barn", "grpc", refused)
    assert clock.names()[0] == "links"
    assert clock.book.seen("barn", "grpc").answered_ms is None


def test_one_that_is_passed_over_is_tried_again_ever_more_seldom() -> None:
    clock, waits, failed = Clock(), list[int](), Unavailable("gone", reason="NotConnected")
    clock.book.ended("barn", "grpc", failed)
    for _ in range(9):
        since_ms = clock.now_ms
        while not (tries := clock.book.to_try("barn", [GRPC, LINKS])):
            clock.now_ms += 500
        assert tries == [GRPC]
        assert clock.book.to_try("barn", [GRPC, LINKS]) == [], "one at a time"
        waits.append(clock.now_ms - since_ms)
        clock.book.tried("barn", "grpc", failed, 1.0)
    assert waits[:3] == [AGAIN_FIRST_MS, 2 * AGAIN_FIRST_MS, 4 * AGAIN_FIRST_MS]
    assert waits[-1] == AGAIN_MAX_MS


def test_an_echo_that_comes_back_brings_it_back() -> None:
    clock = Clock()
    clock.book.ended("barn", "grpc", Unavailable("gone", reason="NotConnected"))
    clock.now_ms = AGAIN_FIRST_MS
    [road] = clock.book.to_try("barn", [GRPC, LINKS])
    clock.book.tried("barn", road.name, ANSWER, 12.5)
    assert clock.names()[0] == "grpc"
    assert clock.book.seen("barn", "grpc").rtt_ms == 12.5


def test_only_so_much_is_remembered() -> None:
    clock = Clock()
    for number in range(KNOWN_MAX + 1):
        clock.book.ended(f"n{number}", "grpc", Unavailable("gone", reason="NotConnected"))
    assert clock.names("n0") == ["grpc", "links"]
    assert clock.names("n1") == ["links", "grpc"]
