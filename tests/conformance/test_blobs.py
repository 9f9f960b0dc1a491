"""Every BlobStore: files on disk and their twin in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import Corrupt, Exhausted, FailedPrecondition, Internal, NotFound, Unavailable
from offgrid_node.storage import blobs as blobs_module
from offgrid_node.storage.blobs import STAGED_AGE_MAX_S, BlobStore, FileBlobs, sweep
from offgrid_node.storage.disk import start_writing
from offgrid_node.storage.memory_blobs import MemoryBlobs

Make = Callable[[Path], BlobStore]


@pytest.fixture(params=[FileBlobs, lambda folder: MemoryBlobs()], ids=["files", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    store: BlobStore = request.param(tmp_path / "chunks")
    return store


def keep(blobs: BlobStore, name: str, data: bytes) -> None:
    blobs.append("u-x", 0, data)
    blobs.finish("u-x", name)


class TestStagedBlobs:
    def test_grow_at_their_end(self, blobs: BlobStore) -> None:
        assert blobs.staged_bytes("u-1") == 0
        assert blobs.append("u-1", 0, b"abc") == 3
        assert blobs.append("u-1", 3, b"de") == 5
        assert blobs.staged_bytes("u-1") == 5
        assert blobs.read_staged("u-1", 1, 3) == b"bcd"

    def test_take_a_piece_again_without_writing_it(self, blobs: BlobStore) -> None:
        blobs.append("u-1", 0, b"abcde")
        assert blobs.append("u-1", 0, b"XYZ") == 5
        assert blobs.append("u-1", 3, b"XYZ") == 6, "only what lies beyond the end is new"
        assert blobs.read_staged("u-1", 0, 6) == b"abcdeZ"

    def test_refuse_a_gap_and_say_where_they_end(self, blobs: BlobStore) -> None:
        blobs.append("u-1", 0, b"abc")
        with pytest.raises(FailedPrecondition, match="gap") as caught:
            blobs.append("u-1", 4, b"e")
        assert (caught.value.reason, caught.value.metadata["offset"]) == ("Gap", "3")
        with pytest.raises(FailedPrecondition):
            blobs.append("u-2", 1, b"x")
        assert [staged.name for staged in blobs.all_staged()] == ["u-1"], "a refused piece makes no blob"

    def test_are_not_kept_ones(self, blobs: BlobStore) -> None:
        blobs.append("u-1", 0, b"abc")
        assert blobs.size("u-1") is None
        with pytest.raises(NotFound):
            blobs.read("u-1", 0, 1)
        assert list(blobs.names()) == []

    def test_can_be_discarded(self, blobs: BlobStore) -> None:
        blobs.append("u-1", 0, b"abc")
        blobs.discard("u-1")
        blobs.discard("u-1")
        assert blobs.all_staged() == []


@pytest.fixture
def fail_sync(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The nth fsync from now on fails, counted from 0; those after it succeed, as they do on a real disk."""
    if isinstance(blobs, MemoryBlobs):
        return blobs.fail_sync
    left = -1

    def failing(real: Callable[[Any], None]) -> Callable[[Any], None]:
        def sync(at: Any) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                raise OSError(errno.EIO, "Input/output error")
            real(at)

        return sync

    def plan(nth: int) -> None:
        nonlocal left
        left = nth

    for name in ("sync_file", "sync_folder"):
        monkeypatch.setattr(blobs_module, name, failing(getattr(blobs_module, name)))
    return plan


