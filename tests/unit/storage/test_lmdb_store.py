"""What the store on disk promises beyond the Store protocol: its folder, its growth, its threads."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from offgrid_node.protocol.errors import Corrupt, Exhausted, FailedPrecondition, Fault, InvalidRequest, Unavailable
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.lmdb_env import READERS_MAX
from offgrid_node.storage.store import Batch

MIB = 1024 * 1024


@contextlib.contextmanager
def opened(folder: Path, limit_bytes: int = 256 * MIB, initial_map_bytes: int = 64 * 1024) -> Iterator[LmdbStore]:
    store = LmdbStore.open(folder, limit_bytes=limit_bytes, initial_map_bytes=initial_map_bytes)
    with contextlib.closing(store):
        yield store


def refusal(folder: Path) -> Fault:
    with pytest.raises(Fault) as caught:
        LmdbStore.open(folder, limit_bytes=256 * MIB)
    return caught.value


def test_it_remembers(tmp_path: Path) -> None:
    with opened(tmp_path / "a" / "store") as store:
        store.commit(Batch([b"one"], {("jobs", b"k"): b"v"}))
    with opened(tmp_path / "a" / "store") as store:
        assert store.journal_seq == 1
        assert store.get("jobs", b"k") == b"v"
        assert store.commit(Batch([b"two"])) == 2
        assert list(store.events()) == [(1, b"one"), (2, b"two")]


def test_new_stores_use_the_newest_engine_with_default_flags(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    env = lmdb.open(str(tmp_path), readonly=True, max_dbs=1)
    with contextlib.closing(env):
        assert env.lib_version()[0] == 1


def test_a_store_of_the_old_engine_opens_too(tmp_path: Path) -> None:
    with contextlib.closing(lmdb.open(str(tmp_path), max_dbs=1, lib_version=0)):
        pass
    with opened(tmp_path) as store:
        store.commit(Batch([b"one"], {("jobs", b"k" * 511): b"v"}))
        assert store.get("jobs", b"k" * 510) is None
    with opened(tmp_path) as store:
        assert list(store.events()) == [(1, b"one")]
        assert list(store.scan("jobs", prefix=b"k")) == [(b"k" * 511, b"v")]
        assert store.verify() == []


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_its_files_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path / "store") as store:
            store.commit(Batch([b"e"]))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "store").iterdir()}
    finally:
        os.umask(before)
    assert {"data.mdb", "lock.mdb", "store.made"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


# ---- the folder


def test_a_second_daemon_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        fault = refusal(tmp_path)
        assert isinstance(fault, FailedPrecondition)
        assert fault.reason == "AlreadyRunning"
        assert str(tmp_path) in fault.message
        assert f"process {os.getpid()}" in fault.message
        store.commit(Batch([b"undisturbed"]))
    with opened(tmp_path) as store:
        assert store.journal_seq == 1


def test_two_stores_live_in_one_process(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as left, opened(tmp_path / "b") as right:
        left.commit(Batch([b"left"]))
        right.commit(Batch([b"right"]))
        assert (list(left.events()), list(right.events())) == ([(1, b"left")], [(1, b"right")])


@pytest.mark.parametrize("loss", ["removed", "emptied"])
def test_a_lost_data_file_is_not_taken_for_a_new_store(tmp_path: Path, loss: str) -> None:
    with opened(tmp_path) as store:
        store.commit(Batch([b"one"]))
    if loss == "removed":
        (tmp_path / "data.mdb").unlink()
    else:
        (tmp_path / "data.mdb").write_bytes(b"")
    fault = refusal(tmp_path)
    assert (type(fault), fault.reason) == (Corrupt, "StoreMissing")
    assert "restore" in fault.message


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"something else" * 1000)
    assert isinstance(refusal(tmp_path), Corrupt)
    (tmp_path / "data.mdb").unlink()
    with opened(tmp_path):
        pass


def test_a_half_made_store_is_made_anew(tmp_path: Path) -> None:
    """Killed between making the file and the first commit."""
    with contextlib.closing(lmdb.open(str(tmp_path), max_dbs=1)):
        pass
    with opened(tmp_path) as store:
        assert store.commit(Batch([b"one"])) == 1


def test_an_older_data_file_beside_a_newer_journal_cannot_happen_unseen(tmp_path: Path) -> None:
    """A whole older file is a consistent store: it opens, and its journal_seq tells that it is old."""
    with opened(tmp_path) as store:
        store.commit(Batch([b"one"]))
    shutil.copy(tmp_path / "data.mdb", tmp_path / "backup")
    with opened(tmp_path) as store:
        store.commit(Batch([b"two"]))
    shutil.copy(tmp_path / "backup", tmp_path / "data.mdb")
    with opened(tmp_path) as store:
        assert store.journal_seq == 1


def test_a_limit_too_small_for_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="limit_bytes"):
        LmdbStore.open(tmp_path, limit_bytes=100_000)


# ---- growth


def test_the_map_grows_as_needed(tmp_path: Path) -> None:
    with opened(tmp_path, initial_map_bytes=64 * 1024) as store:
        for number in range(20):
            store.commit(Batch([bytes(300_000)], {("jobs", b"%d" % number): bytes(300_000)}))
        store.commit(Batch(writes={("jobs", b"big"): b"x" * 16 * MIB}))
        assert store.get("jobs", b"big") == b"x" * 16 * MIB
        assert store.size_bytes() > 20 * MIB
        assert store.verify() == []


def test_one_batch_too_many_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    with opened(tmp_path, limit_bytes=2 * MIB) as store:
        store.commit(Batch([b"one"], {("jobs", b"k"): b"v"}))
        for _ in range(3):
            with pytest.raises(Exhausted) as caught:
                store.commit(Batch([b"two"], {("new", b"k"): bytes(3 * MIB)}))
            assert caught.value.reason == "StoreFull"
            assert "storage.limit_mb" in caught.value.message
        assert store.get("new", b"k") is None
        assert store.commit(Batch([b"two"], {("new", b"k"): b"small"})) == 2
        assert store.verify() == []


def test_a_full_store_opens_again_with_a_higher_limit(tmp_path: Path) -> None:
    with opened(tmp_path, limit_bytes=MIB) as store, pytest.raises(Exhausted):
        store.commit(Batch(writes={("jobs", b"k"): bytes(2 * MIB)}))
    with opened(tmp_path, limit_bytes=8 * MIB) as store:
        store.commit(Batch(writes={("jobs", b"k"): bytes(2 * MIB)}))


def test_overwriting_does_not_grow_the_file_while_scans_stand_open(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.commit(Batch(writes={("jobs", b"%04d" % n): bytes(1000) for n in range(1000)}))
        scans = [store.scan("jobs") for _ in range(3)]
        for scan in scans:
            next(scan)
        before = store.size_bytes()
        for number in range(300):
            store.commit(Batch(writes={("jobs", b"%04d" % n): bytes(1000) for n in range(number, number + 20)}))
        assert store.size_bytes() < 2 * before


# ---- threads and readers


def test_reads_run_beside_commits_of_another_thread(tmp_path: Path) -> None:
    """Each batch writes the same value everywhere: whoever reads sees no mixture, also while the map is replaced."""
    with opened(tmp_path) as store:
        done = threading.Event()

        def write() -> None:
            for number in range(150):
                value = b"%d" % number * 5000
                store.commit(Batch([value], {("jobs", b"%d" % n): value for n in range(10)}))
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen = set()
        while not done.is_set():
            values = {value for _, value in store.scan("jobs")}
            assert len(values) <= 1
            seen |= values
            newest = store.journal_seq
            assert sum(1 for _ in store.events(max(0, newest - 3))) >= min(3, newest)
            store.get("jobs", b"5")
        writer.join()
        assert len(seen) > 1
        assert store.verify() == []


READER = (
    "import lmdb, sys\n"
    "env = lmdb.open(sys.argv[1], max_dbs=1, map_size=1 << 20)\n"
    "kept = [env.begin() for _ in range(int(sys.argv[2]))]\n"
    "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.read()\n"
)


def reading_tool(folder: Path, slots: int) -> subprocess.Popen[bytes]:
    """Another process that has the file open and holds `slots` readers' slots; it runs until it is killed."""
    tool = subprocess.Popen(
        [sys.executable, "-c", READER, str(folder), str(slots)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert tool.stdout is not None
    assert tool.stdout.readline() == b"ready\n"
    return tool


def test_what_is_used_is_counted_while_another_thread_makes_tables(tmp_path: Path) -> None:
    interval = sys.getswitchinterval()
    with opened(tmp_path) as store:

        def make() -> None:
            for number in range(60):
                store.commit(Batch(writes={(f"t{number}", b"k"): b"v"}))

        maker = threading.Thread(target=make)
        sys.setswitchinterval(1e-6)
        try:
            maker.start()
            while maker.is_alive():
                assert store.used_bytes() > 0
        finally:
            sys.setswitchinterval(interval)
            maker.join()


@pytest.fixture
def idle_tool(tmp_path: Path) -> Iterator[None]:
    """Keeps the lock file in use, so that what others leave in it stays."""
    with opened(tmp_path) as store:
        store.commit(Batch(writes={("jobs", b"%04d" % n): bytes(1000) for n in range(100)}))
        tool = reading_tool(tmp_path, 0)
    with tool:
        yield
        tool.kill()


@pytest.mark.usefixtures("idle_tool")
def test_a_dead_reader_does_not_make_the_file_grow(tmp_path: Path) -> None:
    """LMDB keeps every page that a reader's snapshot may need, also when the reader was killed."""
    with reading_tool(tmp_path, READERS_MAX - 1) as tool:
        tool.kill()
    with opened(tmp_path) as store:
        before = store.size_bytes()
        for number in range(100):
            store.commit(Batch(writes={("jobs", b"%04d" % (number + n)): bytes(1000) for n in range(20)}))
        assert store.size_bytes() < 2 * before


@pytest.mark.usefixtures("idle_tool")
def test_tools_that_hold_every_reader_slot_are_named_as_the_cause(tmp_path: Path) -> None:
    with reading_tool(tmp_path, READERS_MAX) as tool:
        fault = refusal(tmp_path)
        assert (type(fault), fault.reason) == (Unavailable, "TooManyReaders")
        assert "stop" in fault.message
        tool.kill()
