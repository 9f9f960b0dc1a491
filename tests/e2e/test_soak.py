"""The soak in small: that it runs, kills, checks, and would say so if a promise were broken."""

from __future__ import annotations

import sys
from pathlib import Path

from live import run

from offgrid.v1 import jobs_pb2
from offgrid_tools.soak import audit
from offgrid_tools.soak.load import Acked


def soak(*arguments: str | Path) -> str:
    done = run([sys.executable, "-m", "offgrid_tools.soak", *arguments], timeout_s=110)
    assert done.code == 0, done.said
    assert done.out.rstrip().endswith("no violations"), done.said
    return done.out


def test_three_kills_of_each_role_lose_nothing(tmp_path: Path) -> None:
    out = soak("kills", "--rounds", "3", "--seed", "1", "--dir", tmp_path / "m")
    for role in ("core", "broker", "host"):
        assert f"3 kills of {role}" in out, out
    assert "5 stores verified" in out, out


def test_damaged_configs(tmp_path: Path) -> None:
    soak("configs", "--rounds", "300", "--seed", "1")


class TestTheAudit:
    """An audit that finds nothing wrong where something is proves nothing."""

    def test_of_a_result_accepted_twice_or_never(self) -> None:
        wanted = [Acked("j-1", b"", dispatched=True), Acked("j-2", b"", dispatched=True)]
        job = jobs_pb2.Job(job_id="j-1")
        broken = audit.audit_results(wanted, {"j-1": [job, job]}, {}, {}, b"")
        assert broken == ["job j-1 has 2 accepted results", "job j-2 has 0 accepted results"]

    def test_of_an_attempt_signed_for_twice(self) -> None:
        receipt = jobs_pb2.Receipt(body=b"x")
        broken = audit.audit_receipts({("j-1", 2): [("a", receipt), ("b", receipt)], ("j-1", 3): [("a", receipt)]})
        assert broken == ["job j-1 attempt 2: 2 receipts, by a, b"]
