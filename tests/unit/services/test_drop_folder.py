"""The drop folder as files: what another program finds there, and what it may leave."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX
from offgrid_node.services.jobs.drops import RESULT_FILE_BYTES_MAX, SETTLING_S, DropFolder, result_in

PAYLOAD = jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="wc", args=["-w"]), input=b"one two\xff")
JOB = jobs_pb2.Job(job_id="j-abc-000", kind="compute", needs="process:wc", size_tokens=7, timeout_ms=900)
NAME = "j-abc-000"


@pytest.fixture
def folder(tmp_path: Path) -> DropFolder:
    folder = DropFolder(tmp_path / "drops", "me")
    folder.open()
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "drops"


def leave(path: Path, fields: object, name: str = NAME) -> None:
    (path / f"{name}.result.json").write_text(json.dumps(fields))


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_a_job_lies_there_with_all_that_it_takes_to_do_it(folder: DropFolder, path: Path) -> None:
    assert folder.look({NAME}).missing == [NAME]
    folder.put(JOB, PAYLOAD.SerializeToString())
    said = json.loads((path / f"{NAME}.job.json").read_text())
    assert (said["node"], said["job_id"], said["kind"], said["needs"]) == ("me", NAME, "compute", "process:wc")
    assert (said["size_tokens"], said["timeout_ms"]) == (7, 900)
    assert said["payload"]["process"] == {"command": "wc", "args": ["-w"]}
    assert base64.b64decode(said["payload"]["input"]) == b"one two\xff"
    assert folder.look({NAME}).missing == []


def test_nobody_else_on_this_machine_reads_it(folder: DropFolder, path: Path) -> None:
    folder.put(JOB, b"")
    if sys.platform != "win32":
        assert [path.stat().st_mode & 0o777, (path / f"{NAME}.job.json").stat().st_mode & 0o777] == [0o700, 0o600]


def test_what_came_back_is_read_and_both_files_go_when_the_job_has_ended(folder: DropFolder, path: Path) -> None:
    folder.put(JOB, b"")
    leave(path, {"status": "completed", "output_base64": base64.b64encode(b"2").decode(), "log": "fine"})
    ((job_id, result),) = folder.look({NAME}).results
    assert (job_id, result.status, result.output, result.log, result.exit_code) == (NAME, "completed", b"2", b"fine", 0)
    folder.look(set())
    assert names(path) == []


def test_a_failure_without_an_exit_code_has_one(folder: DropFolder, path: Path) -> None:
    folder.put(JOB, b"")
    for left in ({"status": "failed"}, {"status": "failed", "exit_code": None}):
        leave(path, left)
        ((_, result),) = folder.look({NAME}).results
        assert result.exit_code == 1


def test_a_result_for_no_job_of_this_node_stays_where_it_is(folder: DropFolder, path: Path) -> None:
    leave(path, {"status": "completed"}, "j-other")
    assert folder.look({NAME}).results == []
    assert names(path) == ["j-other.result.json"]


def test_files_of_others_are_left_alone(folder: DropFolder, path: Path) -> None:
    other = DropFolder(path, "another node")
    other.put(JOB, b"")
    (path / "notes.txt").write_text("mine")
    folder.look(set())
    folder.look(set())
    assert names(path) == [f"{NAME}.job.json", "notes.txt"]
    other.look(set())
    assert names(path) == ["notes.txt"]


REFUSED: dict[str, Any] = {
    "no object": [1],
    "no status": {},
    "another status": {"status": "fine"},
    "a success that failed": {"status": "completed", "exit_code": 1},
    "an exit code that is none": {"status": "failed", "exit_code": True},
    "an exit code beyond all": {"status": "failed", "exit_code": 2**31},
    "an output that is no base64": {"status": "completed", "output_base64": "?"},
    "an output that is no text": {"status": "completed", "output_base64": 7},
    "an output too large": {
        "status": "completed", "output_base64": base64.b64encode(bytes(INLINE_BYTES_MAX + 1)).decode()},
    "a log that is no text": {"status": "completed", "log": 7},
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_result_is_set_aside_once(folder: DropFolder, path: Path, case: str) -> None:
    folder.put(JOB, b"")
    leave(path, REFUSED[case])
    assert folder.look({NAME}).results == []
    assert names(path) == [f"{NAME}.job.json", f"{NAME}.result.json.refused"]


def test_a_file_too_large_to_be_one_is_not_even_read(folder: DropFolder, path: Path) -> None:
    (path / f"{NAME}.result.json").write_bytes(b" " * (RESULT_FILE_BYTES_MAX + 1))
    assert folder.look({NAME}).results == []
    assert names(path) == [f"{NAME}.result.json.refused"]


@pytest.mark.skipif(sys.platform == "win32", reason="no links without rights")
def test_no_link_is_followed_and_no_pipe_waited_for(folder: DropFolder, path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"status": "completed", "log": "a secret"}))
    (path / f"{NAME}.result.json").symlink_to(secret)
    os.mkfifo(path / "j-pipe.result.json")
    assert folder.look({NAME, "j-pipe"}).results == []
    assert names(path) == [f"{NAME}.result.json.refused", "j-pipe.result.json.refused"]


@pytest.mark.skipif(sys.platform == "win32", reason="no links without rights, no pipes with names")
def test_what_is_no_file_keeps_nothing_waiting(folder: DropFolder, path: Path, tmp_path: Path) -> None:
    """A pipe under a job's name would hold the look for ever, a link or a folder end it."""
    os.mkfifo(path / "j-0-pipe.job.json")
    (path / "j-1-link.job.json").symlink_to(tmp_path / "nowhere")
    (path / "j-2-folder.job.json").mkdir()
    stuck = path / "j-3.result.json"
    for folder_there in (stuck, path / "j-3.result.json.refused" / "within"):
        folder_there.mkdir(parents=True)
    leave(path, {"status": "completed", "log": "done"})
    opened = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    for _ in range(3):
        seen = folder.look({NAME, "j-3"})
        assert [(job_id, result.log) for job_id, result in seen.results] == [(NAME, b"done")]
    assert sys.platform != "linux" or len(os.listdir("/proc/self/fd")) == opened
    assert stuck.exists()


