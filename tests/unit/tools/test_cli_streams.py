"""Both commands where their streams are not what they hope for: closed, full, left by whoever read, or at an end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from offgrid.command_line import exits

PROGRAMS = {
    "offgrid": "from offgrid_tools.cli import main; main()",
    "offgrid-node": "from offgrid_node.__main__ import main; main()",
}


def ended(program: str, redirected: str) -> tuple[int, str]:
    """`--help` of it, as sh redirects it."""
    line = f'exec "$0" -c "$1" --help {redirected}'
    done = subprocess.run(
        ["/bin/sh", "-c", line, sys.executable, PROGRAMS[program]], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_cannot_be_written_is_said(program: str) -> None:
    code, said = ended(program, ">/dev/full")
    assert code == exits.FAILED
    assert said == f"{program}: No space left on device: where this writes to, or standard output goes\n"


@pytest.mark.skipif(sys.platform == "win32", reason="by sh")
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_stream_that_is_closed_is_nobody_who_reads(program: str, closed: str) -> None:
    assert ended(program, closed) == (exits.OK, "")


@pytest.mark.skipif(sys.platform == "win32", reason="by sh")
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_reader_that_has_gone_is_no_fault(program: str) -> None:
    assert ended(program, "| :")[1] == ""


@pytest.mark.parametrize("command", [["words", "--enter"], ["restore", "--via", "127.0.0.1:1", "--words"]])
def test_a_question_to_a_pipe_that_has_ended_is_a_wrong_command_line(command: list[str]) -> None:
    words = [sys.executable, "-m", "offgrid_node", *command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == exits.USAGE
    assert "standard input has ended" in done.stderr