class TestASyncThatFails:
    """Of the file, of the folder of kept ones, of the folder of staged ones."""

    @pytest.mark.parametrize("nth", range(3))
    def test_leaves_nothing_that_a_retry_could_trust(
        self, blobs: BlobStore, fail_sync: Callable[[int], None], nth: int
    ) -> None:
        fail_sync(nth)
        with pytest.raises(Unavailable) as caught:
            keep(blobs, "o-a", b"abc")
        assert caught.value.reason == "DiskError"
        assert (blobs.size("o-a"), list(blobs.names())) == (None, []), "its name would vouch for what no fsync did"
        assert blobs.staged_bytes("u-x") == 0, "another fsync would succeed and prove nothing"
        keep(blobs, "o-a", b"abc")
        assert blobs.read("o-a", 0, 3) == b"abc"

    def test_there_are_no_more_than_three(self, blobs: BlobStore, fail_sync: Callable[[int], None]) -> None:
        fail_sync(3)
        keep(blobs, "o-a", b"abc")
        assert blobs.size("o-a") == 3

    @pytest.mark.parametrize("nth", range(5))
    def test_leaves_nothing_of_several_either(
        self, blobs: BlobStore, fail_sync: Callable[[int], None], nth: int
    ) -> None:
        keep(blobs, "o-b", b"older")
        for staged in ("u-1", "u-2", "u-3"):
            blobs.append(staged, 0, staged.encode())
        fail_sync(nth)
        with pytest.raises(Unavailable):
            blobs.finish_all({"u-1": "o-a", "u-2": "o-b", "u-3": "o-c"})
        assert list(blobs.names()) == (["o-b"] if nth < 3 else [])
        assert nth >= 3 or blobs.read("o-b", 0, 5) == b"older", "it was not to be replaced yet"
        assert blobs.all_staged() == []

    def test_there_are_two_more_than_blobs(self, blobs: BlobStore, fail_sync: Callable[[int], None]) -> None:
        for staged in ("u-1", "u-2", "u-3"):
            blobs.append(staged, 0, staged.encode())
        fail_sync(5)
        blobs.finish_all({"u-1": "o-a", "u-2": "o-b", "u-3": "o-c"})
        assert [blobs.read(name, 0, 3) for name in blobs.names()] == [b"u-1", b"u-2", b"u-3"]

    @pytest.mark.parametrize("nth", range(2))
    def test_is_said_of_a_kept_one_too(self, blobs: BlobStore, fail_sync: Callable[[int], None], nth: int) -> None:
        keep(blobs, "o-a", b"abc")
        fail_sync(nth)
        with pytest.raises(Unavailable):
            blobs.sync("o-a")
        assert blobs.read("o-a", 0, 3) == b"abc", "whoever was told before that it is durable keeps it"
        blobs.sync("o-a")


class TestKeptBlobs:
    def test_are_whole_and_read_in_parts(self, blobs: BlobStore) -> None:
        keep(blobs, "o-a", b"0123456789")
        assert blobs.size("o-a") == 10
        assert blobs.read("o-a", 0, 10) == b"0123456789"
        assert blobs.read("o-a", 9, 1) == b"9"
        assert list(blobs.names()) == ["o-a"]
        assert blobs.all_staged() == [], "what is kept is not staged any more"

    def test_several_of_which_one_is_missing_stay_staged(self, blobs: BlobStore) -> None:
        blobs.append("u-1", 0, b"abc")
        with pytest.raises(NotFound):
            blobs.finish_all({"u-1": "o-a", "u-none": "o-b"})
        assert (list(blobs.names()), blobs.staged_bytes("u-1")) == ([], 3)

    def test_a_finish_of_nothing_is_refused(self, blobs: BlobStore) -> None:
        with pytest.raises(NotFound):
            blobs.finish("u-none", "o-a")
        assert blobs.size("o-a") is None

    def test_a_sync_of_nothing_is_refused(self, blobs: BlobStore) -> None:
        with pytest.raises(NotFound):
            blobs.sync("o-none")

    def test_one_may_be_empty(self, blobs: BlobStore) -> None:
        keep(blobs, "o-a", b"")
        assert blobs.size("o-a") == 0

    def test_reading_past_the_end_is_damage(self, blobs: BlobStore) -> None:
        keep(blobs, "o-a", b"abc")
        with pytest.raises(Corrupt, match="ends at 3"):
            blobs.read("o-a", 1, 3)

    def test_one_replaces_another_of_its_name(self, blobs: BlobStore) -> None:
        keep(blobs, "o-a", b"old")
        keep(blobs, "o-a", b"new")
        assert blobs.read("o-a", 0, 3) == b"new"

    def test_can_be_deleted(self, blobs: BlobStore) -> None:
        keep(blobs, "o-a", b"abc")
        blobs.delete("o-a")
        blobs.delete("o-a")
        assert blobs.size("o-a") is None


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "A", "a..b", ".a", "a\0", "a" * 128, "a\n"])
def test_a_name_that_is_none_never_reaches_the_disk(blobs: BlobStore, name: str) -> None:
    for call in (
        lambda: blobs.append(name, 0, b"x"),
        lambda: blobs.read(name, 0, 1),
        lambda: blobs.delete(name),
        lambda: blobs.finish("u-1", name),
        lambda: blobs.discard(name),
    ):
        with pytest.raises(Internal):
            call()


@given(pieces=st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=8))))
def test_whatever_pieces_come_the_bytes_are_those_that_came_first(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, bytes]]
) -> None:
    for blobs in (FileBlobs(tmp_path_factory.mktemp("chunks")), MemoryBlobs()):
        model = b""
        for offset, data in pieces:
            if offset > len(model):
                with pytest.raises(FailedPrecondition):
                    blobs.append("u-1", offset, data)
            else:
                model += data[len(model) - offset :]
                assert blobs.append("u-1", offset, data) == len(model)
        assert blobs.read_staged("u-1", 0, len(model)) == model if model else True


