"""A command that is typed while the node of its folder is starting waits for it, and for nothing else."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pytest

from offgrid import starting
from offgrid.starting import MARK_NAME, Starting, is_starting
from offgrid_tools.cli import node_start
from offgrid_tools.cli.node_start import await_start
from offgrid_tools.cli.root import ROOT

HELD = "import sys; from pathlib import Path; from offgrid.starting import Starting\n"
HELD += "mark = Starting(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "offgrid.toml").write_text('[mesh]\nname = "home"\n')
    return tmp_path


def seconds(address: str) -> float:
    began = time.monotonic()
    with click.Context(ROOT):
        await_start(address)
    return time.monotonic() - began


def test_the_mark_is_its_holders_until_it_is_over(folder: Path) -> None:
    assert not is_starting(folder)
    with Starting(folder) as mark:
        assert is_starting(folder)
        Starting(folder).over()  # another start of the same folder takes nothing away
        assert is_starting(folder)
        mark.over()
        assert not is_starting(folder)
    assert not (folder / MARK_NAME).exists()


def test_a_process_that_dies_leaves_no_mark(folder: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HELD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_starting(folder)
        holder.kill()
    assert not is_starting(folder)


def test_a_folder_that_takes_no_mark_has_none(tmp_path: Path) -> None:
    with Starting(tmp_path / "missing"):
        assert not is_starting(tmp_path / "missing")


def test_a_file_system_without_locks_has_no_marks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lock(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(starting, "lock", lock)
    with Starting(folder):
        assert not is_starting(folder)


def test_it_is_waited_for_until_it_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = Starting(folder)
    ending = threading.Timer(0.3, mark.over)
    with socket.socket(socket.AF_UNIX) as answering:  # one that a node left which was killed, or this one's
        answering.bind(str(folder / "data" / "offgrid.sock"))
        ending.start()
        seconds(str(folder))
        assert not is_starting(folder)
        monkeypatch.setattr(node_start, "LOOK_S", 30)
        assert seconds(str(folder)) < 20, "what is not starting is not waited for"


def test_what_has_not_begun_is_given_a_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_start, "BEGIN_S", 0.2)
    assert seconds(str(folder)) >= 0.2


def test_a_start_that_never_ends_is_waited_for_no_longer_than_that(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_start, "START_S", 0.2)
    with Starting(folder):
        assert 0.2 <= seconds(str(folder)) < 30


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "127.0.0.1:1", "10.0.0.1:9", "unix:/"])
def test_where_no_folder_of_a_node_is_near_nothing_is_waited_for(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(node_start, "LOOK_S", 30)
    assert seconds(address) < 20
