"""Money on four machines that are cut two from two: both halves are told what is at risk, and joined again it is right.

Neither half has the weight that finality needs (three of four equal witnesses), so what either signs waits. The payee
of one has set a credit line for its payer: that counts as accepted, apart from final money. The other's has not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import GIVE_UP_S, eventually, offgrid
from netns import NEEDS_ROOT
from town import START_MICRO, Town, town_of

pytestmark = NEEDS_ROOT

ROLES = {"anna": ("core", "broker"), "bert": ("host",), "carl": ("host",), "dora": ("host",)}
LEFT, RIGHT = ("anna", "bert"), ("carl", "dora")
CREDIT, FEE_MICRO = 1_000_000, 1_000


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with town_of(tmp_path, LEFT, RIGHT, ROLES) as town:
        yield town


def said(town: Town, name: str, *argv: str, code: int = 0) -> str:
    done = offgrid(town[name], *argv)
    assert done.code == code, done.said
    return done.out


def document(town: Town, name: str, *argv: str, code: int = 0) -> Any:
    return json.loads(said(town, name, "--json", *argv, code=code))


def test_both_halves_are_told_what_is_at_risk_and_joined_again_all_is_right(town: Town) -> None:
    town.start()
    town.open_ledger()
    said(town, "bert", "wallet", "credit", "anna", "10")
    assert "cut off" not in said(town, "anna", "balance")

    town.wires.cut()
    town.see({name: set(half) for half in (LEFT, RIGHT) for name in half})
    paid = {}
    for payer, payee, amount, away in (("anna", "bert", "7", RIGHT), ("carl", "dora", "11", LEFT)):
        shown = said(town, payer, "transfer", "--dst", payee, "--amount", amount, "--timeout", "1", code=7)
        assert "2 of 4 witnesses are out of reach:" in shown, shown
        assert all(f"{name} for " in shown for name in away), shown
        assert "nothing becomes final until one of them is back" in shown, shown
        assert f"at risk   {amount}.001" in shown, shown
        (tx,) = document(town, payer, "tx", "list", "--open")["transactions"]
        paid[payer] = tx["tx_id"]
        eventually(
            lambda p=payer: document(town, p, "tx", "show", paid[p])["transaction"]["voted_milli"] == 2_000,
            "both of the half have voted",
        )
        assert "2.0 of the 2.667 that it takes" in said(town, payer, "tx", "show", tx["tx_id"])
        assert f"going out  {amount}.001" in said(town, payer, "balance")
        assert f"coming in  {amount}\n" in said(town, payee, "balance")
        assert "at risk" in said(town, payee, "ledger", "status")
    assert "accepted   7 of what comes in, within your credit lines" in said(town, "bert", "balance")
    assert "7, within your credit line for anna" in said(town, "bert", "tx", "show", paid["anna"])
    assert "accepted" not in said(town, "dora", "balance")
    refused = offgrid(town["bert"], "transfer", "--dst", "anna", "--amount", "1000001")
    assert refused.code == 4, f"what is accepted is not to be spent: {refused.said}"
    assert {town.balances(name)["bert"] for name in ROLES} == {START_MICRO}

    town.wires.join()
    town.see({name: set(ROLES) for name in ROLES})
    for payer, tx_id in paid.items():
        assert "state     final" in said(town, payer, "tx", "finalize", tx_id, "--timeout", str(GIVE_UP_S))
    town.agree()
    held = town.balances("dora")
    assert (held["anna"], held["bert"]) == (START_MICRO - 7 * CREDIT - FEE_MICRO, START_MICRO + 7 * CREDIT)
    assert (held["carl"], held["dora"]) == (START_MICRO - 11 * CREDIT - FEE_MICRO, START_MICRO + 11 * CREDIT)
    for name in ROLES:
        history = said(town, name, "history")
        assert [line.split()[3:8] for line in history.splitlines()[1:]] in (
            [["final", "carl", "dora", "11", "0.001"], ["final", "anna", "bert", "7", "0.001"]],
            [["final", "anna", "bert", "7", "0.001"], ["final", "carl", "dora", "11", "0.001"]],
        ), history
        assert "cut off" not in said(town, name, "ledger", "status")
        assert said(town, name, "tx", "list", "--open") == "everything is final or void\n"
    assert "accepted" not in said(town, "bert", "balance")
