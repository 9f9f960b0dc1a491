"""Nodes with one LoRa channel between them and nothing else: they are quiet on it; jobs, objects and payments pass."""

from __future__ import annotations

import pytest
from quiet_world import Air, World

from offgrid.v1 import ledger_pb2, objects_pb2
from offgrid_node.protocol.errors import NotFound
from offgrid_node.protocol.events import BROKER, CORE, HOST
from offgrid_node.protocol.jobs.table import COMPLETED
from offgrid_tools.emulators.channel import USUAL_DBM

DEAD = 3
FINAL = ledger_pb2.TX_STATE_FINAL
TWO = {"anna": (CORE, BROKER), "bert": (CORE, HOST)}
FIVE = {**TWO, "cleo": (CORE, BROKER, HOST), "dora": (CORE, BROKER, HOST), "emil": (CORE, BROKER, HOST)}


def test_five_nodes_at_rest_take_two_percent_of_the_channel() -> None:
    air = Air()
    world = World(FIVE, air)
    world.see_each_other()
    world.run_for(300)
    air.mark()
    world.said.calls.clear()
    world.run_for(1200)
    assert air.share <= 0.02, f"{air.share:.2%} of the channel: {world.said.calls}"
    assert not world.said.calls["Ping"], "who is heard is not asked whether it lives"
    world.see_each_other(timeout_s=1)


def test_a_node_that_falls_silent_is_found_dead_and_is_alive_when_it_is_heard_again() -> None:
    air = Air()
    world = World(TWO, air)
    world.see_each_other()
    anna, bert = world.nodes["anna"], world.nodes["bert"]
    air.channel.loss = 1.0
    world.run_for(600)
    assert anna.mesh.liveness(bert.node_id) == DEAD
    air.channel.loss = 0.0
    world.see_each_other(timeout_s=120)


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_job_passes(loss: float) -> None:
    world = World(TWO, Air(loss))
    world.see_each_other()
    world.run_for(30)
    job = world.run_job("anna", b"over the hill " * 20)
    assert (job.state, job.host) == (COMPLETED, world.nodes["bert"].node_id)
    assert job.result.output == b"OVER THE HILL " * 20
    assert job.attempt == 1, "nobody lost patience"


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_an_object_is_brought_to_its_host_and_read_from_there(loss: float) -> None:
    world, data = World(TWO, Air(loss)), bytes(range(256)) * 16
    world.see_each_other()
    world.run_for(30)
    put = objects_pb2.PutObjectRequest(name="map", data=data, copies=1, required_milli=1_000)
    world.ask("anna", "ObjectService/PutObject", put)
    made = objects_pb2.Object(local=True)
    for _ in range(60):
        asked = objects_pb2.GetObjectRequest(object="map")
        made = world.ask("anna", "ObjectService/GetObject", asked).object
        if not made.local:
            break
        world.run_for(1)
    assert [ack.node_id for ack in made.acks] == [world.nodes["bert"].node_id]
    assert not made.local, "nothing of it is at its owner any more"
    world.said.calls.clear()
    read = objects_pb2.ReadObjectRequest(object="map", length=len(data))
    assert world.ask("anna", "ObjectService/ReadObject", read, timeout_s=60).data == data
    assert world.said.calls["ReadReplica"], "it came over the air"


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_payment_is_final(loss: float) -> None:
    world = World(TWO, Air(loss))
    world.see_each_other()
    world.ask("anna", "LedgerService/OpenLedger", ledger_pb2.OpenLedgerRequest())
    world.run_for(30)
    transfer = ledger_pb2.CreateTransferRequest(dst="bert", amount_micro=5_000_000)
    tx_id = world.ask("anna", "LedgerService/CreateTransfer", transfer).transaction.tx_id
    for name in TWO:
        asked = ledger_pb2.GetTransactionRequest(tx_id=tx_id)
        for _ in range(60):
            if world.ask(name, "LedgerService/GetTransaction", asked).transaction.state == FINAL:
                break
            world.run_for(1)
        else:
            pytest.fail(f"not final at {name}")


def test_two_whose_ledgers_differ_find_out_by_their_beacons_and_agree_within_two_minutes() -> None:
    """Without them one that was away while the other spoke waits for a meeting: five minutes and more."""
    air, away = Air(), set[str]()
    world = World(TWO, air)
    air.channel.reach = lambda sender, hearer: None if away else USUAL_DBM
    world.see_each_other()
    world.ask("anna", "LedgerService/OpenLedger", ledger_pb2.OpenLedgerRequest())
    world.run_for(1_200)
    away.add("bert")
    air.channel.forget_reach()
    transfer = ledger_pb2.CreateTransferRequest(dst="bert", amount_micro=5_000_000)
    world.ask("anna", "LedgerService/CreateTransfer", transfer)
    world.run_for(60)
    away.clear()
    air.channel.forget_reach()
    air.mark()
    assert len(heads(world)) == 2, "bert has not heard of the transfer"
    world.run_for(120)
    assert len(heads(world)) == 1
    assert air.share * 120 <= 10, "seconds of air"


def heads(world: World) -> set[bytes]:
    return {node.ledger.heads_summary for node in world.nodes.values()}


def test_a_payment_among_five_is_final_though_all_speak_at_once() -> None:
    """Each witness has to hear of it and of the others' votes: some hundred calls at 5 kbit/s, minutes at worst."""
    world = World(FIVE, Air())
    world.see_each_other()
    world.ask("anna", "LedgerService/OpenLedger", ledger_pb2.OpenLedgerRequest())
    world.run_for(300)
    transfer = ledger_pb2.CreateTransferRequest(dst="bert", amount_micro=5_000_000)
    tx_id = world.ask("anna", "LedgerService/CreateTransfer", transfer).transaction.tx_id
    asked = ledger_pb2.GetTransactionRequest(tx_id=tx_id)
    waiting = set(FIVE)
    for _ in range(900):
        world.run_for(1)
        waiting -= {name for name in waiting if final_at(world, name, asked)}
        if not waiting:
            return
    pytest.fail(f"not final at {', '.join(sorted(waiting))}")


def final_at(world: World, name: str, asked: ledger_pb2.GetTransactionRequest) -> bool:
    try:
        return bool(world.ask(name, "LedgerService/GetTransaction", asked).transaction.state == FINAL)
    except NotFound:
        return False