def test_files_of_others_are_remembered_for_as_long_as_they_are_there(folder: DropFolder, path: Path) -> None:
    for number in range(3):
        theirs = path / f"j-theirs-{number}.job.json"
        theirs.write_text("{}")
        folder.look(set())
        theirs.unlink()
    folder.look(set())
    assert folder._foreign == set()


@pytest.mark.parametrize("text", [b'{"exit_code": ' + b"9" * 5_000 + b"}", b"[" * 200_000])
def test_what_python_itself_will_not_read_is_set_aside(folder: DropFolder, path: Path, text: bytes) -> None:
    (path / f"{NAME}.result.json").write_bytes(text)
    assert folder.look({NAME}).results == []
    assert names(path) == [f"{NAME}.result.json.refused"]


@pytest.mark.parametrize("begun", [b'{"status": "compl', b'{"log": "\xc3', b""])
def test_a_result_that_is_still_being_written_is_waited_for(folder: DropFolder, path: Path, begun: bytes) -> None:
    half = path / f"{NAME}.result.json"
    half.write_bytes(begun)
    assert folder.look({NAME}).results == []
    assert half.exists()
    os.utime(half, (half.stat().st_mtime - SETTLING_S - 1,) * 2)
    folder.look({NAME})
    assert not half.exists()


@given(st.one_of(st.binary(max_size=64), st.recursive(st.none() | st.text() | st.integers(), st.lists).map(
    lambda value: json.dumps({"status": "failed", "log": value, "output_base64": value, "exit_code": value}).encode()
)))  # fmt: skip
def test_whatever_lies_there_is_a_result_or_refused_by_name(text: bytes) -> None:
    try:
        result = result_in(text)
    except (InvalidRequest, json.JSONDecodeError, UnicodeDecodeError):
        return
    assert result.status in ("completed", "failed")
    assert len(result.output) <= INLINE_BYTES_MAX
