"""A store has one process: whatever else is run in the folder of a node that runs is refused, says who has it, and
changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from offgrid_node.folder import Folder, open_store
from offgrid_node.founding import found
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.root import ROOT
from offgrid_node.storage.format import FORMAT_KEY, STORE, format_row
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.store import Batch

COMMANDS = (["run"], ["run", "--accept-stale"], ["migrate"], ["migrate", "--dry-run"], ["rotate", "identity"])
HOLD = """
import sys
from pathlib import Path
from offgrid_node.folder import Folder, open_store
store = open_store(Folder(Path(sys.argv[1])).config({}), create=False)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return found(tmp_path / "node", "home", "attic", ["core"], {"mesh.listen": "127.0.0.1:0"}).folder


@pytest.fixture
def held(folder: Folder) -> Iterator[LoggedStore]:
    """As a daemon has it; a second one in this process is refused as one in another."""
    store = open_store(folder.config({}), create=False)
    yield store
    store.close()


def refused(*words: str) -> Fault:
    error = CliRunner().invoke(ROOT, words).exception
    assert isinstance(error, Fault), error
    return error


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_beside_a_node_that_runs_is_refused(folder: Folder, held: LoggedStore, words: list[str]) -> None:
    before = held.journal_seq, {table: [*held.scan(table)] for table in held.tables}
    error = refused(*words, "--dir", str(folder.path))
    assert isinstance(error, FailedPrecondition)
    assert (error.reason, error.metadata["pid"]) == ("AlreadyRunning", str(os.getpid()))
    assert before == (held.journal_seq, {table: [*held.scan(table)] for table in held.tables})
    assert [each for each in held.path.parent.iterdir() if ".copy" in each.name] == []


def test_a_restore_into_its_folder_is_refused(folder: Folder, held: LoggedStore, tmp_path: Path) -> None:
    backup = tmp_path / "any.zip"
    backup.write_bytes(b"")
    key = folder.keys_path / "node.key"
    error = refused("restore", "--backup", str(backup), "--key", str(key), "--dir", str(folder.path))
    assert error.reason == "NodeExists"


def test_it_is_free_as_soon_as_the_process_that_had_it_is_killed(folder: Folder) -> None:
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        error = refused("migrate", "--dir", str(folder.path))
        assert f"in use by another daemon (process {process.pid})" in error.message
        process.kill()
    store = open_store(folder.config({}), create=False)
    store.commit(Batch(writes={(STORE, FORMAT_KEY): format_row(1)}))
    store.close()
