"""`offgrid ledger verify`: what it says, for people and for programs."""

from __future__ import annotations

import json

import pytest
from cli_run import Run
from msgspec.structs import replace
from small_node import SmallNode

from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.ledger.verification import Finding
from offgrid_tools import replaying
from offgrid_tools.replaying import Report

GOOD = Report("home", "abcd", 12, 30, 5, 2, 0, (), 0, 1.5, moved=False)
BAD = replace(GOOD, found=3, findings=(Finding("position 7", "the signature is not its author's"),), below_zero=2)


@pytest.fixture
def og(capsys: pytest.CaptureFixture[str], node: SmallNode) -> Run:
    return Run(capsys, node)


def test_what_holds_is_said_and_what_was_checked(og: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "online", lambda client: GOOD)
    code, out, _ = og("ledger", "verify")
    assert (code, out.splitlines()[0]) == (0, "all holds")
    assert "12 blocks, 30 signatures, 5 final transactions" in out


def test_what_is_wrong_is_said_with_its_place(og: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "online", lambda client: BAD)
    code, out, _ = og("ledger", "verify")
    assert (code, out.splitlines()[:3]) == (
        1,
        ["NOT VALID", "  position 7: the signature is not its author's", "  and 2 more"],
    )
    assert "2 accounts" in out


def test_a_program_gets_it_all(og: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "online", lambda client: replace(BAD, moved=True))
    code, out, _ = og("ledger", "verify", "--json")
    answer = json.loads(out)
    assert (code, answer["holds"], answer["compared"], answer["found"], answer["below_zero"]) == (1, False, False, 3, 2)
    assert answer["findings"] == [{"where": "position 7", "what": "the signature is not its author's"}]


def test_where_blocks_are_forgotten_it_is_said_from_where_it_was_verified(
    og: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "online", lambda client: replace(GOOD, first=3, unsealed=[0, 1]))
    code, out, _ = og("ledger", "verify")
    assert (code, out.splitlines()[0]) == (0, "all holds")
    assert "epoch 3: older blocks are forgotten" in out
    assert "2 checkpoints before it: their seals are not kept" in out
    code, out, _ = og("ledger", "verify", "--json")
    answer = json.loads(out)
    assert (answer["holds"], answer["compared"], answer["first_epoch"], answer["unsealed"]) == (True, True, 3, [0, 1])


def test_a_folder_without_a_node_is_said(og: Run, tmp_path: object) -> None:
    code, _, err = og("ledger", "verify", "--offline", "--node-dir", str(tmp_path))
    assert code != 0
    assert "offgrid" in err


def test_a_ledger_that_is_not_open_is_said(og: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(client: object) -> Report:
        raise FailedPrecondition("the mesh's ledger is not open", reason="LedgerNotOpen")

    monkeypatch.setattr(replaying, "online", refuse)
    code, _, err = og("ledger", "verify")
    assert (code, "offgrid ledger open" in err) == (4, True)
