"""`offgrid.client`'s ledger: one payment for one request id, a watch that ends in time, lists with their sums."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from small_node import SmallNode

import offgrid
from offgrid.client import Client, OffgridError
from offgrid.v1.ledger_pb2 import TxState
from offgrid_node.protocol.errors import FailedPrecondition, NotFound

SIGNED, FINAL = TxState.TX_STATE_SIGNED, TxState.TX_STATE_FINAL


@pytest.fixture
def client(node: SmallNode) -> Iterator[Client]:
    with offgrid.connect(node.address) as connected:
        yield connected


def test_a_transfer_whose_answer_was_lost_is_paid_once(node: SmallNode, client: Client) -> None:
    node.stumble("CreateTransfer", grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    client.ledger.transfer("barn", 5)
    asked = node.calls["CreateTransfer"]
    assert len(asked) == 3
    assert len({request.request_id for request in asked}) == 1
    assert len(node.transactions) == 1


def test_a_refused_transfer_is_not_repeated(node: SmallNode, client: Client) -> None:
    node.stumble("CreateTransfer", FailedPrecondition("too poor", reason="InsufficientFunds"))
    with pytest.raises(OffgridError, match="too poor"):
        client.ledger.transfer("barn", 5)
    assert len(node.calls["CreateTransfer"]) == 1


def test_a_watch_shows_each_change_and_ends_with_the_last(client: Client) -> None:
    tx = client.ledger.transfer("barn", 5)
    assert [seen.state for seen in client.ledger.watch(tx.tx_id)] == [SIGNED, FINAL]


def test_a_watch_survives_the_nodes_restart(node: SmallNode, client: Client) -> None:
    tx = client.ledger.transfer("nobody", 5)
    watch = client.ledger.watch(tx.tx_id)
    assert next(watch).state == SIGNED
    node.stop()
    node.transactions[tx.tx_id].outputs[0].name = "barn"
    threading.Timer(0.2, node.start).start()
    *_, end = watch  # whether it is told of as signed once more depends on who of the two saw the payee first
    assert end.state == FINAL


def test_whoever_waits_so_long_gets_it_as_it_stands(node: SmallNode, client: Client) -> None:
    tx = client.ledger.transfer("nobody", 5)
    began = time.monotonic()
    assert client.ledger.settled(tx.tx_id, 0.1).state == SIGNED
    assert time.monotonic() - began >= 0.1
    assert client.ledger.settled(tx.tx_id, 0.0).state == SIGNED, "even when there is no time at all"
    final = client.ledger.transfer("barn", 5)
    assert client.ledger.settled(final.tx_id, 30).state == FINAL


def test_a_watch_of_nothing_is_an_error_at_once(node: SmallNode, client: Client) -> None:
    node.stumble("WatchTransaction", NotFound("there is no transaction x"))
    with pytest.raises(OffgridError, match="no transaction x"):
        client.ledger.settled("x", 30)


def test_lists_come_whole_with_their_sums(node: SmallNode, client: Client) -> None:
    balances = client.ledger.balances()
    assert [found.name for found in balances.balances] == ["attic", "barn", "shed"]
    assert (balances.fees_micro, balances.supply_micro) == (1_000, 2 * 10**12)
    booked = client.ledger.bookings()
    assert (len(booked.bookings), booked.owed_micro) == (3, 50_000)
    assert len(client.ledger.bookings(limit=1).bookings) == 1
    for amount in range(1, 4):
        client.ledger.transfer("barn", amount)
    assert [tx.outputs[0].amount_micro for tx in client.ledger.history()] == [3, 2, 1]
