"""Money on a live mesh of four: opened, paid, pending while half the witnesses are away, final once they are back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import MakeMesh
from live import COMPLETED, GIVE_UP_S, SAY_HI, Done, eventually, log_of, offgrid

from offgrid.client import payloads
from offgrid.v1.ledger_pb2 import Booking, TxState
from offgrid_node.local_mesh import LocalMesh, LocalNode

FOUR = {"attic": ["core", "broker"], "barn": ["host"], "mill": ["host"], "shed": ["host"]}
START_MICRO, FEE_MICRO = 10**12, 1_000
FINAL = TxState.TX_STATE_FINAL


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """Four members, the first of them core, broker and admin; every one witnesses."""
    with LocalMesh(tmp_path_factory.mktemp("money"), "t", FOUR) as mesh:
        mesh.start()
        mesh.wait_alive()
        mesh.wait_offers(3)
        yield mesh
        for node in mesh.nodes.values():
            log_of(node)


def opened(mesh: LocalMesh) -> None:
    """Opens the ledger unless an earlier test has; every node knows of it afterwards."""
    with mesh["attic"].client() as client:
        if not client.ledger.status().open:
            done = offgrid(mesh["attic"], "ledger", "open", "--yes")
            assert done.code == 0, done.said
    for node in mesh.nodes.values():
        with node.client() as client:
            eventually(lambda c=client: c.ledger.status().open, f"{node.name} knows the ledger")


def held(node: LocalNode) -> dict[str, int]:
    """Final balances as this node knows them, with fees."""
    with node.client() as client:
        answer = client.ledger.balances()
    found = {balance.name or balance.account: balance.final_micro for balance in answer.balances}
    assert sum(found.values()) + answer.fees_micro == answer.supply_micro == 4 * START_MICRO
    return found


def everywhere(mesh: LocalMesh, account: str, micro: int) -> None:
    for node in mesh.nodes.values():
        eventually(lambda n=node: held(n)[account] == micro, f"{node.name} has {account} at {micro}")


def pay(node: LocalNode, dst: str, amount: str, *options: str) -> tuple[Done, dict[str, object]]:
    done = offgrid(node, "transfer", "--dst", dst, "--amount", amount, *options, "--json")
    assert done.out, done.said
    tx = json.loads(done.out)["transaction"]
    return done, tx


def is_final(node: LocalNode, tx_id: object) -> bool:
    with node.client() as client:
        return client.ledger.transaction(str(tx_id)).state == FINAL


@contextmanager
def stopped(*nodes: LocalNode) -> Iterator[None]:
    """They neither run nor say goodbye; afterwards they go on as if nothing had been."""
    for node in nodes:
        assert node.process is not None
        os.kill(node.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for node in nodes:
            assert node.process is not None
            os.kill(node.process.pid, signal.SIGCONT)


class TestOpening:
    def test_nothing_is_paid_before(self, mesh: LocalMesh) -> None:
        done = offgrid(mesh["barn"], "transfer", "--dst", "attic", "--amount", "1")
        assert done.code == 4, done.said
        assert "offgrid ledger open" in done.err, done.said
        assert "not open" in offgrid(mesh["barn"], "ledger", "status").out

    def test_only_an_admins_node_does_it_and_only_once(self, mesh: LocalMesh) -> None:
        done = offgrid(mesh["barn"], "ledger", "open")
        assert done.code == 4, done.said
        assert "attic" in done.err, done.said
        opened(mesh)
        again = offgrid(mesh["attic"], "ledger", "open")
        assert again.code == 4, again.said
        assert "open" in again.err, again.said

    def test_every_node_knows_who_witnesses_and_what_that_survives(self, mesh: LocalMesh) -> None:
        opened(mesh)
        for node in mesh.nodes.values():
            said = offgrid(node, "ledger", "status").out
            for name in FOUR:
                assert f"{name} (1.0)" in said, said
            assert "quorum     2.667 of 4.0" in said, said
            assert "survives   1 of them" in said, said


class TestPaying:
    def test_a_transfer_is_final_and_the_same_on_every_node(self, mesh: LocalMesh) -> None:
        opened(mesh)
        before = held(mesh["attic"])
        done = offgrid(mesh["attic"], "transfer", "--dst", "barn", "--amount", "12.5", "--meta", "action=rent")
        assert done.code == 0, done.said
        assert "state     final" in done.out, done.said
        assert "action  rent" in done.out, done.said
        everywhere(mesh, "barn", before["barn"] + 12_500_000)
        everywhere(mesh, "attic", before["attic"] - 12_500_000 - FEE_MICRO)
        assert "action=rent" in offgrid(mesh["shed"], "history", "--account", "barn").out

    def test_more_than_there_is_is_refused_at_once(self, mesh: LocalMesh) -> None:
        opened(mesh)
        done = offgrid(mesh["mill"], "transfer", "--dst", "shed", "--amount", "2000000")
        assert done.code == 4, done.said
        assert "offgrid balance" in done.err, done.said

    def test_nobody_pays_with_anothers_money(self, mesh: LocalMesh) -> None:
        opened(mesh)
        done = offgrid(mesh["mill"], "transfer", "--src", "shed", "--dst", "mill", "--amount", "1")
        assert done.code in (2, 4), done.said
        assert "its own key" in done.err, done.said

    def test_a_jobs_price_is_booked_promised_and_paid_when_its_host_settles(self, mesh: LocalMesh) -> None:
        opened(mesh)
        core = mesh["attic"]
        with core.client() as client:
            job = client.jobs.run(payloads.wasm(SAY_HI), size_tokens=5_000_000)
            assert job.state == COMPLETED, job.error_detail
            assert job.price_micro > 0

            def booked() -> Booking:
                (booking,) = client.ledger.bookings(job_id=job.job_id).bookings
                assert (booking.amount_micro, booking.payee) == (job.price_micro, job.host)
                return booking

            eventually(lambda: booked().delivered, "the host has a voucher for it")
            host = next(node for node in mesh.nodes.values() if node.name == booked().payee_name)
            done = offgrid(host, "settle")
            assert done.code == 0, done.said
            tx_id = eventually(lambda: booked().tx_id, "the booking is paid by a transaction")
            eventually(lambda: is_final(core, tx_id), "and that is final")
            tx = client.ledger.transaction(tx_id)
        assert (job.host, job.price_micro) in [(output.account, output.amount_micro) for output in tx.outputs]
        assert job.job_id in offgrid(core, "bookings", "--job", job.job_id).out


class TestByHand:
    def test_a_node_that_is_away_pays_by_its_key_file_and_goes_on_from_there(
        self, mesh: LocalMesh, tmp_path: Path
    ) -> None:
        opened(mesh)
        payer, other, before = mesh["shed"], mesh["attic"], held(mesh["attic"])
        file, key = str(tmp_path / "rent.json"), str(payer.folder / "keys" / "node.key")
        made = offgrid(other, "tx", "create", "--src", "shed", "--dst", "mill", "--amount", "3", "-o", file)
        assert made.code == 0, made.said
        refused = offgrid(other, "tx", "sign", file, "--key", key)
        assert refused.code == 2, refused.said
        assert "is running and signs for this account itself" in refused.err
        payer.stop()
        assert offgrid(other, "tx", "sign", file, "--key", key).code == 0
        eventually(lambda: offgrid(other, "tx", "send", file).code == 0, "the payer is known to be away")
        ended = offgrid(other, "tx", "finalize", file, "--timeout", str(GIVE_UP_S))
        assert ended.code == 0, ended.said
        payer.run("run")
        payer.wait_ready()
        mesh.wait_alive()
        everywhere(mesh, "mill", before["mill"] + 3_000_000)
        with payer.client() as client:
            assert client.ledger.status().muted_why == ""
        done = offgrid(payer, "transfer", "--dst", "mill", "--amount", "1", "--timeout", str(GIVE_UP_S))
        assert done.code == 0, done.said

    def test_what_is_signed_has_its_slot_and_lanes_do_not_wait_for_it(self, mesh: LocalMesh, tmp_path: Path) -> None:
        opened(mesh)
        payer, file = mesh["mill"], str(tmp_path / "rent.json")
        lanes = offgrid(payer, "wallet", "create-lane", "--count", "2", "--fund", "10")
        assert lanes.code == 0, lanes.said
        with payer.client() as client:
            eventually(lambda: client.ledger.wallet().accounts[2].balance.final_micro == 10_000_000, "lanes are funded")
        assert offgrid(payer, "tx", "create", "--dst", "barn", "--amount", "3", "-o", file).code == 0
        assert offgrid(payer, "tx", "sign", file).code == 0
        assert "not sent" in offgrid(payer, "tx", "list", "--open").out
        done, tx = pay(payer, "barn", "1", "--timeout", str(GIVE_UP_S))
        assert done.code == 0, done.said
        assert tx["src_name"] == "mill/1"
        assert offgrid(payer, "tx", "send", file).code == 0
        assert offgrid(payer, "tx", "finalize", file, "--timeout", str(GIVE_UP_S)).code == 0
        everywhere(mesh, "mill/1", 10_000_000 - 1_000_000 - FEE_MICRO)


class TestBeingApart:
    def test_pending_while_half_the_witnesses_are_away_and_final_once_they_are_back(self, mesh: LocalMesh) -> None:
        opened(mesh)
        before = held(mesh["attic"])
        with stopped(mesh["mill"], mesh["shed"]):
            done, tx = pay(mesh["attic"], "barn", "3", "--timeout", "1.5")
            assert done.code == 7, done.said
            assert tx["state"] == "TX_STATE_SIGNED"
            assert int(str(tx["voted_milli"])) < int(str(tx["quorum_milli"]))
            shown = offgrid(mesh["attic"], "tx", "show", str(tx["tx_id"])[:16]).out
            assert "at risk" in shown
            assert "3.001" in shown
            assert "going out  3.001" in offgrid(mesh["attic"], "balance").out
            assert held(mesh["attic"]) == before
        eventually(lambda: is_final(mesh["attic"], tx["tx_id"]), "it is final once they are back")
        everywhere(mesh, "barn", before["barn"] + 3_000_000)

    def test_what_hangs_is_ended_by_its_owner_and_the_account_goes_on(self, mesh: LocalMesh) -> None:
        opened(mesh)
        owner, before = mesh["attic"], held(mesh["attic"])
        with stopped(mesh["mill"], mesh["shed"]):
            _, tx = pay(owner, "barn", "3", "--timeout", "1")
            done = offgrid(owner, "tx", "unlock", "--timeout", "2")
            assert done.code == 7, done.said
        with owner.client() as client:
            ended = client.ledger.settled(str(tx["tx_id"]), GIVE_UP_S)
        paid = ended.state == FINAL  # or void, as the witnesses saw it
        assert paid or ended.state == TxState.TX_STATE_VOID
        done = offgrid(owner, "transfer", "--dst", "barn", "--amount", "1", "--timeout", str(GIVE_UP_S))
        assert done.code == 0, done.said
        everywhere(mesh, "barn", before["barn"] + (4 if paid else 1) * 1_000_000)
        nothing = offgrid(owner, "tx", "unlock")
        assert nothing.code == 4, nothing.said
        assert "under way" in nothing.err, nothing.said

    def test_an_owner_killed_right_after_signing_pays_exactly_once(self, mesh: LocalMesh) -> None:
        opened(mesh)
        before, owner = held(mesh["attic"]), mesh["barn"]
        done, tx = pay(owner, "shed", "7", "--no-wait", "--request-id", "once")
        owner.kill()
        assert done.code == 0, done.said
        owner.run("run")
        owner.wait_ready()
        mesh.wait_alive()
        again, same = pay(owner, "shed", "7", "--request-id", "once", "--timeout", "30")
        assert again.code == 0, again.said
        assert same["tx_id"] == tx["tx_id"]
        everywhere(mesh, "shed", before["shed"] + 7_000_000)
        everywhere(mesh, "barn", before["barn"] - 7_000_000 - FEE_MICRO)


def test_with_the_economy_off_all_but_money_works_and_each_money_command_says_so(
    make_mesh: MakeMesh, tmp_path: Path
) -> None:
    mesh = make_mesh({"core": ["core", "broker"], "host-a": ["host"], "host-b": ["host"]}, economy__enabled=False)
    mesh.wait_offers(2)
    core, letter, back = mesh["core"], tmp_path / "letter", tmp_path / "back"
    letter.write_text("kept all the same")
    for argv in (
        ["ledger", "open"],
        ["transfer", "--dst", "host-a", "--amount", "1"],
        ["balance"],
        ["balance", "--all"],
        ["wallet", "list"],
        ["wallet", "create-lane"],
        ["wallet", "credit"],
        ["wallet", "credit", "host-a", "5"],
        ["tx", "create", "--dst", "host-a", "--amount", "1"],
        ["tx", "unlock"],
    ):
        done = offgrid(core, *argv)
        assert done.code == 4, done.said
        assert "economy.enabled" in done.err, done.said
    assert "economy.enabled is false here" in offgrid(core, "ledger", "status").out
    assert offgrid(core, "history").out == "there are no transactions\n"
    assert offgrid(core, "tx", "list", "--open").out == "everything is final or void\n"
    kept = offgrid(core, "put", str(letter), "--name", "letter")
    assert kept.code == 0, kept.said
    assert offgrid(core, "get", "letter", "-o", str(back)).code == 0
    assert back.read_text() == letter.read_text()
    with core.client() as client:
        job = client.jobs.run(payloads.wasm(SAY_HI))
        assert job.state == COMPLETED, job.error_detail
        assert not client.ledger.status().enabled
        assert not client.ledger.bookings().bookings
