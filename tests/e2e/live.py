"""What the end-to-end tests share: commands run as people run them, and waiting for what must come true."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from offgrid.v1 import jobs_pb2
from offgrid_node.local_mesh import LocalMesh, LocalNode

BIN = Path(sys.executable).parent
# Until a test gives up what must come true: far longer than it takes, for a machine may be slow, and no test is timed.
GIVE_UP_S = 120.0
REMOVED_WITHIN_S = 5.0  # promised: so long after the command a removed member is out
STOPPED_WITHIN_S = 5.0  # promised: so long after SIGTERM or Ctrl-C a node has gone
A_PYTHON_S = 0.05  # starting one and ending it, on a machine for which promises of time are made
COMPLETED, FAILED = jobs_pb2.JOB_STATE_COMPLETED, jobs_pb2.JOB_STATE_FAILED

# Reads nothing and says two letters: the shortest real job.
SAY_HI = b"""(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\08\\00\\00\\00\\02\\00\\00\\00hi")
  (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"""
SPIN = b'(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'
EXIT_3 = b"""(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const 3))))"""

T = TypeVar("T")


class Done:
    """How a command ended. `said` is both streams, for messages."""

    def __init__(self, argv: Sequence[str], code: int, out: str, err: str, seconds: float) -> None:
        self.argv, self.code, self.out, self.err, self.seconds = argv, code, out, err, seconds

    @property
    def said(self) -> str:
        return f"$ {shlex.join(self.argv)}\n{self.out}{self.err}(exit {self.code} after {self.seconds:.2f} s)"


def run(argv: Sequence[str | Path], *, timeout_s: float = GIVE_UP_S, env: Mapping[str, str] | None = None) -> Done:
    """Runs a command to its end. Whatever it says, a traceback is never right."""
    words = [str(word) for word in argv]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("OFFGRID_")} | dict(env or {})
    began = time.monotonic()
    ended = subprocess.run(
        words, capture_output=True, text=True, timeout=timeout_s, env=environ, stdin=subprocess.DEVNULL, check=False
    )
    done = Done(words, ended.returncode, ended.stdout, ended.stderr, time.monotonic() - began)
    assert "Traceback" not in done.out + done.err, done.said
    return done


def offgrid(node: LocalNode, *arguments: str | Path, timeout_s: float = GIVE_UP_S) -> Done:
    """The operator's command against this node."""
    return run([BIN / "offgrid", "--node-dir", node.folder, *arguments], timeout_s=timeout_s)


def offgrid_node(*arguments: str | Path, timeout_s: float = GIVE_UP_S, env: Mapping[str, str] | None = None) -> Done:
    return run([BIN / "offgrid-node", *arguments], timeout_s=timeout_s, env=env)


def grpcurl_as_buf(line: str) -> list[str]:
    """The `buf curl` that does what a `grpcurl` line says: same address, same files, same method."""
    words = shlex.split(line.strip())
    assert words.pop(0) == "grpcurl", line
    buf, base, unix = [str(BIN / "buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge"], "https://", False
    renamed = {"-cacert": "--cacert", "-cert": "--cert", "-key": "--key", "-authority": "--servername"}
    while words[0].startswith("-"):
        flag = words.pop(0)
        if flag == "-plaintext":
            base = "http://"
        elif flag == "-unix":
            unix = True
        else:
            buf += [renamed[flag], words.pop(0)]
    address, method = words
    if unix:
        buf += ["--unix-socket", address]
        address = "localhost"
    return [*buf, base + address, "--list-services"] if method == "list" else [*buf, f"{base}{address}/{method}"]


def promised(seconds: float) -> float:
    """A promised time on this machine, which may be slow or busy just now: then it has as much longer."""
    began = time.monotonic()
    for _ in range(3):
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
    return seconds * max(1.0, (time.monotonic() - began) / 3 / A_PYTHON_S)


def eventually(question: Callable[[], T], what: str, within_s: float = GIVE_UP_S) -> T:
    """The first true answer; fails naming `what` when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (answer := question()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)
    return answer


def log_of(node: LocalNode) -> str:
    """All that the node has said; no node may ever show a traceback."""
    text = node.log_path.read_text(errors="replace")
    assert "Traceback" not in text, text
    return text


@contextmanager
def mesh_of(folder: Path, nodes: Mapping[str, Sequence[str]], **settings: object) -> Iterator[LocalMesh]:
    """A started mesh of nodes with these roles; in the end all have stopped in order, none with a traceback."""
    with LocalMesh(folder, "t", {name: list(roles) for name, roles in nodes.items()}, **settings) as mesh:
        mesh.start()
        mesh.wait_alive()
        yield mesh
        stopped = mesh.stop()
        for node in mesh.nodes.values():
            log_of(node)
    assert set(stopped.values()) == {0}, stopped
