"""The folder under a store."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from offgrid_node.protocol.errors import FailedPrecondition, Unavailable
from offgrid_node.storage import disk
from offgrid_node.storage.disk import FolderOwner, disk_fault, make_folder, measure_fsync_ms, write_durably

POSIX = os.name == "posix"


def test_fsync_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    assert 0 < measure_fsync_ms(tmp_path) < 60_000
    assert list(tmp_path.iterdir()) == []


def test_measuring_where_nothing_can_be_written_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        measure_fsync_ms(tmp_path / "missing")
    assert caught.value.reason == "DiskError"


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    owner = FolderOwner(tmp_path)
    with pytest.raises(FailedPrecondition) as caught:
        FolderOwner(tmp_path)
    assert caught.value.reason == "AlreadyRunning"
    assert str(tmp_path) in caught.value.message
    assert f"process {os.getpid()}" in caught.value.message
    owner.release()
    owner.release()
    FolderOwner(tmp_path).release()


def test_the_folder_is_free_once_its_owner_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from offgrid_node.storage.disk import FolderOwner\n"
        "owner = FolderOwner(pathlib.Path(sys.argv[1]))\n"
        "print('mine', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"mine"
        with pytest.raises(FailedPrecondition, match=f"process {other.pid}"):
            FolderOwner(tmp_path)
        other.kill()
    FolderOwner(tmp_path).release()


@pytest.mark.skipif(not POSIX, reason="file modes are POSIX")
def test_what_is_made_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    before = os.umask(0)
    try:
        make_folder(folder)
        owner = FolderOwner(folder)
        write_durably(folder / "file", b"text")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}
        owner.release()
    finally:
        os.umask(before)
    assert modes == {"b": 0o700, "owner.lock": 0o600, "owner.pid": 0o600, "file": 0o600}


def test_a_folder_where_a_file_stands_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot make the folder"):
        make_folder(tmp_path / "file")


def test_a_refusal_is_told_in_words_and_without_a_number(tmp_path: Path) -> None:
    fault = disk_fault(tmp_path, f"cannot write to {tmp_path}", PermissionError(1, "Operation not permitted", "x"))
    assert fault.message == (
        f"cannot write to {tmp_path}: Operation not permitted; the user that runs the node must be able to write there"
    )


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "check the disk" in disk_fault(tmp_path, "cannot write", OSError("no")).message
    monkeypatch.setattr(disk, "free_bytes", lambda _: 4096)
    assert f"the disk may be full: 4096 bytes free at {tmp_path}" in disk_fault(tmp_path, "x", OSError("no")).message
    monkeypatch.setattr(disk, "free_bytes", lambda _: None)
    assert "check the disk" in disk_fault(tmp_path, "cannot write", OSError("no")).message
