"""Whose folder a node is made in: `init` and `join` leave nothing that its owner could not read."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest
from node_command import typed

from offgrid.command_line import exits

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="owners are a POSIX system's")


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of the folder, which is another user's than whoever types."""
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    return tmp_path.owner()


COMMANDS = (
    ("init", "--mesh", "home"),
    ("init", "--mesh", "home", "--name", "attic", "--role", "core", "--role", "host", "--set", "jobs.drop_dir=my jobs"),
    ("join", "og1:token", "--timeout", "7", "--no-run", "--name", "barn"),
)


@pytest.mark.parametrize("words", COMMANDS)
def test_in_another_users_folder_the_same_is_to_be_typed_as_that_user(
    tmp_path: Path, owner: str, words: tuple[str, ...]
) -> None:
    done = typed(*words, "--dir", tmp_path)
    _, _, command = " ".join(done.stderr.split()).partition("Type: ")
    told = shlex.split(command)
    assert (done.exit_code, told[:4]) == (exits.REFUSED, ["sudo", "-u", owner, "offgrid-node"])
    assert sorted(told[4:]) == sorted([*words, "--dir", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_made_now_is_the_makers(tmp_path: Path, owner: str) -> None:
    assert typed("init", "--mesh", "home", "--dir", tmp_path / "new").exit_code == exits.OK
