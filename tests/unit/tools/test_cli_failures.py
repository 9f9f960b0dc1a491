"""How `offgrid` ends when something fails: an exit code, one sentence for people or a document, what to do next."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from cli_run import OFFGRID, Run
from small_node import SmallNode

from offgrid.command_line import exits
from offgrid_node.protocol.errors import (
    AlreadyExists,
    Corrupt,
    Exhausted,
    FailedPrecondition,
    Fault,
    Internal,
    InvalidRequest,
    NotFound,
    PeerFault,
    PermissionDenied,
    Unavailable,
)
from offgrid_tools.cli import run


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["job", "list", "--limit", "x"], "'x' is no whole number."),
        (["job", "list", "--limit", "-1"], "-1; 0 to 1000000000 are allowed."),
        (["mail", "inbox", "--limit", "-1"], "-1; 0 or more is allowed."),
        (["put", __file__, "--timeout", "x"], "'x' is no number."),
    ],
    ids=" ".join,
)
def test_a_number_that_is_wrong_is_said_in_plain_words(og: Run, argv: list[str], sentence: str) -> None:
    code, out, err = og(*argv)
    assert (code, out) == (exits.USAGE, "")
    assert sentence in err


class TestExitCodes:
    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            (InvalidRequest("x"), exits.USAGE),
            (NotFound("x"), exits.NOT_FOUND),
            (PermissionDenied("x"), exits.REFUSED),
            (FailedPrecondition("x"), exits.REFUSED),
            (AlreadyExists("x"), exits.REFUSED),
            (PeerFault("x"), exits.REFUSED),
            (Unavailable("x", retry_ms=60_000), exits.UNAVAILABLE),
            (Exhausted("x"), exits.EXHAUSTED),
            (Corrupt("x"), exits.INTERNAL),
            (Internal("x"), exits.INTERNAL),
            (NotFound("x", reason="UnknownMethod"), exits.INTERNAL),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Fault) else str(value),
    )
    def test_what_the_node_says(self, og: Run, node: SmallNode, fault: Fault, code: int) -> None:
        node.stumble("GetStatus", fault)
        ended, out, err = og("status")
        assert (ended, out) == (code, "")
        assert err.startswith("offgrid: x\n")

    @pytest.mark.parametrize(
        ("reason", "command"),
        [("NoSuchNode", "peers"), ("JobNotFound", "job list"), ("SessionNotFound", "state sessions")],
    )
    def test_what_is_not_there_is_looked_for_where_its_kind_is_listed(
        self, og: Run, node: SmallNode, reason: str, command: str
    ) -> None:
        node.stumble("GetStatus", NotFound("x", reason=reason))
        assert og("status")[2].splitlines()[1].startswith(f"  → `offgrid {command}` shows")

    def test_amounts_that_lack_are_said_in_credits(self, og: Run, node: SmallNode) -> None:
        metadata = {"needed_micro": "12500000", "available_micro": "0"}
        node.stumble("GetStatus", FailedPrecondition("12500000", reason="InsufficientFunds", metadata=metadata))
        code, _, err = og("status")
        assert code == exits.REFUSED
        assert "needs 12.5 with its fee; the account has 0 that" in err
        assert "12500000" not in err
        assert "→ `offgrid balance`" in err

    def test_what_a_node_says_is_nothing_that_a_terminal_obeys(self, og: Run, node: SmallNode) -> None:
        node.stumble("GetStatus", NotFound("no \x1b[2Jhost\nnor core"))
        assert og("status")[2].startswith("offgrid: no �[2Jhost\nnor core\n")

    @pytest.mark.parametrize("code", [grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL])
    def test_nobody_is_told_to_repeat_what_may_have_been_done(
        self, og: Run, node: SmallNode, code: grpc.StatusCode
    ) -> None:
        node.stumble("CreateTransfer", code)
        assert "look before you send it again" in og("transfer", "--dst", "barn", "--amount", "1")[2]

    def test_grpc_itself_says_nothing(self) -> None:
        """Its C core would, of a node that is flooded and hangs up so."""
        settings, calm = b"\0\0\0\4\0\0\0\0\0", b"\0\0\x08\7\0\0\0\0\0" + bytes(4) + b"\0\0\0\x0b"
        with socket.create_server(("127.0.0.1", 0)) as server:

            def hang_up() -> None:
                with suppress(OSError):  # the server is closed
                    while True:
                        connection, _ = server.accept()
                        with connection:
                            connection.recv(4_096)
                            connection.sendall(settings + calm)

            threading.Thread(target=hang_up, daemon=True).start()
            argv = [*OFFGRID, "--socket", f"127.0.0.1:{server.getsockname()[1]}", "status"]
            said = subprocess.run(argv, capture_output=True, text=True, check=False).stderr
        assert [line[:9] for line in said.splitlines()] == ["offgrid: ", "  → is it"]

    def test_no_node(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert run(["--node-dir", str(tmp_path), "status"]) == exits.UNAVAILABLE
        said = capsys.readouterr().err
        assert str(tmp_path / "offgrid.sock") in said
        assert "offgrid-node run" in said

    def test_a_node_that_does_not_run(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "offgrid.toml").write_text('[mesh]\nname = "home"\n')
        monkeypatch.chdir(tmp_path)
        assert run(["status"]) == exits.UNAVAILABLE
        said = capsys.readouterr().err
        assert f"the node of {tmp_path} does not run: offgrid-node run --dir {tmp_path}" in said
        assert "init" not in said

    def test_a_node_that_died_leaves_its_socket(self, og: Run, node: SmallNode) -> None:
        keep = node.folder / "offgrid.sock"
        node.stop()
        _dead_socket(keep)
        code, _, err = og("status")
        assert code == exits.UNAVAILABLE
        assert "no node answers" in err

    def test_words_that_are_no_commands(self, og: Run) -> None:
        code, _, err = og("stauts")
        assert code == exits.USAGE
        assert "did you mean 'status'?" in err
        assert og("mission", "update", "m-1")[0] == exits.USAGE
        assert og("mission")[0] == exits.USAGE
        assert og("mesh", "invite", "--role", "king")[0] == exits.USAGE

    def test_a_shell_is_told_what_could_come_next(self) -> None:
        asked = {"_OFFGRID_COMPLETE": "bash_complete", "COMP_WORDS": "offgrid mi", "COMP_CWORD": "mi"}
        said = subprocess.run(OFFGRID, env=os.environ | asked, capture_output=True, text=True, check=False)
        assert said.stdout == "plain,mission\n"

    def test_a_defect_is_a_sentence_not_a_traceback(self, og: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        from offgrid.client.mesh import Mesh

        monkeypatch.setattr(Mesh, "status", lambda self: 1 / 0)
        code, _, err = og("status")
        assert code == exits.INTERNAL
        assert "ZeroDivisionError" in err
        assert "Traceback" not in err

    def test_whoever_reads_us_may_leave(self, node: SmallNode) -> None:
        for count in range(300):
            node.record(10, "MISSION_CREATED", f"m-{count}")
        read_end, write_end = os.pipe()
        os.close(read_end)
        argv = [*OFFGRID, "--socket", node.address, "events", "--limit", "0"]
        ended = subprocess.run(argv, stdout=write_end, stderr=subprocess.PIPE, check=False)
        os.close(write_end)
        assert (ended.returncode, ended.stderr) == (exits.PIPE_CLOSED, b"")

    def test_interrupted_while_waiting(self, node: SmallNode) -> None:
        answer = node.on_GetStatus
        node.on_GetStatus = lambda request: time.sleep(2) or answer(request)
        argv = [*OFFGRID, "--socket", node.address, "status"]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as waiting:
            while not node.calls["GetStatus"]:
                assert waiting.poll() is None
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(10) == exits.INTERRUPTED
            assert waiting.stderr is not None
            assert waiting.stderr.read().strip() == ""


def _dead_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
