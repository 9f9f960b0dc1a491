"""`offgrid quorum`: weights as people write them, and what a quorum looks like for people and for scripts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_node import NODE_ID, OTHER_ID, SmallNode

from offgrid.command_line import exits
from offgrid_node.protocol.quorum.enough import decimal
from offgrid_tools.cli import run
from offgrid_tools.cli.amounts import MILLI_PLACES, WEIGHT_MILLI_MAX, scaled, weight_of


@pytest.fixture
def og(capsys: pytest.CaptureFixture[str], node: SmallNode):  # type: ignore[no-untyped-def]
    def command(*argv: str) -> tuple[int, str, str]:
        code = run(["--socket", node.address, *argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_create_ack_and_status(og, node: SmallNode) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = og("quorum", "create", "--id", "test123", "--required", "2.0")
    assert code == exits.OK
    assert node.calls["CreateQuorum"][0].required_milli == 2_000
    assert "required  2.0 of 3.0" in out
    assert "acked     0.0, not reached" in out
    og("quorum", "ack", "--id", "test123")
    code, out, _ = og("quorum", "ack", "--id", "test123", "--node", "barn")
    assert "acked     3.0, reached" in out
    assert og("quorum", "status", "--id", "test123")[1] == out
    rows = [line.split()[:4] for line in out.splitlines()[-2:]]
    assert rows == [["attic", NODE_ID[:12], "1.5", "alive"], ["barn", OTHER_ID[:12], "1.5", "alive"]]


def test_members_are_named(og, node: SmallNode) -> None:  # type: ignore[no-untyped-def]
    og("quorum", "create", "--id", "q", "--required", "1", "--member", "barn", "--member", "attic")
    assert list(node.calls["CreateQuorum"][0].members) == ["barn", "attic"]
    og("quorum", "status", "--id", "q", "--owner", "barn")
    assert node.calls["GetQuorum"][0].owner == "barn"


@pytest.mark.parametrize("wrong", ["0", "0.0005", "-1", "nan", "two", "1e3", "", "1000000.001"])
def test_a_weight_that_is_none_is_a_usage_error(og, node: SmallNode, wrong: str) -> None:  # type: ignore[no-untyped-def]
    code, _, err = og("quorum", "create", "--id", "q", f"--required={wrong}")
    assert code == exits.USAGE
    assert "--required" in err
    assert node.calls["CreateQuorum"] == []


def test_scripts_get_thousandths(og) -> None:  # type: ignore[no-untyped-def]
    _, out, _ = og("--json", "quorum", "create", "--id", "q", "--required", "0.25")
    quorum = json.loads(out)["quorum"]
    assert (quorum["quorum_id"], quorum["required_milli"], quorum["reached"]) == ("q", 250, False)


def test_lists_leave_out_those_of_objects_unless_asked(og) -> None:  # type: ignore[no-untyped-def]
    assert og("quorum", "list") == (0, "there are no quorums\n", "")
    for name in ("a", "object:o-1", "b", "c"):
        og("quorum", "create", "--id", name, "--required", "1.5")
    assert [line.split()[0] for line in og("quorum", "list")[1].splitlines()] == ["QUORUM", "a", "b", "c"]
    listed = json.loads(og("--json", "quorum", "list", "--objects")[1])["quorums"]
    assert [quorum["quorum_id"] for quorum in listed] == ["a", "object:o-1", "b", "c"]
    assert len(og("quorum", "list", "--limit", "2")[1].splitlines()) == 3


def test_an_unknown_quorum_is_not_found(og) -> None:  # type: ignore[no-untyped-def]
    code, _, err = og("quorum", "status", "--id", "nowhere")
    assert code == exits.BY_CODE["NOT_FOUND"]
    assert "nowhere" in err


@given(st.integers(0, WEIGHT_MILLI_MAX))
def test_weights_are_shown_as_they_are_read(milli: int) -> None:
    shown = weight_of(milli)
    assert scaled(shown, MILLI_PLACES, WEIGHT_MILLI_MAX) == milli
    assert shown == decimal(milli), "the node's own sentences write them alike"


def test_a_member_is_invited_and_listed_with_a_weight_as_exact(og, node: SmallNode) -> None:  # type: ignore[no-untyped-def]
    assert og("mesh", "invite", "--weight", "0.333")[0] == exits.OK
    assert node.calls["CreateInvite"][0].weight_milli == 333
    for wrong in ("0", "0.0005", "1e3", "nan"):
        code, _, err = og("mesh", "invite", f"--weight={wrong}")
        assert code == exits.USAGE
        assert "--weight" in err
    assert len(node.calls["CreateInvite"]) == 1
    node.members[0].member.weight_milli = 1_234_567_000
    assert og("mesh", "members")[1].splitlines()[1].split()[3] == "1234567.0"
