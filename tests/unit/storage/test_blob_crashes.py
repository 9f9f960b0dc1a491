"""Files of blobs on a disk that forgets what was not synced: power cuts in every moment, faults at every call.

What `finish` answered for is there whole after any cut; nothing is ever seen under a kept name that is not whole; a
call that is refused leaves nothing half done, and what it leaves can be gone on with.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from forgetful_disk import SECTOR_BYTES, ForgetfulDisk
from hypothesis import given, settings
from hypothesis import strategies as st

from offgrid_node.protocol.errors import Exhausted, Fault, Unavailable
from offgrid_node.storage.blobs import FileBlobs, sweep

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the disk that forgets is told apart by inodes")

SIZES = (0, 1, SECTOR_BYTES, 3 * SECTOR_BYTES + 7)
STAGED = ("u-0", "u-1")
ERRORS = (errno.EIO, errno.ENOSPC)
STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 1), st.sampled_from(SIZES)),
    st.tuples(st.sampled_from(["finish", "discard"]), st.integers(0, 1), st.just(0)),
    st.tuples(st.sampled_from(["sync", "delete"]), st.integers(0, 5), st.just(0)),
    st.just(("reopen", 0, 0)),
    st.tuples(st.just("fail"), st.integers(0, 8), st.sampled_from(ERRORS)),
)
EACH_ONCE = [
    ("append", 0, 3 * SECTOR_BYTES + 7),
    ("append", 0, SECTOR_BYTES),
    ("append", 1, SECTOR_BYTES),
    ("finish", 0, 0),
    ("sync", 0, 0),
    ("finish", 1, 0),
    ("delete", 0, 0),
    ("append", 0, 1),
    ("discard", 0, 0),
]


class Keeper:
    """Does the steps, and knows what must be there: in the process's own eyes, and after a cut in any moment."""

    def __init__(self, base: Path, seed: int, patched: pytest.MonkeyPatch) -> None:
        self._rng = Random(seed)
        self.disk = ForgetfulDisk(base, self._rng, patched)
        self.disk.on_moment = self._cut
        self._staged = dict.fromkeys(STAGED, b"")
        self._whole: dict[str, bytes] = {}  # every name that was ever to be kept, with its content
        self.acked: dict[str, bytes] = {}
        self._blobs = FileBlobs(self.disk.live / "chunks")

    def step(self, step: str, which: int, value: int) -> None:
        if step == "fail":
            self.disk.failure = (which, value)
            return
        name, staged = f"o-{which}", STAGED[which % 2]
        try:
            match step:
                case "append":
                    data = self._rng.randbytes(value)
                    self._blobs.append(staged, len(self._staged[staged]), data)
                    self._staged[staged] += data
                case "finish":
                    self._finish(staged)
                case "discard":
                    self._blobs.discard(staged)
                    self._staged[staged] = b""
                case "sync" if name in self.acked:
                    self._blobs.sync(name)
                case "delete":
                    self.acked.pop(name, None)
                    self._blobs.delete(name)
                case "reopen":
                    self._blobs = FileBlobs(self.disk.live / "chunks")
                    sweep(self._blobs, self.acked.__contains__)
        except (Unavailable, Exhausted):
            assert self.disk.failed, "the disk had refused nothing"
        self.disk.failed = False
        self._look()

    def _finish(self, staged: str) -> None:
        if not self._blobs.staged_bytes(staged):
            return
        name = f"o-{len(self._whole)}"
        self._whole[name], self._staged[staged] = self._staged[staged], b""
        try:
            self._blobs.finish(staged, name)
        except Fault:
            assert self._blobs.size(name) is None
            raise
        self.acked[name] = self._whole[name]

    def _look(self) -> None:
        """What the process sees of what it did."""
        for name, data in self.acked.items():
            assert self._blobs.read(name, 0, len(data)) == data
        for staged, data in self._staged.items():
            assert self._blobs.read_staged(staged, 0, len(data)) == data if data else True
            assert self._blobs.staged_bytes(staged) == len(data)

    def _cut(self) -> None:
        found = FileBlobs(self.disk.image() / "chunks")
        names = set(found.names())
        assert self.acked.keys() <= names, "it was answered for, and a power cut took it"
        for name in names:
            assert found.read(name, 0, len(self._whole[name])) == self._whole[name]
            assert found.size(name) == len(self._whole[name])


@contextmanager
def keeper(base: Path, seed: int) -> Iterator[Keeper]:
    with pytest.MonkeyPatch.context() as patched:
        made = Keeper(base, seed, patched)
        try:
            yield made
        finally:
            made.disk.let_go()


@settings(derandomize=True)
@given(steps=st.lists(STEPS, max_size=14), seed=st.integers(0, 2**32))
def test_a_power_cut_in_any_moment_leaves_what_was_answered_for_and_nothing_by_halves(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]], seed: int
) -> None:
    with keeper(tmp_path_factory.mktemp("disk"), seed) as kept:
        for step in [("append", 0, 600), ("finish", 0, 0), *steps]:
            kept.step(*step)


@pytest.mark.parametrize("code", ERRORS)
def test_a_fault_at_each_call_leaves_nothing_half_done(tmp_path: Path, code: int) -> None:
    calls, fired = 0, True
    while fired:
        with keeper(tmp_path / str(calls), calls) as kept:
            kept.step("fail", calls, code)
            for step in EACH_ONCE:
                kept.step(*step)
            fired = kept.disk.failure is None
        calls += 1
    assert calls > 20, "faults of open, write, fsync, rename and unlink"
