"""How often a host is asked what it keeps: ever less often where it loses the same again, soon where much is open."""

from __future__ import annotations

import pytest

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.objects.commands import Compared
from offgrid_node.protocol.objects.comparing import (
    AGAIN_MS,
    RELAPSE_MS,
    REPORT_GAP_MS,
    RETRY_MS,
    TAKEN_MAX,
    UNNAMED_MS,
    Comparing,
)
from offgrid_node.protocol.objects.errands import Compare
from offgrid_node.protocol.objects.inventory import Holding, Inventory
from offgrid_node.protocol.objects.tables import GIVEN
from offgrid_node.storage.memory import MemoryStore

HOLDING = Holding("o-x", (0,))


class Given(Inventory):
    """All that is asked about was acked; nothing ever where it is `empty`."""

    empty = False

    def has(self, node: str, holding: Holding) -> bool:
        return True

    def knows(self, node: str) -> bool:
        return not self.empty


class Owner:
    """One that has acks of host "h"; `stray` is what its machine says of strays."""

    def __init__(self) -> None:
        self.now_ms, self.stray, self.drained, self.restored = 1, False, False, False
        self.draft = Draft()
        self.draft.load(MemoryStore())
        self.draft.begin(self.now)
        self.given = Given(self.draft, GIVEN)
        self.comparing = Comparing(
            self.draft,
            self.given,
            lambda *lost: None,
            lambda *stray: self.stray,
            lambda node: self.drained,
            lambda: self.restored,
        )
        self.comparing.on_up("h", self.now)

    @property
    def now(self) -> Now:
        return Now(self.now_ms, 0)

    def waits_ms(self) -> int:
        """Until the host is asked again; it is asked then."""
        began_ms = self.now_ms
        for _ in range(10):
            self.comparing.close_step(self.now)
            if any(isinstance(effect, Compare) for effect in self.draft.take()):
                return self.now_ms - began_ms
            self.draft.begin(self.now)
            due_ms = self.comparing.deadline_ms(self.now_ms)
            assert due_ms is not None
            self.now_ms = max(self.now_ms, due_ms)
        raise AssertionError("it is never asked")

    def compared(self, lost: bool = False, strays: bool = False, fault: bool = False) -> None:
        self.draft.begin(self.now)
        found = ((HOLDING,) if lost else (), (HOLDING,) if strays else ())
        self.comparing.on_compared(Compared("h", *found, Unavailable("no") if fault else None), self.now)


def test_a_host_that_loses_the_same_again_is_heeded_less_and_less_often() -> None:
    owner, waited = Owner(), []
    for _ in range(12):
        owner.waits_ms()
        owner.compared(lost=True)
        owner.comparing.on_reported("h", owner.now)
        waited.append(owner.waits_ms())
        owner.compared(lost=True)
        owner.comparing.on_reported("h", owner.now)
    assert waited[:3] == [REPORT_GAP_MS << n for n in (0, 2, 4)]
    assert waited[-1] == AGAIN_MS


def test_one_that_had_all_now_and_then_is_heeded_no_sooner_for_that() -> None:
    owner = Owner()
    for lost in (True, False, True, False, True):
        owner.waits_ms()
        owner.compared(lost=lost)
    owner.comparing.on_reported("h", owner.now)
    assert owner.waits_ms() == 4 * REPORT_GAP_MS


def test_one_that_has_lost_nothing_for_long_is_heeded_at_once_again() -> None:
    owner = Owner()
    for _ in range(3):
        owner.waits_ms()
        owner.compared(lost=True)
    owner.now_ms += RELAPSE_MS
    owner.waits_ms()
    owner.compared(lost=True)
    owner.comparing.on_reported("h", owner.now)
    assert owner.waits_ms() == REPORT_GAP_MS


def test_a_comparison_that_failed_says_nothing_of_losses() -> None:
    owner = Owner()
    owner.waits_ms()
    owner.compared(lost=True)
    owner.waits_ms()
    owner.compared(fault=True)
    assert owner.waits_ms() == RETRY_MS


def test_what_it_keeps_unasked_is_settled_as_soon_as_it_can_be() -> None:
    owner, waited = Owner(), []
    owner.stray = True
    owner.waits_ms()
    for _ in range(8):
        owner.compared(strays=True)
        waited.append(owner.waits_ms())
    assert waited[:3] == [RETRY_MS, 2 * RETRY_MS, 4 * RETRY_MS]
    assert waited[-1] == AGAIN_MS


def test_nobody_asks_sooner_for_what_nothing_can_be_said_of() -> None:
    owner = Owner()
    owner.waits_ms()
    owner.compared(strays=True)
    assert owner.waits_ms() == AGAIN_MS


def test_one_that_never_acked_anything_is_asked_where_it_is_drained() -> None:
    owner = Owner()
    owner.given.empty = owner.drained = True
    assert owner.waits_ms() == UNNAMED_MS


def test_and_where_this_node_was_restored_and_may_have_forgotten_that() -> None:
    owner = Owner()
    owner.given.empty = owner.restored = True
    assert owner.waits_ms() == UNNAMED_MS


def test_and_an_hour_later_in_any_case_for_an_old_store_may_not_know_that_it_is_one() -> None:
    owner = Owner()
    owner.given.empty = True
    assert owner.waits_ms() == UNNAMED_MS + AGAIN_MS
    owner.compared()
    assert owner.waits_ms() == AGAIN_MS


@pytest.mark.parametrize("what", ["reported", "down and up"])
def test_a_host_that_has_lost_something_since_it_answered_is_not_sure_by_that_answer(what: str) -> None:
    owner = Owner()
    owner.waits_ms()
    owner.draft.begin(owner.now)
    owner.comparing.on_compared(Compared("h", (HOLDING,) * (TAKEN_MAX + 1)), owner.now)
    owner.comparing.close_step(owner.now)
    if what == "reported":
        owner.comparing.on_reported("h", owner.now)
    else:
        owner.comparing.on_down("h")
        owner.comparing.on_up("h", owner.now)
    owner.comparing.close_step(owner.now)
    assert not owner.comparing.is_sure("h")
    owner.waits_ms()
    owner.compared()
    owner.comparing.close_step(owner.now)
    assert owner.comparing.is_sure("h")