def test_a_sweep_keeps_what_rows_name_and_what_is_still_coming_in(blobs: BlobStore) -> None:
    keep(blobs, "o-known", b"a")
    keep(blobs, "o-orphan", b"b")
    blobs.append("u-1", 0, b"c")
    blobs.append("a.o-1", 0, b"d")
    assert sweep(blobs, lambda name: name == "o-known", lambda staged: staged.startswith("u-")) == 2
    assert list(blobs.names()) == ["o-known"]
    assert [staged.name for staged in blobs.all_staged()] == ["a.o-1"]


class TestFiles:
    def test_survive_the_process(self, tmp_path: Path) -> None:
        blobs = FileBlobs(tmp_path)
        keep(blobs, "o-a", b"abc")
        blobs.append("u-1", 0, b"de")
        again = FileBlobs(tmp_path)
        assert (again.read("o-a", 0, 3), again.append("u-1", 2, b"f")) == (b"abc", 3)

    def test_are_closed_to_others(self, tmp_path: Path) -> None:
        blobs = FileBlobs(tmp_path / "chunks")
        keep(blobs, "o-a", b"abc")
        assert (tmp_path / "chunks" / "kept" / "o-a").stat().st_mode & 0o077 == 0
        assert (tmp_path / "chunks").stat().st_mode & 0o077 == 0

    def test_are_synced_before_they_get_their_name_and_the_folder_after(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said, kept = [], tmp_path / "kept" / "o-a"
        monkeypatch.setattr(blobs_module, "sync_file", lambda fd: said.append(("file", kept.exists())))
        monkeypatch.setattr(blobs_module, "sync_folder", lambda path: said.append((path.name, kept.exists())))
        keep(FileBlobs(tmp_path), "o-a", b"abc")
        assert said == [("file", False), ("kept", True), ("staged", True)]

    def test_begin_to_be_written_while_they_come(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(blobs_module, "WRITING_BYTES", 100)
        begun: list[tuple[int, int]] = []

        def begin(fd: int, offset: int, length: int) -> None:
            begun.append((offset, length))
            start_writing(fd, offset, length)

        monkeypatch.setattr(blobs_module, "start_writing", begin)
        blobs, data = FileBlobs(tmp_path), bytes(range(250)) * 2
        for start, end in ((0, 99), (99, 100), (100, 350), (350, 500)):
            blobs.append("coming", start, data[start:end])
        assert begun == [(0, 100), (100, 200), (300, 200)], "whole ones, each once"
        assert blobs.read_staged("coming", 0, 500) == data

    def test_a_full_disk_leaves_no_part_of_a_piece(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        blobs, write = FileBlobs(tmp_path), os.write
        blobs.append("u-1", 0, b"abc")

        def fill_up(fd: int, data: bytes) -> int:
            if len(data) < 4:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(fd, data[:4])

        monkeypatch.setattr(os, "write", fill_up)
        with pytest.raises(Exhausted, match="full") as caught:
            blobs.append("u-1", 3, b"defghi")
        assert caught.value.reason == "DiskFull"
        assert (tmp_path / "staged" / "u-1").read_bytes() == b"abc"

    def test_the_last_of_the_disk_is_left_to_the_store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(blobs_module, "free_bytes", lambda path: blobs_module.DISK_RESERVE_BYTES + 3)
        blobs = FileBlobs(tmp_path)
        assert blobs.append("u-1", 0, b"abc") == 3
        with pytest.raises(Exhausted):
            blobs.append("u-1", 3, b"defg")

    def test_staged_ones_that_nobody_went_on_with_are_swept(self, tmp_path: Path) -> None:
        blobs = FileBlobs(tmp_path)
        blobs.append("u-old", 0, b"a")
        blobs.append("u-new", 0, b"a")
        long_ago = os.stat(tmp_path).st_mtime - STAGED_AGE_MAX_S - 10
        os.utime(tmp_path / "staged" / "u-old", (long_ago, long_ago))
        assert sweep(blobs, lambda name: False) == 1
        assert [staged.name for staged in blobs.all_staged()] == ["u-new"]


class TestMemory:
    def test_a_crash_takes_only_what_was_not_finished(self) -> None:
        fates = set()
        for seed in range(60):
            blobs = MemoryBlobs()
            keep(blobs, "o-a", b"kept whole")
            blobs.append("u-1", 0, b"unsynced")
            blobs.crash(Random(seed))
            assert blobs.read("o-a", 0, 10) == b"kept whole"
            size = blobs.staged_bytes("u-1")
            whole = blobs.read_staged("u-1", 0, size) == b"unsynced"[:size] if size else False
            fates.add("lost" if not size else "torn" if not whole else "cut" if size < 8 else "whole")
        assert fates == {"lost", "torn", "cut", "whole"}

    def test_a_full_one_says_so(self) -> None:
        blobs = MemoryBlobs(limit_bytes=3)
        with pytest.raises(Exhausted):
            blobs.append("u-1", 0, b"abcd")
        assert blobs.all_staged() == []
