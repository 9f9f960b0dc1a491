"""`offgrid host`: what a host's owner sees and says."""

from __future__ import annotations

import io
import json
import sys

import pytest
from cli_run import Run
from small_node import OTHER_ID, SmallNode

from offgrid.command_line import exits
from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import FailedPrecondition


def test_what_it_is_has_and_offers(og: Run, node: SmallNode) -> None:
    node.host.detail = "takes work"
    node.host.profile.CopyFrom(
        jobs_pb2.HostProfile(
            slots=4, memory_mb=2048, cpus=8, gpus=[jobs_pb2.Gpu(model="RTX", memory_mb=8192)], models=["llama3"],
            labels={"room": "barn"}, isolation={"process": "bwrap"}, platform="linux/x86_64", failure_domain="east",
        )
    )  # fmt: skip
    node.host.offers.add(executors=["wasm", "process:wc"], kinds=["compute"], slots=4)
    code, out, _ = og("host", "show")
    assert code == 0
    for said in ("on: takes work", "2 of 4 busy", "1 reports", "2048 MiB", "RTX (8192 MiB)", "llama3", "room=barn",
                 "process=bwrap", "linux/x86_64", "east", "wasm process:wc"):  # fmt: skip
        assert said in out
    told = og.json("host", "show")
    assert isinstance(told, dict)
    assert told["host"]["profile"]["labels"] == {"room": "barn"}


def test_its_rules_are_shown_and_who_has_used_them_up(og: Run, node: SmallNode) -> None:
    few = node.host.rules.add(
        name="few", owners=["barn"], executors=["*"], price_micro=2_000_000, slots=2, slots_busy=1
    )
    few.jobs_per_day, few.tokens_per_day, few.holds, few.hours = 1, 50, False, "22:00-06:00"
    few.today.add(core=OTHER_ID, jobs=1, tokens=30, used_up=True)
    node.host.rules.add(name="none", owners=["*"], executors=["*"], deny=True, holds=True)
    out = og("host", "show")[1]
    for said in ("few", "1 of 2", "22:00-06:00, not now", "1 job, 50 tokens", "barn 1 job, 30 tokens, used up",
                 "denied", "always"):  # fmt: skip
        assert said in out


def test_what_it_keeps_for_whom(og: Run, node: SmallNode) -> None:
    assert "it keeps nothing for others" in og("host", "show")[1]
    node.host.kept.add(owner=OTHER_ID, objects=3, bytes=5_000_000, alive=True)
    node.host.kept.add(owner="gone", objects=1, bytes=7, removed=True)
    node.host.kept.add(owner="late", objects=2, bytes=8)
    lines = [line.split() for line in og("host", "show")[1].splitlines()]
    assert ["barn", "3", "5.0", "MB", "alive"] in lines
    assert "gone 1 7 bytes removed from the mesh; its readers still read" in map(" ".join, lines)
    assert ["late", "2", "8", "bytes", "away"] in lines


def test_what_it_keeps_for_somebody_who_was_removed_is_dropped_page_by_page(og: Run, node: SmallNode) -> None:
    node.host.kept.add(owner="gone", objects=700, bytes=7, removed=True, gone_us=1_700_000_000_000_000)
    assert "removed from the mesh 2023-11-14" in og("host", "show")[1]
    assert og("host", "drop", "gone", "--yes") == (exits.OK, "700 objects kept for gone dropped\n", "")
    node.host.kept.add(owner="gone", objects=1, bytes=7, removed=True)
    assert og.json("host", "drop", "gone", "--yes") == {"owner": "gone", "dropped": 1}


def test_what_went_before_a_fault_is_said(og: Run, node: SmallNode) -> None:
    def once(request: jobs_pb2.DropKeptRequest) -> jobs_pb2.DropKeptResponse:
        node.stumble("DropKept", FailedPrecondition("not now", reason="ClockLeapt"))
        return jobs_pb2.DropKeptResponse(dropped=256, left=2)

    node.on_DropKept = once
    code, out, err = og("host", "drop", "gone", "--yes")
    assert (code, out) == (exits.REFUSED, "256 objects kept for gone dropped\n")
    assert "not now" in err


