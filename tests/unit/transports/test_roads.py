"""Of several roads to a peer the one that costs least is taken, for what is to be sent and how urgent it is."""

from __future__ import annotations

import pytest
from still_link import StillLink

from offgrid_transports.path import Path
from offgrid_transports.roads import FRESH_MS, MARGIN, PRICE_SHARED, ROADS_MAX, Measured, Roads
from offgrid_transports.transport import Priority, Transport


class Link(StillLink):
    """A byte takes `byte_ms`."""

    def __init__(self, byte_ms: float, *, shared: bool = False, access_ms: float = 0) -> None:
        super().__init__(shared=shared, access_ms=access_ms)
        self.byte_ms = byte_ms

    def airtime_ms(self, length: int) -> float:
        return length * self.byte_ms


def roads(*paths: Path, price: float = 0.0) -> Roads:
    made = Roads(lambda transport: price if transport.shared else 0.0)
    for path in paths:
        made.heard(0, path, proved=True)
    return made


FAST, SLOW, RADIO = Path(Link(0.01), "a"), Path(Link(1), "a"), Path(Link(1, shared=True), "*")


def test_the_fastest_is_taken_first() -> None:
    made = roads(SLOW, FAST, RADIO)
    assert made.best() == FAST
    assert made.better(SLOW) == FAST
    assert made.better(FAST) is None
    assert made.all()[0].path == FAST


def test_a_road_is_not_left_for_one_that_is_hardly_better() -> None:
    nearly, clearly = Path(Link(1 / (MARGIN * 0.99)), "a"), Path(Link(1 / (MARGIN * 1.5)), "a")
    assert roads(SLOW, nearly).better(SLOW, 10_000) is None
    assert roads(SLOW, clearly).better(SLOW, 10_000) == clearly


@pytest.mark.parametrize(("length", "taken"), [(10, "quick to begin"), (10_000, "quick to carry")])
def test_what_is_best_depends_on_the_length(length: int, taken: str) -> None:
    begins, carries = Path(Link(1), "quick to begin"), Path(Link(0.1, access_ms=50), "quick to carry")
    best = roads(begins, carries).best(length)
    assert best is not None
    assert best.address == taken


def test_what_can_wait_saves_the_air_of_others_and_what_is_urgent_pays_for_it() -> None:
    slower = Path(Link(4), "wire")
    made = roads(RADIO, slower, price=PRICE_SHARED)
    assert made.best(1000, Priority.CONTROL) == RADIO
    assert made.best(1000, Priority.PAYMENT) == RADIO
    assert made.best(1000, Priority.BULK) == slower


def test_one_that_brings_no_word_is_left_until_the_peer_is_heard_there_again() -> None:
    made = roads(FAST, SLOW)
    made.failed(10, FAST)
    assert made.best() == SLOW
    assert made.better(FAST) == SLOW
    made.heard(11, FAST, proved=True)
    assert made.best() == FAST


def test_where_all_have_failed_the_one_that_did_longest_ago_is_tried() -> None:
    made = roads(FAST, SLOW)
    made.failed(10, SLOW)
    made.failed(20, FAST)
    assert made.best() == SLOW
    made.failed(30, SLOW)
    assert made.best() == FAST


def test_one_whose_link_is_down_or_may_not_send_is_not_taken() -> None:
    for spoil in ("up", "wait"):
        link = Link(0.01)
        made = roads(Path(link, "a"), SLOW)
        if spoil == "up":
            link.up = False
        else:
            link.access_ms = float("inf")
        assert made.best() == SLOW
    assert roads(Path(link, "a")).better(Path(link, "a")) is None


def test_loss_and_the_peers_own_time_count() -> None:
    made = roads(FAST, SLOW)
    made.measured(FAST, Measured(delay_ms=10_000))
    assert made.best() == SLOW
    made.measured(FAST, Measured(delay_ms=50, loss=0.9))
    made.measured(SLOW, Measured(delay_ms=50))
    assert made.best(10) == SLOW
    made.measured(FAST, Measured(delay_ms=50, rate=0.1))
    assert made.best(10_000) == SLOW


def test_there_are_only_so_many_and_the_one_heard_longest_ago_gives_way() -> None:
    link: Transport = Link(1)
    made = roads()
    for number in range(ROADS_MAX + 2):
        made.heard(number, Path(link, str(number)), proved=True)
    made.heard(100, Path(link, "2"), proved=True)
    made.heard(101, Path(link, "new"), proved=True)
    assert len(made) == ROADS_MAX
    assert {road.path.address for road in made.all()} == {"2", "new", *map(str, range(4, ROADS_MAX + 2))}


def test_who_says_falsely_where_a_peer_is_drives_out_no_road_that_leads_there() -> None:
    link: Transport = Link(0.001)
    made = roads(SLOW)
    for number in range(100):
        made.heard(number, Path(link, f"false {number}"), proved=False)
    assert made.get(SLOW) is not None
    assert made.first() == SLOW
    assert made.best() != SLOW, "it is worth an echo"


def test_proved_roads_that_lead_nowhere_any_more_keep_no_new_one_out() -> None:
    link: Transport = Link(1)
    failed, silent = roads(), roads()
    for number in range(ROADS_MAX):
        for made in (failed, silent):
            made.heard(number, Path(link, str(number)), proved=True)
    new = Path(link, "new")
    failed.failed(100, Path(link, "3"))
    failed.heard(101, new, proved=False)
    assert {road.path.address for road in failed.all()} == {"new", "0", "1", "2", "4", "5", "6", "7"}
    silent.heard(ROADS_MAX + FRESH_MS, new, proved=False)
    assert {road.path.address for road in silent.all()} == {"new", *map(str, range(1, ROADS_MAX))}


def test_nothing_known_is_no_road() -> None:
    assert roads().best() is None
    assert roads().better(FAST) is None
