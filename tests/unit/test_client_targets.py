"""`replaced` and `check_target`: files appear whole or not at all, devices stay what they are, errors name the path."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from offgrid.client.targets import check_target, replaced

LONGEST_NAME = "n" * 255


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def write(target: Path, data: bytes = b"new") -> None:
    check_target(target)
    with replaced(target) as file:
        file.write(data)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_whole_or_left_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"precious")

    def break_off() -> None:
        with replaced(target) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert target.read_bytes() == b"precious"
    write(target)
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o777])
def test_a_replaced_file_keeps_its_mode(tmp_path: Path, umask: None, mode: int) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    target.chmod(mode)
    write(target)
    assert mode_of(target) == mode


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    target.chmod(0o600)
    with replaced(target):
        assert {mode_of(path) for path in tmp_path.iterdir()} == {0o600}


def test_a_new_file_has_what_the_umask_leaves(tmp_path: Path, umask: None) -> None:
    write(tmp_path / "out")
    assert mode_of(tmp_path / "out") == 0o640


@pytest.mark.parametrize("there", [True, False])
def test_links_stay_and_what_they_lead_to_is_written(tmp_path: Path, there: bool) -> None:
    (tmp_path / "far").mkdir()
    far, link = tmp_path / "far" / "out", tmp_path / "link"
    if there:
        far.write_bytes(b"old")
    link.symlink_to(Path("far") / "out")
    write(link)
    assert link.is_symlink()
    assert far.read_bytes() == b"new"
    assert [*(tmp_path / "far").iterdir()] == [far]


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write(pipe)
    assert pipe.is_fifo()
    reader.join(60)
    assert got == [b"new"]


def test_a_device_is_written_to_and_stays_one() -> None:
    """A terminal of its own stands for all of them: a test that goes wrong then harms none that others use."""
    ours, theirs = os.openpty()
    try:
        device = Path(os.ttyname(theirs))
        write(device)
        assert device.is_char_device()
        assert os.read(ours, 100) == b"new"
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_name_may_be_as_long_as_any(tmp_path: Path) -> None:
    write(tmp_path / LONGEST_NAME)
    assert (tmp_path / LONGEST_NAME).read_bytes() == b"new"


def begin(target: Path) -> None:
    with replaced(target):
        raise AssertionError("there is nothing to write to")


@pytest.mark.parametrize("act", [check_target, begin])
@pytest.mark.parametrize("wrong", ["none/out", "file/out", "folder", LONGEST_NAME + "n", "loop"])
def test_what_cannot_be_written_is_said_at_once_and_by_its_own_name(tmp_path: Path, wrong: str, act: object) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    assert callable(act)
    with pytest.raises(OSError, match=r".") as refused:
        act(tmp_path / wrong)
    assert refused.value.filename == str(tmp_path / wrong)
    assert refused.value.strerror
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("act", [check_target, begin])
@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is denied to root")
def test_a_folder_that_may_not_be_written_is_said_at_once(tmp_path: Path, act: object) -> None:
    tmp_path.chmod(0o500)
    assert callable(act)
    with pytest.raises(PermissionError) as refused:
        act(tmp_path / "out")
    tmp_path.chmod(0o700)
    assert refused.value.filename == str(tmp_path / "out")


def test_checking_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out"
    check_target(target)
    assert not [*tmp_path.iterdir()]
    target.write_bytes(b"old")
    check_target(target)
    assert target.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [target]
