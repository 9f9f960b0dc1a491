"""Damaged bytes in the store's file: detected or harmless, never a wrong answer.

Each case is read in a process of its own, since LMDB may abort on a damaged page: a crash counts as detected.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from offgrid_node.protocol.errors import Fault
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.store import Batch

MIB = 1024 * 1024
PAGE = 4096
ROWS = 300
FLIPS = 120


def value(number: int) -> bytes:
    return b"value %d " % number * (1 + number % 40)


def fill(folder: Path) -> None:
    store = LmdbStore.open(folder, limit_bytes=256 * MIB)
    with contextlib.closing(store):
        for at in range(0, ROWS, 10):
            numbers = range(at, at + 10)
            store.commit(Batch([value(n) for n in numbers], {("jobs", b"job-%05d" % n): value(n) for n in numbers}))


def wrong_answers(folder: Path) -> tuple[int, int]:
    """How many questions were answered wrongly, and how many were refused."""
    wrong = refused = 0
    try:
        store = LmdbStore.open(folder, limit_bytes=256 * MIB)
    except Fault:
        return 0, 1
    with contextlib.closing(store):
        for number in range(ROWS):
            try:
                wrong += store.get("jobs", b"job-%05d" % number) != value(number)
            except Fault:
                refused += 1
        for reverse in (False, True):
            expected = [(b"job-%05d" % n, value(n)) for n in range(ROWS)]
            events = [(n + 1, value(n)) for n in range(ROWS)]
            try:
                wrong += list(store.scan("jobs", prefix=b"job-", reverse=reverse)) != expected[:: -1 if reverse else 1]
            except Fault:
                refused += 1
            try:
                wrong += list(store.events(reverse=reverse)) != events[:: -1 if reverse else 1]
            except Fault:
                refused += 1
        refused += len(store.verify())
    return wrong, refused


def in_a_child(folder: Path) -> str:
    """`wrong`, `refused`, `harmless` or `crashed`."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            wrong, refused = wrong_answers(folder)
            code = 3 if wrong else 4 if refused else 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "harmless", 3: "wrong", 4: "refused", 9: "failed"}.get(status, "crashed")


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts on Linux's page size")
def test_no_flipped_bit_becomes_a_wrong_answer(tmp_path: Path) -> None:
    fill(tmp_path / "good")
    size = (tmp_path / "good" / "data.mdb").stat().st_size
    outcomes: Counter[str] = Counter()
    for flip in range(FLIPS):
        folder = tmp_path / "bad"
        shutil.copytree(tmp_path / "good", folder)
        at = (flip * 2654435761 + 97) % size
        with (folder / "data.mdb").open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << flip % 8]))
        outcome = in_a_child(folder)
        assert outcome not in ("wrong", "failed"), f"bit {flip % 8} of byte {at}: {outcome}"
        outcomes[outcome] += 1
        shutil.rmtree(folder)
    assert outcomes["refused"] > FLIPS // 4, outcomes