def test_it_goes_on_while_what_was_lost_is_looked_through(og: Run, node: SmallNode) -> None:
    said = [{"dropped": 2}, {"more": True}, {"dropped": 1, "more": True}, {"dropped": 256, "left": 2}]
    node.on_DropKept = lambda request: jobs_pb2.DropKeptResponse(**said.pop())
    assert og("host", "drop", "gone", "--yes") == (exits.OK, "259 objects kept for gone dropped\n", "")


@pytest.mark.parametrize(("answer", "code", "left"), [("y", exits.OK, 0), ("n", exits.INTERRUPTED, 3)])
def test_before_anything_is_dropped_it_asks(
    og: Run, node: SmallNode, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: int
) -> None:
    node.host.kept.add(owner="gone", objects=3, bytes=7, removed=True)
    terminal = io.StringIO(f"{answer}\n")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    ended, _, asked = og("host", "drop", "gone")
    assert (ended, sum(kept.objects for kept in node.host.kept)) == (code, left)
    assert "cannot read it any more" in asked


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_where_nobody_can_be_asked_it_takes_a_yes(og: Run, node: SmallNode, more: list[str]) -> None:
    node.host.kept.add(owner="gone", objects=3, bytes=7, removed=True)
    code, _, err = og("host", "drop", "gone", *more)
    assert (code, node.host.kept[0].objects) == (exits.USAGE, 3)
    assert "--yes" in err


def test_what_cannot_be_dropped_is_said_and_ends_it(og: Run, node: SmallNode) -> None:
    node.stuck = True
    node.host.kept.add(owner="gone", objects=3, bytes=7, removed=True)
    code, _, err = og("host", "drop", "gone", "--yes")
    assert code == exits.INTERNAL
    assert "3 objects cannot be dropped" in err


def test_it_is_switched(og: Run, node: SmallNode) -> None:
    assert og("host", "toggle", "off") == (0, "off (2 at work, 1 unsettled)\n", "")
    assert node.host.state == "off"
    assert og("host", "toggle", "sideways")[0] == exits.USAGE


def test_draining_waits_until_all_is_over(og: Run, node: SmallNode) -> None:
    code, out, _ = og("host", "drain")
    assert (code, out.splitlines()[-1]) == (0, "drained (0 at work, 1 unsettled)")
    assert [line.split()[0] for line in out.splitlines()] == ["draining"] * 3 + ["drained"]


def test_draining_without_waiting_and_as_documents(og: Run, node: SmallNode) -> None:
    assert og("host", "drain", "--no-wait")[1] == "draining (2 at work, 1 unsettled)\n"
    _, out, _ = og("host", "drain", "--json")
    assert [json.loads(line)["host"]["state"] for line in out.splitlines()] == ["draining"] * 3 + ["drained"]


def test_a_drain_that_takes_too_long_ends_with_five(og: Run, node: SmallNode) -> None:
    def for_ever(request, context):
        yield jobs_pb2.WatchDrainResponse(host=node.host)
        while context.is_active():
            node.watchers.acquire()
            node.watchers.wait(0.05)
            node.watchers.release()

    node.on_WatchDrain = for_ever
    code, _, err = og("host", "drain", "--timeout", "0.3")
    assert code == exits.UNAVAILABLE
    assert err == "offgrid: not drained within 0.3 s; the drain goes on\n"


def test_a_node_that_is_no_host_says_so(og: Run, node: SmallNode) -> None:
    node.stumble("ToggleHost", FailedPrecondition("this node is none", reason="NotAHost"))
    assert og("host", "toggle", "on")[0] == exits.REFUSED
