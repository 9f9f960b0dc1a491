"""Epochs over the handlers: who witnesses next, what ended an epoch and what its witnesses got; one node witnesses."""

from __future__ import annotations

import pytest
from ledger_house import BARN, House

from offgrid.v1 import ledger_pb2
from offgrid_node.keys import verify
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest, NotFound
from offgrid_node.protocol.ledger.commands import OrderCommittee
from offgrid_node.protocol.ledger.records import FEE_MICRO_DEFAULT
from offgrid_node.protocol.ledger.tables import SEALS
from offgrid_node.services.ledger.epochs import EpochReads
from offgrid_node.services.ledger.opening import check_admin
from offgrid_node.storage.store import Batch

Request = ledger_pb2.OrderCommitteeRequest
BARN_TOO = ledger_pb2.Witness(name="barn", weight_milli=500)


@pytest.fixture
def house() -> House:
    house = House()
    house.open("hub")
    return house


def order(house: House, request: Request) -> ledger_pb2.CommitteeOrder:
    answer: ledger_pb2.OrderCommitteeResponse = house.ask("order_committee", request)
    return answer.order


def ended(house: House) -> list[ledger_pb2.Epoch]:
    for _ in range(20):
        house.turn(500)
    answer: ledger_pb2.ListEpochsResponse = house.ask("list_epochs", ledger_pb2.ListEpochsRequest())
    return [*answer.epochs]


def weights(witnesses: object) -> dict[str, int]:
    return {witness.name: witness.weight_milli for witness in witnesses}  # type: ignore[attr-defined]


def test_an_order_names_the_next_committee_and_ends_the_epoch(house: House) -> None:
    told = order(house, Request(add=[BARN_TOO]))
    assert (told.epoch, told.issuer_name, weights(told.witnesses)) == (1, "hub", {"hub": 1_000, "barn": 500})
    assert told.quorum_milli == 1_001
    (epoch,) = ended(house)
    assert (epoch.epoch, epoch.order, weights(epoch.witnesses)) == (0, told.digest, {"hub": 1_000})
    assert weights(epoch.sealed) == {"hub": 1_000}
    assert epoch.is_sealed
    status = house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest())
    assert (status.epoch, weights(status.witnesses)) == (1, {"hub": 1_000, "barn": 500})
    assert status.entered_us == epoch.ended_us
    assert not status.orders


def test_weights_change_and_witnesses_go(house: House) -> None:
    order(house, Request(add=[BARN_TOO]))
    ended(house)
    told = order(house, Request(weigh=[ledger_pb2.Witness(name="hub", weight_milli=2_000)], remove=["barn"]))
    assert (told.epoch, weights(told.witnesses)) == (2, {"hub": 2_000})


def test_a_second_order_is_on_top_of_the_one_that_waits(house: House) -> None:
    order(house, Request(add=[BARN_TOO]))
    ended(house)  # barn is needed from now on, and never votes
    first = order(house, Request(weigh=[ledger_pb2.Witness(name="barn", weight_milli=700)]))
    second = order(house, Request(weigh=[ledger_pb2.Witness(name="hub", weight_milli=900)]))
    assert weights(second.witnesses) == {"hub": 900, "barn": 700}
    assert second.created_us > first.created_us
    status = house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest())
    assert [each.digest for each in status.orders] == [second.digest, first.digest]
    assert weights(status.wishing) == {"hub": 1_000}


@pytest.mark.parametrize(
    ("request_", "wrong"),
    [
        (Request(), "nothing to order"),
        (Request(add=[ledger_pb2.Witness(name="hub")]), r"add\[0\].*hub witnesses already"),
        (Request(remove=["barn"]), r"remove\[0\].*barn.* is no witness; there are hub"),
        (Request(remove=["hub"]), "no committee: 0 witnesses"),
        (Request(weigh=[ledger_pb2.Witness(name="hub")]), r"weigh\[0\].*a weight of 0"),
        (Request(add=[ledger_pb2.Witness(name="barn", weight_milli=2**31)]), r"add\[0\].weight_milli.*are allowed"),
    ],
)
def test_what_may_be_no_order_is_refused_by_its_field(house: House, request_: Request, wrong: str) -> None:
    with pytest.raises(InvalidRequest, match=wrong):
        order(house, request_)


def test_who_is_no_member_is_not_found(house: House) -> None:
    with pytest.raises(NotFound):
        order(house, Request(add=[ledger_pb2.Witness(name="nobody")]))


def test_only_an_admin_orders(house: House) -> None:
    house.ask("end_epoch", ledger_pb2.EndEpochRequest())
    barn = EpochReads(house.store, house.handlers._reads.names, BARN, lambda: house.directory, verify)
    with pytest.raises(FailedPrecondition, match="ask one of: hub") as refused:
        check_admin(house.directory, BARN.node_id, "order who witnesses")
    assert "may not order who witnesses" in refused.value.message
    item = barn.order(Request(add=[BARN_TOO]), house.handlers._reads.ledger, 0)
    ticket = house.runtime.ask("ledger", "x", OrderCommittee(item))
    house.turn()
    assert isinstance(ticket.outcome, FailedPrecondition)
    assert ticket.outcome.reason == "NotAnAdmin"


def test_the_fees_of_an_epoch_are_its_witnesses_reward(house: House) -> None:
    for amount in (5, 6, 7):
        house.pay(amount)
    before = house.balance().final_micro
    answer = house.ask("end_epoch", ledger_pb2.EndEpochRequest())
    assert (answer.epoch, answer.ordered) == (0, True)
    (epoch,) = ended(house)
    assert (epoch.fees_micro, epoch.left_micro) == (3 * FEE_MICRO_DEFAULT, 0)
    assert [(each.name, each.amount_micro) for each in epoch.rewards] == [("hub", 3 * FEE_MICRO_DEFAULT)]
    assert house.balance().final_micro == before + 3 * FEE_MICRO_DEFAULT
    assert not house.ask("list_balances", ledger_pb2.ListBalancesRequest()).fees_micro


def test_epochs_come_in_pages_the_newest_first(house: House) -> None:
    for _ in range(3):
        house.ask("end_epoch", ledger_pb2.EndEpochRequest())
        ended(house)
    page = house.ask("list_epochs", ledger_pb2.ListEpochsRequest(page_size=2))
    rest = house.ask("list_epochs", ledger_pb2.ListEpochsRequest(page_size=2, page_token=page.next_page_token))
    assert [each.epoch for each in [*page.epochs, *rest.epochs]] == [2, 1, 0]
    assert not rest.next_page_token


def test_a_seal_that_is_not_signed_counts_for_nothing(house: House) -> None:
    house.ask("end_epoch", ledger_pb2.EndEpochRequest())
    assert ended(house)[0].is_sealed
    key, row = next(house.store.scan(SEALS))
    house.store.commit(Batch(writes={(SEALS, key): row[:-1] + bytes((row[-1] ^ 1,))}))
    (epoch,) = ended(house)
    assert (epoch.is_sealed, [*epoch.sealed]) == (False, [])
