"""Epochs on a live mesh: a witness comes and another goes while payments run, fees are paid out, and stores verify."""

from __future__ import annotations

import json
import re
import threading

import pytest
from conftest import MakeMesh
from live import eventually, offgrid

from offgrid.v1.ledger_pb2 import TX_STATE_FINAL
from offgrid_node.local_mesh import LocalMesh, LocalNode

NODES = {name: ["core"] for name in ("attic", "barn", "cellar", "den", "east")}
FEE_MICRO, AMOUNT_MICRO = 1_000, 7


def epoch_of(node: LocalNode) -> int:
    with node.client() as client:
        return client.ledger.status().epoch


def everywhere(mesh: LocalMesh, epoch: int) -> None:
    for node in mesh.nodes.values():
        eventually(lambda n=node: epoch_of(n) == epoch, f"{node.name} is in epoch {epoch}")


class Payer:
    """Pays the last node, one transfer after the other."""

    def __init__(self, node: LocalNode) -> None:
        self._node, self._stop = node, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.made: list[str] = []

    def _run(self) -> None:
        with self._node.client() as client:
            while not self._stop.wait(0.1):
                self.made.append(client.ledger.transfer("east", AMOUNT_MICRO).transfer_id)

    def __enter__(self) -> Payer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.soak
def test_a_witness_comes_and_another_goes_while_payments_run(make_mesh: MakeMesh) -> None:
    mesh = make_mesh(NODES)
    attic, barn = mesh["attic"], mesh["barn"]
    chosen = [part for name in ("attic", "barn", "cellar", "den") for part in ("--witness", name)]
    done = offgrid(attic, "ledger", "open", "--yes", *chosen)
    assert done.code == 0, done.said
    for node in mesh.nodes.values():
        with node.client() as client:
            eventually(lambda c=client: c.ledger.status().open, f"{node.name} knows the ledger")
    refused = offgrid(barn, "ledger", "witnesses", "--add", "east")
    assert (refused.code, "ask one of: attic" in refused.err) == (4, True), refused.said
    with Payer(barn) as payer:
        eventually(lambda: len(payer.made) > 3, "payments run")
        done = offgrid(attic, "ledger", "witnesses", "--add", "east", "--remove", "den")
        assert done.code == 0, done.said
        assert "attic (1.0), barn (1.0), cellar (1.0), east (1.0)" in done.out, done.said
        everywhere(mesh, 1)
        paid_before = len(payer.made)
        eventually(lambda: len(payer.made) > paid_before + 3, "payments go on")
    with barn.client() as client:
        for transfer in payer.made:
            eventually(lambda t=transfer: client.ledger.transaction(t).state == TX_STATE_FINAL, f"{transfer} is final")
    verified = offgrid(barn, "ledger", "verify")
    assert verified.code == 0, verified.said
    mesh["den"].stop()  # it is needed no more
    verified = offgrid(mesh["den"], "ledger", "verify", "--offline")
    assert verified.code == 0, verified.said
    rewards = offgrid(attic, "settle-rewards", "--now", "--json")
    assert rewards.code == 0, rewards.said
    paid = json.loads(rewards.out)
    assert (paid["epoch"], {each["name"] for each in paid["rewards"]}) == (1, {"attic", "barn", "cellar", "east"})
    mesh["den"].run("run")
    mesh["den"].wait_ready()
    everywhere(mesh, 2)
    listed = offgrid(mesh["east"], "ledger", "epochs", "--json")
    epochs = json.loads(listed.out)["epochs"]
    assert [each["epoch"] for each in epochs] == [1, 0]
    assert {each["name"] for each in epochs[1]["rewards"]} == {"attic", "barn", "cellar", "den"}
    all_paid = sum(int(reward["amount_micro"]) for each in epochs for reward in each["rewards"])
    assert all_paid == FEE_MICRO * len(payer.made)
    shown = offgrid(attic, "ledger", "status").out
    assert re.search(r"^epoch +2, since ", shown, re.MULTILINE), shown
    with attic.client() as client:
        balances = client.ledger.balances()
    total = sum(balance.final_micro for balance in balances.balances) + balances.fees_micro
    assert total == balances.supply_micro


def test_a_store_that_has_forgotten_blocks_is_verified_from_its_checkpoint(make_mesh: MakeMesh) -> None:
    mesh = make_mesh({name: ["core"] for name in ("attic", "barn", "cellar")})
    attic, barn = mesh["attic"], mesh["barn"]
    chosen = [part for name in mesh.nodes for part in ("--witness", name)]
    done = offgrid(attic, "ledger", "open", "--yes", *chosen)
    assert done.code == 0, done.said
    for node in mesh.nodes.values():
        with node.client() as client:
            eventually(lambda c=client: c.ledger.status().open, f"{node.name} knows the ledger")
    for epoch in range(1, 4):
        with barn.client() as client:
            paid = client.ledger.transfer("cellar", AMOUNT_MICRO).transfer_id
            eventually(lambda t=paid: client.ledger.transaction(t).state == TX_STATE_FINAL, f"{paid} is final")
        done = offgrid(attic, "settle-rewards", "--now")
        assert done.code == 0, done.said
        everywhere(mesh, epoch)
    verified = offgrid(barn, "ledger", "verify")
    assert (verified.code, "all holds" in verified.out) == (0, True), verified.said
    assert "epoch 2: older blocks are forgotten" in verified.out
    barn.stop()
    verified = offgrid(barn, "ledger", "verify", "--offline")
    assert (verified.code, "all holds" in verified.out) == (0, True), verified.said
    assert "epoch 2: older blocks are forgotten" in verified.out
