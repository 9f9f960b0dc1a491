"""When an alert begins, ends and is told: by looks in a row beyond a threshold, and never within the band below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.services.health.alerts import (
    ALERTS_MAX,
    CLEAR,
    FALL,
    RISE,
    STALE,
    TOLD_EVERY,
    TOLD_MAX,
    Alert,
    Alerts,
    Limits,
    State,
)

OK, WARN, CRITICAL = State
BOTH = Limits(warn=100, critical=200)


class Watched:
    """Alerts of one figure, looked at as often as there are values; None: nobody said it."""

    def __init__(self, limits: Limits = BOTH) -> None:
        self.alerts, self.now_us, self.told = Alerts({"f": limits}), 0, list[Alert]()

    def look(self, *values: float | None) -> State:
        for value in values:
            self.now_us += 1
            self.told += self.alerts.look({("f", ""): value} if value is not None else {}, self.now_us)
        return self.state

    @property
    def state(self) -> State:
        shown = self.alerts.all()
        return shown[0].state if shown else OK

    @property
    def states(self) -> Sequence[State]:
        return [alert.state for alert in self.told]


def test_it_begins_after_some_looks_in_a_row() -> None:
    watched = Watched()
    assert watched.look(*[101] * (RISE - 1)) is OK
    assert watched.look(101) is WARN
    assert watched.told == [Alert("f", "", WARN, RISE, 101, 100)]


def test_one_good_look_between_begins_the_count_anew() -> None:
    watched = Watched()
    assert watched.look(*[*[101] * (RISE - 1), 100] * 20) is OK
    assert not watched.told


def test_the_threshold_itself_is_not_beyond_it() -> None:
    assert Watched().look(*[100] * 50) is OK


def test_it_ends_after_some_looks_well_below() -> None:
    watched = Watched()
    watched.look(*[101] * RISE)
    assert watched.look(*[89] * (FALL - 1)) is WARN
    assert watched.look(89) is OK
    assert watched.told[-1] == Alert("f", "", OK, RISE + FALL, 89, 100)


def test_below_the_threshold_and_not_well_below_it_goes_on() -> None:
    watched = Watched()
    watched.look(*[101] * RISE)
    assert watched.look(*[100 * CLEAR] * 100) is WARN
    assert watched.look(*[*[10] * (FALL - 1), 95] * 10) is WARN


@pytest.mark.parametrize("most", [0, 1, 8, 9, 40])
def test_a_count_is_well_again_as_soon_as_it_is_not_above_its_threshold(most: int) -> None:
    watched = Watched(Limits(warn=most, is_count=True))
    watched.look(*[most + 1] * RISE, *[*[most] * (FALL - 1), most + 1] * 3)
    assert watched.states == [WARN]
    assert watched.look(*[most] * FALL) is OK


def test_it_gets_worse_and_better_step_by_step() -> None:
    watched = Watched()
    watched.look(*[101] * RISE, *[201] * RISE, *[150] * FALL, *[10] * FALL)
    assert watched.states == [WARN, CRITICAL, WARN, OK]
    assert [alert.threshold for alert in watched.told] == [100, 200, 100, 100]


def test_it_may_be_critical_at_once_and_ok_at_once() -> None:
    watched = Watched()
    watched.look(*[1_000] * RISE, *[0] * FALL)
    assert watched.states == [CRITICAL, OK]


def test_a_figure_with_a_critical_threshold_alone_never_warns() -> None:
    watched = Watched(Limits(critical=16.67))
    watched.look(*[17] * RISE, *[10] * FALL)
    assert watched.states == [CRITICAL, OK]
    assert watched.told[-1].threshold == 16.67


def test_a_figure_without_a_threshold_is_not_judged() -> None:
    watched = Watched(Limits())
    watched.look(*[1e300] * 100)
    assert (watched.alerts.all(), watched.told) == ([], [])
    assert Alerts({}).look({("unheard-of", ""): 1.0}, 1) == []


def test_looks_at_which_nobody_says_it_count_for_nothing() -> None:
    watched = Watched()
    assert watched.look(101, None, 101, *[None] * (STALE - 1)) is OK
    assert watched.look(101) is WARN


def test_what_nobody_says_any_more_has_ended() -> None:
    watched = Watched()
    watched.look(*[101] * RISE, *[None] * (STALE - 1))
    assert watched.state is WARN
    watched.look(None)
    assert watched.states == [WARN, OK]
    assert watched.alerts.all() == []
    watched.look(*[101] * RISE)
    assert watched.states == [WARN, OK, WARN], "it begins anew"


def test_what_is_there_no_more_ends_at_once() -> None:
    watched = Watched()
    watched.look(*[101] * RISE)
    watched.alerts.end("", 77)
    assert watched.alerts.abouts == frozenset()
    watched.look(None)
    assert watched.told[-1] == Alert("f", "", OK, 77, 101, 100)


def test_the_worst_come_first() -> None:
    alerts = Alerts({"f": BOTH})
    for _ in range(RISE):
        told = alerts.look({("f", "a"): 1, ("f", "b"): 150, ("f", "c"): 250}, 1)
    assert [alert.about for alert in alerts.all()] == ["c", "b", "a"]
    assert [alert.about for alert in told] == ["c", "b"]


def test_as_many_are_judged_as_there_is_room_for() -> None:
    alerts = Alerts({"f": BOTH})
    alerts.look({("f", str(number)): 1 for number in range(ALERTS_MAX + 50)}, 1)
    assert len(alerts.all()) == ALERTS_MAX
    alerts.end("0", 2)
    for _ in range(2):  # it goes with the first of these
        alerts.look({("f", str(ALERTS_MAX)): 1}, 3)
    assert len(alerts.all()) == ALERTS_MAX
    assert str(ALERTS_MAX) in alerts.abouts


class TestTelling:
    def test_a_flapping_figure_is_told_so_often_and_no_more(self) -> None:
        watched, cycles = Watched(), 500
        watched.look(*[*[101] * RISE, *[0] * FALL] * cycles)
        looks = cycles * (RISE + FALL)
        assert len(watched.told) <= TOLD_MAX + looks // TOLD_EVERY
        assert len(watched.told) >= looks // TOLD_EVERY - TOLD_MAX

    def test_what_could_not_be_told_is_once_it_may_if_it_is_still_so(self) -> None:
        alerts = Alerts({"f": BOTH})
        many = {("f", str(number)): 101.0 for number in range(TOLD_MAX + 2)}
        told = [alert for _ in range(RISE) for alert in alerts.look(many, 1)]
        assert len(told) == TOLD_MAX
        for _ in range(2 * TOLD_EVERY):
            told += alerts.look(many, 1)
        assert {alert.about for alert in told} == {about for _, about in many}
        assert len(told) == len(many)

    def test_one_that_begins_anew_before_its_end_was_told_has_ended_first(self) -> None:
        alerts = Alerts({"f": BOTH})
        many = {("f", str(number)): 101.0 for number in range(TOLD_MAX)}
        for _ in range(RISE):
            alerts.look(many, 1)
        alerts.end("3", 2)
        assert alerts.look({}, 3) == [], "nothing more may be told now"
        told = [alert for _ in range(TOLD_EVERY) for alert in alerts.look({("f", "3"): 1.0}, 4)]
        assert [(alert.about, alert.state) for alert in told] == [("3", OK)]

    def test_the_end_of_one_that_is_gone_is_told_too(self) -> None:
        alerts = Alerts({"f": BOTH})
        many = {("f", str(number)): 101.0 for number in range(TOLD_MAX)}
        for _ in range(RISE):
            alerts.look(many, 1)
        alerts.end("3", 2)
        rest = {key: value for key, value in many.items() if key[1] != "3"}
        told = [alert for _ in range(TOLD_EVERY) for alert in alerts.look(rest, 3)]
        assert [(alert.about, alert.state) for alert in told] == [("3", OK)]


figures = st.floats(min_value=0, max_value=1e18)


@given(st.lists(st.floats(min_value=90, max_value=100), max_size=200), st.booleans())
def test_it_never_changes_within_the_band(values: list[float], begun: bool) -> None:
    watched = Watched(Limits(warn=100))
    if begun:
        watched.look(*[101] * RISE)
    before = watched.state
    for value in values:
        assert watched.look(value) is before


@given(st.lists(st.one_of(st.none(), figures, st.floats(80, 110), st.floats(170, 210)), max_size=60))
def test_it_is_what_the_last_looks_say(values: list[float | None]) -> None:
    """Against the rule written down once more, over all of history."""
    watched = Watched()
    watched.look(*values)
    assert watched.state is expected(values)


@given(st.lists(st.one_of(st.none(), figures, st.floats(80, 110)), max_size=80))
def test_what_is_told_is_a_change_each_time(values: list[float | None]) -> None:
    watched = Watched()
    watched.look(*values)
    states = [OK, *watched.states]
    assert all(before is not after for before, after in pairwise(states))


def expected(values: Sequence[float | None]) -> State:
    unseen = next((n for n, value in enumerate(reversed(values)) if value is not None), STALE)
    if unseen >= STALE:
        return OK
    return max(
        (state for state, threshold in ((WARN, 100.0), (CRITICAL, 200.0)) if is_on(values, threshold)), default=OK
    )


def is_on(values: Iterable[float | None], threshold: float) -> bool:
    on, row, silent = False, list[float](), 0
    for value in values:
        silent = 0 if value is not None else silent + 1
        if silent >= STALE:
            on, row = False, []
        if value is None:
            continue
        row.append(value)
        if not on and len(row) >= RISE and min(row[-RISE:]) > threshold:
            on, row = True, []
        elif on and len(row) >= FALL and max(row[-FALL:]) < CLEAR * threshold:
            on, row = False, []
    return on


@pytest.mark.parametrize("value", [float("inf"), 1e308])
def test_what_is_beyond_all_measure_is_beyond_the_threshold(value: float) -> None:
    assert Watched().look(*[value] * RISE) is CRITICAL
