"""Misreporting never pays a single-slot host; and would be seen if it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from offgrid_node.protocol.jobs import clearing
from offgrid_node.protocol.jobs.classes import Seat
from offgrid_tools.soak.auctions import soak_auctions

ROUNDS = 2_000


def quiet(line: str) -> None:
    """Nobody reads it."""


def test_no_lie_about_its_cost_pays_a_host() -> None:
    assert soak_auctions(0, ROUNDS, quiet) == []


def pays_its_ask(winner: Seat, losers: Sequence[int], count: int, group: Any) -> int:
    return winner.bid.ask_micro


def pays_a_lone_one_its_ask(winner: Seat, losers: Sequence[int], count: int, group: Any) -> int:
    return losers[0] - winner.score + winner.bid.ask_micro if losers else winner.bid.ask_micro


def forgets_the_handicap(winner: Seat, losers: Sequence[int], count: int, group: Any) -> int:
    return max(winner.bid.ask_micro, min([*losers, group.price_max_micro]))


@pytest.mark.parametrize("price", [pays_its_ask, pays_a_lone_one_its_ask, forgets_the_handicap])
def test_a_price_that_depends_on_the_ask_is_found_out(
    price: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearing, "_price", price)
    assert soak_auctions(0, ROUNDS, quiet)


def test_so_is_who_deals_the_larger_jobs_to_the_lower_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "_by_host", lambda seat: seat)
    assert soak_auctions(0, ROUNDS, quiet)
