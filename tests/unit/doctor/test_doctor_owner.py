"""What the doctor says to whom a node's folder is closed: whose it is, and what to type."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from node_command import typed

from offgrid.command_line import exits

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="owners are a POSIX system's")


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another user's folder of mode 0700, as `init` makes it."""
    folder, stat = tmp_path / "closed", os.stat
    folder.mkdir(mode=0o700)

    def refusing(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(f"{folder}{os.sep}"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refusing)
    monkeypatch.setattr(os, "access", lambda path, *_, **__: not str(path).startswith(str(folder)))
    monkeypatch.setattr(os, "geteuid", lambda: stat(folder).st_uid + 1)
    return folder


def test_it_says_whose_it_is_and_what_to_type_as_that_user(closed: Path) -> None:
    done = typed("doctor", "--dir", closed)
    assert done.exit_code == exits.FAILED
    assert f"{closed} is {closed.owner()}'s, who alone can look after the node there" in done.stdout
    assert f"sudo -u {closed.owner()} offgrid-node doctor --dir {closed}\n" in done.stdout
    assert "✗ config" not in done.stdout


def test_of_one_that_lies_in_such_a_folder_it_says_that(closed: Path) -> None:
    done = typed("doctor", "--dir", closed / "node")
    assert done.exit_code == exits.FAILED
    assert f"{closed / 'node'} lies in a folder that this user may not look into" in done.stdout
    assert f"sudo offgrid-node doctor --dir {closed / 'node'}\n" in done.stdout


@pytest.mark.parametrize("words", [("run",), ("words",), ("migrate",), ("init", "--mesh", "home")])
def test_other_commands_end_with_a_sentence(closed: Path, words: tuple[str, ...]) -> None:
    done = typed(*words, "--dir", closed)
    assert done.exit_code != exits.OK
    assert str(closed) in done.stderr
    assert "Traceback" not in done.output
