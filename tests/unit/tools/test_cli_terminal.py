"""`offgrid job top` and its like on a real terminal: drawn, resized, left by key or signal, and given back whole."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_run import OFFGRID
from small_node import OTHER_ID, SmallNode

from offgrid.command_line import exits
from offgrid.v1 import jobs_pb2

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no terminals of this kind")
PATIENCE_S = 30.0
FRAMES_MAX = 100


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, node: SmallNode, *argv: str, program: list[str] | None = None, **environment: str) -> None:
        import pty

        self._fd, theirs = pty.openpty()
        self.resize(40, 160)
        self.said = b""
        command = program or [*OFFGRID, "--socket", node.address, *argv]
        # What these two say goes before what the terminal says, and whoever runs the tests may have set them.
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        env = {**inherited, "TERM": "xterm-256color", **environment}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
        os.close(theirs)

    def resize(self, rows: int, columns: int) -> None:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, words: bytes, more: int = 1) -> bool:
        """Whether so many more of these words come within reason."""
        wanted, deadline = self.said.count(words) + more, time.monotonic() + PATIENCE_S
        while self.said.count(words) < wanted and time.monotonic() < deadline and self._read():
            pass
        return self.said.count(words) >= wanted

    def press(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def ended(self) -> int:
        while self._read():
            pass
        return self.process.wait(PATIENCE_S)

    def echoes(self) -> bool:
        """Whether keys are shown as they are typed: as whoever comes next expects it."""
        import termios

        return bool(termios.tcgetattr(self._fd)[3] & termios.ECHO)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], PATIENCE_S)[0]:
            return False
        try:
            data = os.read(self._fd, 65_536)
        except OSError:  # how Linux says that nobody holds the other side any more
            return False
        self.said += data
        return bool(data)


@pytest.fixture
def terminals(node: SmallNode) -> Iterator[list[Terminal]]:
    state = jobs_pb2.JOB_STATE_RUNNING
    node.jobs["j-1"] = jobs_pb2.Job(job_id="j-1", task_id="t-1", state=state, host=OTHER_ID, attempt=1, needs="wasm")
    node.inputs["j-1"] = b""
    opened: list[Terminal] = []
    yield opened
    for each in opened:
        each.close()


@pytest.fixture
def top(node: SmallNode, terminals: list[Terminal]) -> Terminal:
    terminals.append(Terminal(node, "job", "top", "--interval", "0.2"))
    return terminals[0]


def test_top_goes_on_until_q(top: Terminal) -> None:
    assert top.until(b"j-1", more=2)
    top.press(b"x")  # no key of its own: it goes on
    assert top.until(b"j-1", more=2)
    top.press(b"q")
    assert top.ended() == exits.OK
    assert top.said.endswith(b"\x1b[?25h"), "the cursor is there again"


def test_top_ends_with_ctrl_c_and_gives_the_terminal_back(top: Terminal, node: SmallNode) -> None:
    assert top.until(b"j-1")
    os.killpg(top.process.pid, signal.SIGINT)  # what a terminal does for Ctrl-C
    assert top.process.wait(PATIENCE_S) == exits.INTERRUPTED
    assert top.echoes()
    assert b"Traceback" not in top.said


def test_top_fits_what_the_terminal_has_become(top: Terminal) -> None:
    assert top.until(b"slots here busy")
    top.resize(12, 40)
    os.killpg(top.process.pid, signal.SIGWINCH)
    fits = any(top.until(b"attic of home") and widest_of_last(top) <= 40 for _ in range(FRAMES_MAX))
    assert fits, (top.process.poll(), top.said[-2_000:])
    top.press(b"Q")
    assert top.ended() == exits.OK


def widest_of_last(top: Terminal) -> int:
    """Characters of the widest line of the last frame that is there as a whole."""
    frame = top.said.split(b"attic of home")[-2]
    lines = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", frame).splitlines()
    return max(len(line.rstrip()) for line in lines)


def test_top_has_no_colour_where_none_is_wanted(node: SmallNode, terminals: list[Terminal]) -> None:
    terminals.append(Terminal(node, "job", "top", "--interval", "0.2", "--count", "2", NO_COLOR="1"))
    assert terminals[0].ended() == exits.OK
    assert b"\x1b[3" not in terminals[0].said
    assert b"j-1" in terminals[0].said


def test_top_into_a_pipe_is_plain_and_ends_with_its_reader(node: SmallNode, terminals: list[Terminal]) -> None:
    command = [*OFFGRID, "--socket", node.address, "job", "top", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"jobs open" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE_S) == exits.PIPE_CLOSED
        assert process.stderr.read() == b""


def test_a_stranger_s_words_do_not_reach_the_terminal_raw(node: SmallNode, terminals: list[Terminal]) -> None:
    node.progress = [jobs_pb2.JobProgress(job_id="j-1", attempt=1, output=b"red \x1b[31m words", log=b"\x1b]0;t\x07")]
    terminals.append(Terminal(node, "job", "logs", "-f", "j-1"))
    terminals[0].ended()
    assert b"words" in terminals[0].said
    assert b"\x1b" not in terminals[0].said


def test_what_takes_longer_than_a_second_says_so_and_leaves_no_trace(
    terminals: list[Terminal], node: SmallNode, tmp_path: Path
) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time\n"
        "import click\n"
        "from offgrid_tools.cli.bars import working\n"
        "with click.Context(click.Command('x')), working('looking'):\n"
        "    time.sleep(2)\n"
        "print('done')\n"
    )
    terminals.append(Terminal(node, program=[sys.executable, str(slow)]))
    assert terminals[0].until(b"looking, 1 s")
    assert terminals[0].ended() == exits.OK
    assert terminals[0].said.endswith(b"\r\x1b[Kdone\r\n")


def test_a_line_that_is_said_meanwhile_stands_alone(terminals: list[Terminal], node: SmallNode, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time\n"
        "from offgrid.command_line.working import working\n"
        "with working('fetching') as say:\n"
        "    time.sleep(1.5)\n"
        "    say('half')\n"
    )
    terminals.append(Terminal(node, program=[sys.executable, str(slow)]))
    assert terminals[0].ended() == exits.OK
    assert b"fetching, 1 s\r\x1b[Khalf\r\n" in terminals[0].said
    assert terminals[0].said.endswith(b"\r\x1b[K")
