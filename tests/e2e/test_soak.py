"""The soak in small: that it runs, kills, checks, and would say so if a promise were broken."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from random import Random

import pytest
from live import run

from offgrid.v1 import common_pb2, jobs_pb2, ledger_pb2
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.protocol.ledger.records import Tx
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_node.protocol.ledger.tables import TXS
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.soak import audit
from offgrid_tools.soak.audit_money import Money, audit_ledgers, audit_money
from offgrid_tools.soak.clockwork import wrong_times
from offgrid_tools.soak.load import Acked
from offgrid_tools.soak.mortals import Mortal
from offgrid_tools.soak.paying import Paid
from offgrid_tools.soak.settling import START_MICRO, audit_paid
from offgrid_tools.soak.settling import Plan as SettlingPlan


def soak(*arguments: str | Path) -> str:
    done = run([sys.executable, "-m", "offgrid_tools.soak", *arguments], timeout_s=500)
    assert done.code == 0, done.said
    assert done.out.rstrip().endswith("no violations"), done.said
    return done.out


@pytest.mark.soak
def test_a_kill_of_each_role_loses_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    out = soak("kills", "--rounds", "1", "--seed", "1", "--pause", "0.3", "--dir", tmp_path / "m", "--json", figures)
    for role in ("core", "broker", "host"):
        assert re.search(rf"kills of {role} +1$", out, re.MULTILINE), out
    assert "6 stores verified" in out, out
    assert re.search(r"kills of clients +[1-9]", out), out
    told = json.loads(figures.read_text())["figures"]
    assert told["jobs booked"] == told["jobs accepted"] > 0
    assert told["transfers final"] == told["transfers acknowledged"] > 0
    assert told["objects acknowledged"] > 0
    assert told["nodes that agree on money"] == 6


def test_a_node_that_keeps_sessions_loses_nothing_by_a_kill(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    soak("state-kills", "--rounds", "1", "--seed", "5", "--dir", tmp_path / "m", "--json", figures)
    told = json.loads(figures.read_text())["figures"]
    assert told["kills"] >= 1
    assert told["events answered for, of sessions in mind"] > 0


def test_damaged_configs(tmp_path: Path) -> None:
    soak("configs", "--rounds", "300", "--seed", "1")


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_damages_at_rest(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    out = soak("damages", "--rounds", "12", "--seed", "5", "--json", figures)
    told = json.loads(figures.read_text())["figures"]
    assert told["damages"] == 12
    assert told["detected"] > 2, out
    assert told["repaired"] + told.get("no copy", 0) == told["detected"] + told.get("killed", 0)


def test_a_request_that_made_two_jobs_over_the_death_of_its_client_is_seen() -> None:
    mortal = Mortal("x", Path(), Random(1))
    mortal.hear("0 a b c d\n1 e f g h\n2 i j")
    mortal.hear("1 e f g h\n")
    assert [job.job_id for job in mortal.acked] == list("abcdefgh")
    assert mortal.violations == []
    mortal.hear("1 e f g z\n")
    assert mortal.violations == ["request x-1 made e, f, g, h and then e, f, g, z"]


class TestTheAudit:
    """An audit that finds nothing wrong where something is proves nothing."""

    def test_of_a_result_accepted_twice_or_never(self) -> None:
        wanted = [Acked("j-1", b"", dispatched=True), Acked("j-2", b"", dispatched=True)]
        job = jobs_pb2.Job(job_id="j-1")
        broken = audit.audit_results(wanted, {"j-1": [job, job]}, {}, {}, b"")
        assert broken == ["job j-1 has 2 accepted results", "job j-2 has 0 accepted results"]

    def test_of_a_job_that_was_taken_back_and_has_two_results_all_the_same(self) -> None:
        wanted = [
            Acked("j-1", b"", dispatched=True, taken_back=True),
            Acked("j-2", b"", dispatched=True, taken_back=True),
        ]
        job = jobs_pb2.Job(job_id="j-2")
        assert audit.audit_results(wanted, {"j-2": [job, job]}, {}, {}, b"") == ["job j-2 has 2 accepted results"]

    def test_of_a_receipt_for_what_no_host_has_done(self) -> None:
        wanted, job = [Acked("j-1", b"", dispatched=True, has_receipt=False)], jobs_pb2.Job(job_id="j-1")
        assert audit.audit_results(wanted, {"j-1": [job]}, {}, {}, b"") == []
        job.result.receipt.body = b"x"
        assert audit.audit_results(wanted, {"j-1": [job]}, {}, {}, b"") == ["job j-1 has a receipt, and no host"]

    def test_of_a_schedule_that_fires_twice_or_not_or_at_a_time_of_nobodys(self) -> None:
        minute, until = 60_000_000, 4 * 60_000_000 + 20_000_000
        assert wrong_times(1, until, [minute * n for n in (1, 2, 3, 4)]) == []
        assert wrong_times(1, until, [minute, minute, 3 * minute, 3 * minute + 1, 5 * minute]) == [
            f"a schedule has made 2 jobs for {minute}",
            f"a schedule has made no job for {2 * minute}",
            f"a schedule has made no job for {4 * minute}",
            f"a schedule has made a job for {3 * minute + 1}, which is no time of its own",
            f"a schedule has made a job for {5 * minute}, which is no time of its own",
        ]
        assert wrong_times(1, 2 * minute + 1, [minute]) == [], "the core may be dead just then"

    def test_of_a_redundant_job_whose_receipt_is_for_another(self) -> None:
        wanted, job = [Acked("j-1", b"", dispatched=True)], jobs_pb2.Job(job_id="j-1", attempt=1, result_of="j-1.r1")
        body = ReceiptBody("n" * 32, "c" * 32, "j-1.r2", 1, bytes(32), bytes(32), "completed", 1, 1, 1, "wasm/1")
        job.result.receipt.body = body.encode()
        kept = {("j-1.r2", 1): [(body.node, job.result.receipt)]}
        broken = audit.audit_results(wanted, {"j-1": [job]}, kept, {body.node: bytes(32)}, b"")
        assert broken[0] == f"job j-1: its receipt is not the one in the journal of {body.node}"

    def test_of_a_cancellation_that_was_acknowledged_and_did_not_last(self) -> None:
        done, cancelled = jobs_pb2.JOB_STATE_COMPLETED, jobs_pb2.JOB_STATE_CANCELLED
        assert audit.ends_of(Acked("j-1", b"", taken_back=True, is_cancelled=True)) == (cancelled,)
        assert audit.ends_of(Acked("j-1", b"", taken_back=True)) == (done, cancelled)
        assert audit.ends_of(Acked("j-1", b"")) == (done,)

    def test_of_money_made_and_of_a_transfer_that_paid_another(self) -> None:
        view = ledger_pb2.ListBalancesResponse(
            balances=[ledger_pb2.Balance(name="a", final_micro=8)], fees_micro=1, supply_micro=10
        )
        paid = [Paid("a", "t-1", "b", 5), Paid("a", "t-2", "b", 6)]
        final = {"t-1": ledger_pb2.Transaction(outputs=[ledger_pb2.Output(name="b", amount_micro=5)])}
        money = Money({"a": view}, ledger_pb2.ListBookingsResponse(), final)
        assert audit_money(money, paid, []) == [
            "a: balances and fees are 9, the supply is 10",
            "transfer t-2 did not pay 6 to b",
        ]

    def test_of_bookings_that_are_missing_doubled_or_of_nothing(self) -> None:
        bookings = [ledger_pb2.Booking(job_id=job_id) for job_id in ("j-1", "j-2", "j-2", "j-4")]
        money = Money({}, ledger_pb2.ListBookingsResponse(bookings=bookings), {})
        assert audit_money(money, [], ["j-1", "j-2", "j-3"]) == [
            "job j-3 is accepted and not booked",
            "job j-2 is booked 2 times",
            "job j-4 is booked and not accepted",
        ]

    def test_of_a_host_that_got_more_than_its_jobs_come_to_and_of_a_job_that_nobody_paid(self) -> None:
        plan = SettlingPlan(seed=1, kills=1, receipts=3, hosts=2)
        bookings = [
            ledger_pb2.Booking(job_id="j-1", payee_name="h00", amount_micro=5, tx_id="x"),
            ledger_pb2.Booking(job_id="j-2", payee_name="h01", amount_micro=7, tx_id="y"),
        ]
        balances = [
            ledger_pb2.Balance(name="h00", final_micro=START_MICRO + 5),
            ledger_pb2.Balance(name="h01", final_micro=START_MICRO + 14),
        ]
        view = {"core": ledger_pb2.ListBalancesResponse(balances=balances)}
        money = Money(view, ledger_pb2.ListBookingsResponse(bookings=bookings), {})
        assert audit_paid(money, plan) == [
            "h01 has got 14 millionths, its jobs come to 7",
            "2 jobs are booked, 3 were asked for",
        ]
        bookings[1].tx_id, bookings[1].promised = "", True
        money.bookings = ledger_pb2.ListBookingsResponse(bookings=bookings)
        assert audit_paid(money, plan)[0] == "job j-2 is not paid"
        assert money.unpaid(promised=True) == ["j-2"]
        assert money.unpaid(promised=False) == []

    def test_of_two_final_values_in_one_slot(self) -> None:
        stores = {}
        for node, amount in (("a", 1), ("b", 2)):
            tx = Tx(NodeSource(bytes(20)), 0, bytes(32), 1_000, ((bytes(20), amount),))
            row = ledger_pb2.TxRow(signed=common_pb2.Signed(body=tx.encode()), state=ledger_pb2.TX_STATE_FINAL)
            stores[node] = MemoryStore()
            stores[node].commit(Batch(writes={(TXS, tx.digest(b"")): row.SerializeToString()}))
        (broken,) = audit_ledgers(stores)
        assert "is final at a" in broken
        assert broken.endswith("at b")

    def test_of_an_attempt_signed_for_twice(self) -> None:
        receipt = jobs_pb2.Receipt(body=b"x")
        broken = audit.audit_receipts({("j-1", 2): [("a", receipt), ("b", receipt)], ("j-1", 3): [("a", receipt)]})
        assert broken == ["job j-1 attempt 2: 2 receipts, by a, b"]
