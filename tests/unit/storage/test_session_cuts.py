"""Power cuts at the files of sessions (soak/session_cuts.py): some of them, and some that must do harm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from offgrid_node.storage import disk, logged, session_keys
from offgrid_tools.soak.session_cuts import cut_sessions

STEPS, LIVES = 12, 4

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files that are held open are replaced")


def no_file_synced(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(content)
    fresh.replace(path)
    disk.sync_folder(path.parent)


def no_folder_synced(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        disk.sync_file(file.fileno())
    fresh.replace(path)


def not_synced(path: Path) -> None: ...


def test_nothing_is_lost_and_nothing_that_was_shredded_comes_back() -> None:
    met, broken = cut_sessions(1, STEPS)
    assert broken == []
    assert met.total() > 10


@pytest.mark.parametrize(
    ("where", "what", "wrong", "said"),
    [
        (session_keys, "write_durably", no_file_synced, "checksum is wrong|no list of keys|cannot be read"),
        (session_keys, "write_durably", no_folder_synced, "cannot be read|which was purged, is there"),
        (logged, "sync_folder", not_synced, "log"),
    ],
    ids=["no fsync of the keys", "none of their folder", "none of the store's folder"],
)
def test_a_write_that_is_not_synced_is_seen(
    monkeypatch: pytest.MonkeyPatch, where: object, what: str, wrong: Callable[..., None], said: str
) -> None:
    monkeypatch.setattr(where, what, wrong)
    broken = next(filter(None, (cut_sessions(seed, 2 * STEPS)[1] for seed in range(LIVES))), [])
    assert any(word in sentence for word in said.split("|") for sentence in broken), broken
