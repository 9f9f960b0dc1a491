"""Room: on the disks, and in the store's file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from offgrid_node.doctor.findings import Check, Said, command, fault, not_applicable, warning
from offgrid_node.doctor.reading import StoredRows
from offgrid_node.doctor.subject import Subject
from offgrid_node.folder import MIB, STORE_FILE, backup_folder
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.storage.blobs import DISK_RESERVE_BYTES

if TYPE_CHECKING:
    from offgrid_node.config import Config

LITTLE_BYTES = 8 * DISK_RESERVE_BYTES  # twice over what updates and a backup of a young node take
INODES_FEW, INODES_NONE = 10_000, 500
STORE_FULL, STORE_NEARLY = 0.97, 0.85


def _places(config: Config) -> Iterator[Path]:
    """One of each disk that the node writes to: what is not there yet counts as its first parent that is."""
    seen = set[int]()
    for path in (config.storage.memory_db, config.storage.chunk_dir, config.node.data_dir, backup_folder(config)):
        there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
        device = there.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield there


def disks(config: Config) -> Iterator[Said]:
    """Those without room for a node. For `join`, too."""
    for place in _places(config):
        free = shutil.disk_usage(place).free
        look = command("du", "-xh", "--max-depth=2", place) if os.name == "posix" else f"dir /s {place}"
        if free < DISK_RESERVE_BYTES:
            least = DISK_RESERVE_BYTES // MIB
            yield fault(f"the disk under {place} has {free // MIB} MiB free: below {least} nothing is kept there", look)
        elif free < LITTLE_BYTES:
            yield warning(f"the disk under {place} has only {free // MIB} MiB free", look)


def _backup_disk(subject: Subject) -> Iterator[Said]:
    """Of a disk that is not mounted not even the folder above is there; a node would fill the disk below."""
    if not subject.config.state.backup_dir or not subject.config.state.backup_interval:
        yield not_applicable("backups lie with the node")
        return
    folder = backup_folder(subject.config)
    if not folder.exists() and not folder.parent.exists():
        yield warning(
            f"state.backup_dir = {folder} is not there, nor the folder above it: is its disk mounted?",
            command("findmnt", "-T", folder.parent.parent) if os.name == "posix" else f"dir {folder.parent.parent}",
        )


def _inodes(subject: Subject) -> Iterator[Said]:
    if not hasattr(os, "statvfs"):
        yield not_applicable("this system's disks have no inodes")
        return
    for place in _places(subject.config):
        told = os.statvfs(place)
        if not told.f_files:
            continue
        text = f"the disk under {place} can take only {told.f_favail} more files (inodes), however small"
        if told.f_favail < INODES_NONE:
            yield fault(text, command("df", "-i", place))
        elif told.f_favail < INODES_FEW and told.f_favail < told.f_files // 20:
            yield warning(text, command("df", "-i", place))


def _store_file(subject: Subject) -> Iterator[Said]:
    path, limit = subject.config.storage.memory_db, subject.config.storage.limit_mb * MIB
    if subject.status is not None:
        told = subject.asked.backups.list()
        used, limit = told.store_used_bytes, told.store_limit_bytes
    elif (path / STORE_FILE).is_file():
        try:
            with StoredRows.open(path) as rows:
                used = rows.used_bytes()
        except Corrupt:
            return  # said of the store
    else:
        return  # said of the store
    if used >= STORE_NEARLY * limit:
        sentence = f"the store has {used // MIB} of the {limit // MIB} MiB that storage.limit_mb allows"
        more = f"OFFGRID_STORAGE__LIMIT_MB={2 * limit // MIB} {subject.node('run')}"
        yield (
            fault(f"{sentence}, and will take nothing more", more)
            if used >= STORE_FULL * limit
            else warning(sentence, more)
        )


CHECKS = (
    Check("disk", "the disks of the node have room", lambda subject: disks(subject.config)),
    Check("backup-disk", "the folder of backups is there", _backup_disk),
    Check("inodes", "they take more files", _inodes),
    Check("store-file", "the store's file may grow", _store_file),
)
