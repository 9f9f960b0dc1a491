"""When the nodes of a soak say the same of money."""

from __future__ import annotations

import pytest

from offgrid.v1.ledger_pb2 import Balance, ListBalancesResponse
from offgrid_tools.soak.audit_money import Money

HUB, HOLD = Balance(account="a", name="hub", final_micro=7), Balance(account="h", final_micro=3)


def view(*balances: Balance) -> ListBalancesResponse:
    return ListBalancesResponse(balances=balances, supply_micro=10)


def test_each_node_names_the_holds_that_it_has_a_part_in_and_lists_by_name() -> None:
    payer = view(HUB, Balance(account="h", name="hold 1 for barn", final_micro=3))
    payee = view(Balance(account="h", name="hold 1 of hub", final_micro=3), HUB)
    assert Money(balances={"hub": payer, "barn": payee, "attic": view(HUB, HOLD)}).equal


@pytest.mark.parametrize(
    "other",
    [
        view(HUB, Balance(account="h", final_micro=4)),
        view(HUB, Balance(account="i", final_micro=3)),
        view(HUB),
        ListBalancesResponse(balances=[HUB, HOLD], supply_micro=11),
    ],
)
def test_another_sum_account_or_supply_is_not_the_same(other: ListBalancesResponse) -> None:
    assert not Money(balances={"hub": view(HUB, HOLD), "barn": other}).equal
