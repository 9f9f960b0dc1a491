"""Real nodes with emulated radios between them and no IP: one joins; a job, an object, a payment; over LoRa and BLE."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest
from live import COMPLETED, eventually, log_of, offgrid

from offgrid.client import payloads
from offgrid.v1 import ledger_pb2
from offgrid_node.executors import programs
from offgrid_tools.namespaces import IP
from offgrid_tools.radio_town import RadioTown

FINAL = ledger_pb2.TX_STATE_FINAL
SPEED = "speed=4"  # of the LoRa channel's time


@pytest.fixture(scope="module")
def towns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Callable[[], RadioTown]]]:
    """By medium, each once it has started; both start at once, since most of that is waiting."""
    options = {"lora": [SPEED], "ble": []}
    with ExitStack() as stack, ThreadPoolExecutor(len(options)) as pool:
        towns = {
            medium: stack.enter_context(RadioTown(tmp_path_factory.mktemp(medium), medium, *given))
            for medium, given in options.items()
        }
        starting = {medium: pool.submit(town.start) for medium, town in towns.items()}
        yield {medium: partial(_started, starting[medium], town) for medium, town in towns.items()}


def _started(starting: Future[None], town: RadioTown) -> RadioTown:
    starting.result()
    return town


@pytest.fixture(scope="module", params=["lora", "ble"])
def town(request: pytest.FixtureRequest, towns: Mapping[str, Callable[[], RadioTown]]) -> Iterator[RadioTown]:
    town = towns[request.param]()
    yield town
    for node in town.mesh.nodes.values():
        log_of(node)


def test_it_has_joined_though_no_road_but_the_radio_leads_from_one_to_the_other(town: RadioTown) -> None:
    with town.hut.client() as hut:
        mill = next(peer for peer in hut.mesh.peers() if peer.member.node_id == town.mill.node_id)
        assert "@" not in hut.mesh.invite().token  # it names no address
    assert list(mill.addresses) == ["192.0.2.1:7440"]
    if town.apart:
        for node in town.mesh.nodes.values():
            devices = subprocess.run([*node.runner, IP, "-brief", "link"], capture_output=True, text=True, check=True)
            assert [line.split()[0] for line in devices.stdout.splitlines()] == ["lo"]


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
