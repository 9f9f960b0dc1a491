"""The zeros behind the data file's end: there when they help, never beyond a bound, never in the way."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.runway import RUNWAY_BYTES, RUNWAY_BYTES_LEFT, Runway
from offgrid_node.storage.store import Batch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="LMDB itself makes the file whole there")

MIB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(b"used" * 1000)
    return path


def test_it_writes_a_stretch_behind_what_is_used_and_the_next_one_only_when_little_is_left(path: Path) -> None:
    runway = Runway(path)
    runway.keep(4000, MIB)
    assert path.read_bytes() == b"used" * 1000 + bytes(RUNWAY_BYTES)
    runway.keep(4000 + RUNWAY_BYTES - RUNWAY_BYTES_LEFT, MIB)
    assert path.stat().st_size == 4000 + RUNWAY_BYTES
    runway.keep(4001 + RUNWAY_BYTES - RUNWAY_BYTES_LEFT, MIB)
    assert path.stat().st_size == 4001 + 2 * RUNWAY_BYTES - RUNWAY_BYTES_LEFT
    runway.close()


def test_it_never_writes_over_what_is_used(path: Path) -> None:
    runway = Runway(path)
    with path.open("ab") as file:
        file.write(b"more" * RUNWAY_BYTES)
    runway.keep(4000 + 4 * RUNWAY_BYTES, 2 * MIB)
    assert path.read_bytes() == b"used" * 1000 + b"more" * RUNWAY_BYTES + bytes(RUNWAY_BYTES)
    runway.close()


def test_what_was_in_use_once_is_kept_when_less_is_in_use_now(path: Path) -> None:
    runway = Runway(path)
    with path.open("ab") as file:
        file.write(b"older" * 200)
    runway.keep(5000, 5000)
    runway.keep(4500, 5000)
    assert path.read_bytes() == b"used" * 1000 + b"older" * 200
    runway.close()


def test_a_stretch_left_by_an_earlier_run_is_used_up_first(path: Path) -> None:
    os.truncate(path, 4000 + RUNWAY_BYTES)
    runway = Runway(path)
    runway.keep(4000, MIB)
    assert path.stat().st_size == 4000 + RUNWAY_BYTES
    runway.close()


def test_it_ends_at_the_limit(path: Path) -> None:
    runway = Runway(path)
    runway.keep(4000, 5000)
    assert path.stat().st_size == 5000
    runway.keep(5000, 5000)
    assert path.stat().st_size == 5000
    runway.close()


def test_a_disk_that_refuses_it_ends_it_and_nothing_else(path: Path) -> None:
    import resource

    runway = Runway(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        runway.keep(4000, MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    runway.keep(4000, MIB)
    assert path.stat().st_size == 4000
    runway.close()


def test_commits_of_a_store_find_their_blocks_there(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path, limit_bytes=8 * MIB)
    lengths = set()
    for number in range(50):
        store.commit(Batch(events=[b"%d" % number * 500]))
        lengths.add((tmp_path / "data.mdb").stat().st_size)
    assert len(lengths) < 10  # it would grow with nearly every commit
    assert store.size_bytes() + RUNWAY_BYTES_LEFT <= max(lengths) <= store.size_bytes() + RUNWAY_BYTES
    store.close()
