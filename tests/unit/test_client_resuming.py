"""A get that is broken off goes on behind what of it is right, whatever became of the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.client import resuming
from offgrid.client.resuming import resumed

BLOCK = 64
DATA = bytes(index % 251 for index in range(10 * BLOCK + 7))


class Broken(Exception):
    """The connection, or the command."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "BLOCK_BYTES", BLOCK)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "photo.jpg"


def get(target: Path, data: bytes = DATA, *, until: int | None = None, object_id: str = "o-1", offset: int = 0) -> int:
    """Fetches the rest, or breaks off at `until`; how much was there already."""
    with resumed(target, object_id, offset, offset + len(data)) as (file, here):
        for at in range(here, len(data) if until is None else until, 10):
            file.write(data[at : min(at + 10, len(data) if until is None else until)])
        if until is not None:
            raise Broken
    return here


def broken(target: Path, until: int, data: bytes = DATA) -> None:
    with pytest.raises(Broken):
        get(target, data, until=until)


def beside(target: Path) -> list[Path]:
    return sorted(path for path in target.parent.iterdir() if path != target)


def test_what_is_not_broken_off_leaves_the_file_alone(target: Path) -> None:
    assert get(target) == 0
    assert (target.read_bytes(), beside(target)) == (DATA, [])


def test_goes_on_behind_the_last_whole_block(target: Path) -> None:
    broken(target, 5 * BLOCK + 9)
    assert not target.exists()
    broken(target, 7 * BLOCK)
    assert get(target) == 7 * BLOCK
    assert (target.read_bytes(), beside(target)) == (DATA, [])


@given(until=st.integers(0, len(DATA)), data=st.data())
def test_believes_nothing_that_is_not_right(
    tmp_path_factory: pytest.TempPathFactory, until: int, data: st.DataObject
) -> None:
    target = tmp_path_factory.mktemp("got") / "photo.jpg"
    broken(target, until)
    for path in beside(target):
        held = bytearray(path.read_bytes())
        if held:
            held[data.draw(st.integers(0, len(held) - 1))] ^= data.draw(st.integers(0, 255))
            del held[data.draw(st.integers(0, len(held))) :]
        path.write_bytes(held + data.draw(st.binary(max_size=2 * BLOCK)))
    get(target)
    assert (target.read_bytes(), beside(target)) == (DATA, [])


def test_of_less_than_a_block_nothing_is_kept(target: Path) -> None:
    broken(target, BLOCK - 1)
    assert beside(target) == []


def test_what_was_there_stays_until_it_is_whole_and_gives_its_mode(target: Path) -> None:
    target.write_text("mine")
    target.chmod(0o640)
    broken(target, 3 * BLOCK)
    assert target.read_text() == "mine"
    assert get(target) == 3 * BLOCK
    assert target.read_bytes() == DATA
    assert sys.platform == "win32" or target.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("other", [{"object_id": "o-2"}, {"offset": 5}, {"data": DATA[:-1]}])
def test_another_object_or_range_begins_at_its_own_beginning(target: Path, other: dict[str, object]) -> None:
    broken(target, 3 * BLOCK)
    assert get(target, **other) == 0  # type: ignore[arg-type]


def test_two_at_once_do_not_share_a_part(target: Path) -> None:
    with resumed(target, "o-1", 0, len(DATA)) as (file, _):
        assert get(target, bytes(len(DATA))) == 0
        assert target.read_bytes() == bytes(len(DATA))
        file.write(DATA)
    assert (target.read_bytes(), beside(target)) == (DATA, [])


@pytest.mark.skipif(sys.platform == "win32", reason="links are not everybody's there")
def test_does_not_follow_what_was_planted_under_its_name(target: Path, tmp_path: Path) -> None:
    broken(target, 3 * BLOCK)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    for path in beside(target):
        if path != victim:
            path.unlink()
            path.symlink_to(victim)
    with pytest.raises(OSError, match=target.name):
        get(target)
    assert victim.read_text() == "untouched"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in the file system")
def test_a_device_is_written_to_as_it_is(tmp_path: Path) -> None:
    assert get(Path(os.devnull)) == 0
