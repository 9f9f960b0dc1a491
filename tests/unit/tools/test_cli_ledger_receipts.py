"""`offgrid tx receipt`, `verify-receipt` and `ledger genesis`: written with a node's help, checked without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_run import Run
from signed_ledger import TX, opened, receipt_of, shown
from signed_receipts import GENESIS, HOST, OTHER
from small_node import SmallNode

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ledger.records import tx_id_of
from offgrid_tools.cli import run

TX_ID = tx_id_of(TX.digest(GENESIS.salt))


@pytest.fixture
def og(capsys: pytest.CaptureFixture[str], node: SmallNode) -> Run:
    light = receipt_of(HOST, OTHER)
    node.ledger_genesis, node.proofs = opened()
    node.receipt = ledger_pb2.GetReceiptResponse(
        receipt=light.encode(),
        text=light.text,
        tx_id=TX_ID,
        witnesses=[ledger_pb2.Witness(name="barn", node_id=HOST.node_id), ledger_pb2.Witness(node_id=OTHER.node_id)],
    )
    return Run(capsys, node)


@pytest.fixture
def files(og: Run, tmp_path: Path) -> tuple[str, ...]:
    """What `verify-receipt` is given."""
    receipt, tx, papers = (str(tmp_path / name) for name in ("receipt", "tx.json", "papers.json"))
    assert og("tx", "receipt", TX_ID, "-o", receipt)[0] == 0
    assert og("ledger", "genesis", "-o", papers) == (0, "", "")
    Path(tx).write_bytes(shown())
    return receipt, "--tx", tx, "--genesis", papers


def alone(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """The command with no node to call."""
    code = run(["tx", "verify-receipt", *map(str, argv)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_what_is_written_is_valid_without_any_node(
    capsys: pytest.CaptureFixture[str], files: tuple[str, ...], node: SmallNode
) -> None:
    node.stop()
    code, out, err = alone(capsys, *files, "--mesh", GENESIS.mesh_id)
    assert (code, err) == (0, "")
    assert out.startswith("valid: this transaction is final\n")
    for fact in (TX_ID, "its number 3", ": 2.5", "two nets", f"n-{HOST.node_id[:6]} (1.0)", "home (", "as asked"):
        assert fact in out


def test_a_program_gets_the_facts(capsys: pytest.CaptureFixture[str], files: tuple[str, ...]) -> None:
    code, out, _ = alone(capsys, *files, "--json")
    answer = json.loads(out)
    assert (code, answer["valid"], answer["checked"], answer["problems"]) == (0, True, {"mesh": False}, [])
    assert answer["facts"]["tx_id"] == TX_ID
    assert answer["facts"]["outputs"] == [{"account": OTHER.node_id, "amount_micro": 2_500_000}]


def test_as_text_it_is_valid_too(
    og: Run, capsys: pytest.CaptureFixture[str], files: tuple[str, ...], tmp_path: Path
) -> None:
    code, out, _ = og("tx", "receipt", TX_ID)
    assert (code, out[:5]) == (0, "ogr1:")
    note = tmp_path / "note.txt"
    note.write_text(out)
    assert alone(capsys, note, *files[1:])[0] == 0


def test_a_file_is_said_to_be_there_and_who_signed(og: Run, tmp_path: Path) -> None:
    path = tmp_path / "r"
    code, out, _ = og("tx", "receipt", TX_ID, "-o", path)
    assert (code, out) == (0, f"{path}: 135 bytes, signed by barn, {OTHER.node_id}\n")
    assert len(path.read_bytes()) == 135
    assert json.loads(og("--json", "tx", "receipt", TX_ID)[1])["tx_id"] == TX_ID


def test_what_is_wrong_is_said_and_the_exit_code_is_1(
    capsys: pytest.CaptureFixture[str], files: tuple[str, ...], tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(Path(files[0]).read_bytes()[:-1])
    code, out, err = alone(capsys, cut, *files[1:])
    assert (code, err) == (1, "")
    assert out.startswith("NOT VALID\n  receipt: receipt: body ends at 134")
    code, out, _ = alone(capsys, *files, "--mesh", "a" * 12, "--json")
    assert (code, json.loads(out)["problems"][0]["field"]) == (1, "mesh.id")
    assert json.loads(out)["facts"] is None


def test_before_the_ledger_is_open_there_are_no_papers(og: Run, node: SmallNode) -> None:
    node.ledger_genesis = ledger_pb2.GetGenesisResponse(mesh="home")
    code, _, err = og("ledger", "genesis")
    assert (code, "offgrid ledger open" in err) == (4, True)
