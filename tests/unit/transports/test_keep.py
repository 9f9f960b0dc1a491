"""What links remember is the old or the new, whatever fails between."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from offgrid_transports.keep import FolderKeep, MemoryKeep


async def saved(keep: FolderKeep, name: str, data: bytes) -> OSError | None:
    outcome: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    keep.save(name, data, outcome.set_result)
    assert not outcome.done(), "the disk is written in a thread"
    return await outcome


def test_a_folder_remembers(tmp_path: Path) -> None:
    async def run() -> None:
        keep = FolderKeep(tmp_path / "radio")
        assert keep.load("airtime-/dev/x") is None
        assert await saved(keep, "airtime-/dev/x", b"1") is None
        assert await saved(keep, "airtime-/dev/x", b"22") is None
        assert FolderKeep(tmp_path / "radio").load("airtime-/dev/x") == b"22"
        assert [path.name for path in (tmp_path / "radio").iterdir()] == ["airtime-_dev_x"]
        keep.close()

    asyncio.run(run())


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_at_any_step_leaves_the_old(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    async def run() -> None:
        keep = FolderKeep(tmp_path)
        assert await saved(keep, "a", b"old") is None
        with monkeypatch.context() as patched:
            patched.setattr(os, step, fail)
            error = await saved(keep, "a", b"new")
            assert error is not None
            assert keep.load("a") == b"old"
        assert await saved(keep, "a", b"newer") is None
        assert keep.load("a") == b"newer"
        keep.close()

    asyncio.run(run())


def test_memory_forgets_with_the_process() -> None:
    keep, told = MemoryKeep(), []
    keep.save("a", b"x", told.append)
    assert (keep.load("a"), keep.load("b"), told) == (b"x", None, [None])
