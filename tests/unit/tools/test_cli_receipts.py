"""`offgrid job receipt` and `verify-receipt`: written with a node's help, checked without."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from cli_run import Run
from signed_receipts import BY_ADMIN, GENESIS, OUTPUT, job_and_proof
from small_node import SmallNode

from offgrid.command_line import exits
from offgrid_node.protocol.mesh.token import InviteToken
from offgrid_tools.cli import run


@pytest.fixture
def og(capsys: pytest.CaptureFixture[str], node: SmallNode) -> Run:
    job, proof = job_and_proof(BY_ADMIN)
    node.jobs["j-2"], node.proof = job, proof
    return Run(capsys, node)


@pytest.fixture
def file(og: Run, tmp_path: Path) -> Path:
    path = tmp_path / "receipt.json"
    assert og("job", "receipt", "j-2", "--output", str(path)) == (0, "", "")
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.write_bytes(OUTPUT)
    return path


def alone(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """The command with no node to call."""
    code = run(["job", "verify-receipt", *map(str, argv)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_what_is_written_is_valid_without_any_node(
    capsys: pytest.CaptureFixture[str], file: Path, output: Path, node: SmallNode
) -> None:
    node.stop()
    code, out, err = alone(capsys, file, "--mesh", GENESIS.mesh_id, "--result", output)
    assert (code, err) == (0, "")
    assert out.startswith("valid\n")
    for fact in ("j-2, attempt 1", "barn (", "home (", "as asked", "that of the file given", "processor 2.1 ms"):
        assert fact in out


def test_an_invite_token_names_the_mesh_too(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    token = str(InviteToken(GENESIS.mesh_tag, Random(1).randbytes(16), ("hub:1",)))
    assert alone(capsys, file, "--mesh", token)[0] == 0
    other = str(InviteToken(bytes(8), bytes(16)))
    code, out, _ = alone(capsys, file, "--mesh", other)
    assert (code, out.splitlines()[0]) == (exits.FAILED, "NOT VALID")
    code, _, err = alone(capsys, file, "--mesh", "home")
    assert code == exits.USAGE
    assert "12 characters or more" in err


def test_every_change_is_named(capsys: pytest.CaptureFixture[str], file: Path, output: Path) -> None:
    whole = json.loads(file.read_text())
    whole["facts"]["price_micro"], whole["facts"]["status"] = 1, "failed"
    file.write_text(json.dumps(whole))
    output.write_bytes(b"other")
    code, out, _ = alone(capsys, file, "--result", output)
    assert code == exits.FAILED
    named = [line.split()[0] for line in out.splitlines()]
    assert named == ["NOT", "facts.status:", "facts.price_micro:", "result:"]


def test_for_scripts(og: Run, capsys: pytest.CaptureFixture[str], file: Path) -> None:
    assert og.json("job", "receipt", "j-2") == json.loads(file.read_text())
    code, out, _ = alone(capsys, file, "--json")
    said = json.loads(out)
    assert (code, said["valid"], said["problems"], said["host"]) == (0, True, [], "barn")
    assert (said["facts"]["job_id"], said["mesh"]["id"]) == ("j-2", GENESIS.mesh_id)
    assert said["checked"] == {"mesh": False, "result": False}
    file.write_text("[]")
    code, out, _ = alone(capsys, file, "--json")
    assert (code, json.loads(out)["problems"][0]["field"]) == (exits.FAILED, "file")


def test_a_job_without_a_receipt_is_refused(og: Run, node: SmallNode) -> None:
    node.jobs["j-2"].ClearField("result")
    code, _, err = og("job", "receipt", "j-2")
    assert code == exits.REFUSED
    assert "has no receipt" in err
