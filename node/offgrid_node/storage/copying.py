"""A compact copy of a store, by another process than the one that has it open: while that one serves.

The copy is of one moment, has no free pages, and is durable when `copy_store` returns. It is made by reading alone, so
whoever is killed here has harmed nothing, and what is left of a copy goes with the next one, or when the store is
opened. While it is made pages that are freed cannot be used again, so it is read off before anybody looks into it: a
reader that takes long would make the store's file grow. Damage that would end a process ends that one (LMDB has no
checksums).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import lmdb

from offgrid_node.protocol.errors import Exhausted
from offgrid_node.storage.disk import free_bytes, make_folder, sync_file, sync_folder
from offgrid_node.storage.lmdb_env import DATA_FILE, DATABASES_MAX, fault_of

COPY = ".copy"  # behind the store's name
SPARE_BYTES = 64 * 1024 * 1024  # left for others, on a disk that a copy is written to
FULL_RETRY_MS = 60_000


def copy_place(path: Path) -> Path:
    """Where the one copy of the store in `path` lies."""
    return path.with_name(path.name + COPY)


def drop_copy(path: Path) -> None:
    shutil.rmtree(copy_place(path), ignore_errors=True)


def check_room(folder: Path, need_bytes: int, what: str) -> None:
    """Raises Exhausted (reason DiskFull). A disk that does not say what is free is tried."""
    free = free_bytes(folder)
    if free is not None and free < need_bytes + SPARE_BYTES:
        text = f"{what} may take {need_bytes} bytes, and {SPARE_BYTES} stay free: {free} are free at {folder}"
        raise Exhausted(text, reason="DiskFull", retry_ms=FULL_RETRY_MS)


def copy_store(path: Path) -> Path:
    """Copies the store in `path`, which another process may have open, and this one must not. Returns the copy's
    folder, which is opened as any other. Raises Exhausted (DiskFull), and as `LmdbStore.open` does."""
    place = copy_place(path)
    shutil.rmtree(place, ignore_errors=True)
    try:
        size = (path / DATA_FILE).stat().st_size
        check_room(path.parent, size, f"a copy of {path}")
        make_folder(place)
        with lmdb.open(str(path), map_size=2 * size, max_dbs=DATABASES_MAX, readonly=True, create=False) as env:
            env.copy(str(place), compact=True)
        with (place / DATA_FILE).open("r+b") as file:
            sync_file(file.fileno())
        sync_folder(place)
    except (lmdb.Error, OSError) as error:
        shutil.rmtree(place, ignore_errors=True)
        raise fault_of(error, f"cannot copy the store in {path}", path) from error
    return place
