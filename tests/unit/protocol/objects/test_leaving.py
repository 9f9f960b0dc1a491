"""Hosts that are emptied hear that they may drop what they keep as soon as it can be said, and are not forgotten."""

from __future__ import annotations

import pytest

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.objects import leaving
from offgrid_node.protocol.objects.leaving import RETRY_MAX_MS, RETRY_MS, Leaving


class Owner:
    """Says `later` each time, as often as it is to tell."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int]] = []
        self.leaving = Leaving(lambda node, object_id, now: self.told.append((node, object_id, now.mono_ms)))

    def pass_ms(self, until_ms: int, *, later: bool = True) -> None:
        while (due_ms := self.leaving.deadline_ms()) is not None and due_ms <= until_ms:
            count = len(self.told)
            self.leaving.close_step(Now(due_ms, 0))
            for node, object_id, _ in self.told[count:] if later else ():
                self.leaving.later(node, object_id, Now(due_ms, 0))


def test_it_is_tried_again_ever_more_seldom() -> None:
    owner = Owner()
    owner.leaving.later("h", "o", Now(0, 0))
    owner.pass_ms(20 * RETRY_MAX_MS)
    times = [at for _, _, at in owner.told]
    gaps = [after - before for before, after in zip([0, *times], times, strict=False)]
    assert gaps[:4] == [RETRY_MS, 2 * RETRY_MS, 4 * RETRY_MS, 8 * RETRY_MS]
    assert gaps[-1] == RETRY_MAX_MS == max(gaps)


def test_once_said_it_is_over_and_begins_anew() -> None:
    owner = Owner()
    owner.leaving.later("h", "o", Now(0, 0))
    owner.leaving.later("h", "o", Now(0, 0))
    owner.leaving.over("h", "o")
    assert owner.leaving.deadline_ms() is None
    owner.leaving.later("h", "o", Now(0, 0))
    assert owner.leaving.deadline_ms() == RETRY_MS


def test_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "WAITING_MAX", 2)
    owner = Owner()
    for number in range(3):
        owner.leaving.later("h", f"o-{number}", Now(0, 0))
    owner.pass_ms(RETRY_MS, later=False)
    assert [object_id for _, object_id, _ in owner.told] == ["o-0", "o-1"]
