"""What the doctor says of one running node that is administered by a loopback port and asks for a gateway token: each
thing that is made wrong is really wrong there, and is right again after the command that it says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import BIN, GIVE_UP_S, eventually, log_of

from offgrid.client import payloads
from offgrid_node.doctor import Finding, State, diagnose
from offgrid_node.founding import found
from offgrid_node.local_mesh import LOCAL, LocalNode

TOKEN = "a-token-of-more-than-thirty-two-characters"


def wrong(node: LocalNode) -> dict[str, Finding]:
    """By check, but for figures of a machine that is busy with other tests."""
    found = [each for each in diagnose(node.folder, deadline_s=GIVE_UP_S) if each.check not in ("alerts", "memory")]
    return {each.check: each for each in found if each.state in (State.FAULT, State.WARNING)}


def type_it(command: str) -> None:
    """As a person would, with the commands of this environment."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, shell=True, check=False, env={**os.environ, "PATH": path}, timeout=30)  # noqa: S602


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    folder = tmp_path_factory.mktemp("a") / "n"
    settings = {
        **LOCAL,
        "admin.address": "127.0.0.1:0",
        "gateway.listen": "127.0.0.1:0",
        "gateway.token": TOKEN,
        "state.backup_interval": 1,
    }
    found(folder, "home", "attic", ("core", "broker", "host"), settings)
    made = LocalNode("attic", ("core",), folder)
    made.run("run")
    made.wait_ready()
    yield made
    made.stop()
    assert log_of(made)


def test_it_is_well(node: LocalNode) -> None:
    eventually(lambda: wrong(node) == {}, "it is up, and has made a backup")


def test_a_gateway_token_in_the_environment_that_is_not_the_nodes(
    node: LocalNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFGRID_GATEWAY__TOKEN", TOKEN[::-1])
    found = wrong(node)
    assert set(found) == {"gateway-token"}
    assert "takes another gateway.token" in found["gateway-token"].sentence
    assert found["gateway-token"].command.startswith("unset OFFGRID_GATEWAY__TOKEN")


def test_an_admin_token_that_the_running_node_does_not_take(node: LocalNode) -> None:
    token = node.folder / "data" / "offgrid.token"
    right = token.read_bytes()
    token.write_bytes(right[::-1])
    try:
        found = wrong(node)
    finally:
        token.write_bytes(right)
    assert set(found) == {"token"}
    assert found["token"].state is State.FAULT
    assert node.process is not None
    assert found["token"].command.startswith(f"kill {node.process.pid}; ")


def test_a_config_that_was_changed_is_not_in_force_yet(node: LocalNode) -> None:
    path, process = node.folder / "offgrid.toml", node.process
    assert process is not None
    before = path.stat()
    os.utime(path, (before.st_atime + 3_600, before.st_mtime + 3_600))
    try:
        found = wrong(node)
    finally:
        os.utime(path, (before.st_atime, before.st_mtime))
    assert set(found) == {"in-force"}
    assert "holds from its next start on" in found["in-force"].sentence
    assert found["in-force"].command.startswith(f"kill {process.pid}; while kill -0 {process.pid}")


def test_a_folder_that_is_asked_for_where_a_config_cannot_be_read(
    node: LocalNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs the config beside the running node is left out, without a word of Python's."""
    monkeypatch.setenv("OFFGRID_MESH__LISTN", "1")
    assert set(wrong(node)) == {"config"}
    monkeypatch.delenv("OFFGRID_MESH__LISTN")
    Path(node.folder / "offgrid.toml").rename(node.folder / "offgrid.toml.old")
    renamed = wrong(node)
    type_it(renamed["config"].command)
    assert set(renamed) == {"config"}
    assert wrong(node) == {}


def test_backups_that_are_not_made_any_more(node: LocalNode) -> None:
    """Their folder is a file now, which the node says too, until it tries again a minute later: so this comes last."""
    backups = node.folder / "data" / "backups"
    eventually(backups.is_dir, "the first was made")
    backups.rename(backups.with_name("moved"))
    backups.write_text("in the way")
    try:
        with node.client() as client:
            client.jobs.submit(payloads.builtin("echo", input=b"x"))
        found = eventually(lambda: (said := wrong(node)).get("backups") and said, "three intervals are over")
    finally:
        backups.unlink()
        backups.with_name("moved").rename(backups)
    assert set(found) <= {"backups", "notices"}
    type_it(found["backups"].command)
    assert "backups" not in wrong(node), "one by hand is one, too"
