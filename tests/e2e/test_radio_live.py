"""Real nodes with emulated radios between them and no IP: a job, an object and a payment, over LoRa and over BLE."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from live import COMPLETED, eventually, log_of, offgrid

from offgrid.client import payloads
from offgrid.v1 import ledger_pb2
from offgrid_node.executors import programs
from offgrid_tools.radio_town import RadioTown

FINAL = ledger_pb2.TX_STATE_FINAL
SPEED = "speed=4"  # of the LoRa channel's time


@pytest.fixture(scope="module", params=["lora", "ble"])
def town(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RadioTown]:
    medium: str = request.param
    folder = tmp_path_factory.mktemp(medium)
    with RadioTown(folder, medium, *([SPEED] if medium == "lora" else [])) as town:
        town.start()
        yield town
        for node in town.mesh.nodes.values():
            log_of(node)


def test_no_road_but_the_radio_leads_from_one_to_the_other(town: RadioTown) -> None:
    with town.hut.client() as hut:
        mill = next(peer for peer in hut.mesh.peers() if peer.member.node_id == town.mill.node_id)
    assert list(mill.addresses) == ["192.0.2.1:7440"]


def test_a_job_is_executed_at_the_other(town: RadioTown) -> None:
    with town.hut.client(timeout_s=60) as hut:
        job = hut.jobs.run(payloads.wasm(programs.load("upper"), input=b"come over, the mill turns"), title="t")
    assert (job.state, job.host) == (COMPLETED, town.mill.node_id)
    assert job.result.output == b"COME OVER, THE MILL TURNS"


def test_an_object_is_kept_at_the_other_and_read_from_there(town: RadioTown) -> None:
    data = bytes(range(256)) * 12
    with town.hut.client(timeout_s=60) as hut:
        made = hut.objects.put(data, name="map", copies=1, required_milli=1_000)
        eventually(lambda: not hut.objects.get(made.object_id).local, "nothing of it is left at its owner")
        assert hut.objects.read("map") == data
        assert [ack.node_id for ack in hut.objects.get("map").acks] == [town.mill.node_id]


def test_a_payment_is_final_at_both(town: RadioTown) -> None:
    with town.hut.client(timeout_s=60) as hut:
        hut.ledger.open()
        with town.mill.client() as mill:
            eventually(lambda: mill.ledger.status().open, "the other knows the ledger")
            done = offgrid(town.hut, "transfer", "--dst", "mill", "--amount", "2.5", "--json")
            tx_id = json.loads(done.out)["transaction"]["tx_id"]
            for client in (hut, mill):
                eventually(lambda c=client: c.ledger.transaction(tx_id).state == FINAL, "it is final")
