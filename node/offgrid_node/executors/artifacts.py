"""Files that a job leaves and that belong to its result: found by names or patterns, read without following any link.

A path is gone down folder by folder, each opened without following links, so that nothing the job has left, or is still
doing, leads outside of its folder.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from offgrid_node.executors.executor import OutputFile
from offgrid_node.protocol.jobs.artifacts import FILES_BYTES_MAX, FILES_MAX, check_file_name

ENTRIES_MAX = 10_000  # looked at, of what a job has left
DEPTH_MAX = 32


class TooMuchLeft(Exception):
    """More than a result may have. The message is a sentence for the job's owner."""


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Those that any pattern matches, sorted. `*` stays within a folder, `**/` is any number of folders. What no result
    may have, by its name, is left out: a core would refuse all of it."""
    matches = [_matcher(pattern) for pattern in patterns]
    return sorted(name for name in names if any(match(name) for match in matches) and not check_file_name(name))


def collect(folder: Path, patterns: Sequence[str], brought: Collection[str] = ()) -> list[OutputFile]:
    """The files below `folder` that `patterns` name, but for what the job has brought. Raises TooMuchLeft."""
    if not patterns:
        return []
    names = [name for name in _names(folder) if name not in brought]
    wanted = matching(names, patterns)
    if len(wanted) > FILES_MAX:
        raise TooMuchLeft(f"it left {len(wanted)} files that its outputs name; at most {FILES_MAX} are allowed")
    files, left = [], FILES_BYTES_MAX
    for name in wanted:
        data = _read(folder, name, left)
        if data is None:
            continue
        left -= len(data)
        files.append(OutputFile(name, data))
    return files


def _names(folder: Path) -> Iterator[str]:
    """Of all regular files below, with slashes; what is no UTF-8, or too deep, cannot be named and is left out."""
    looked, folders = 0, [("", 0)]
    while folders:
        prefix, depth = folders.pop()
        try:
            entries = os.scandir(folder / prefix)
        except OSError:
            continue
        with entries:
            for entry in entries:
                looked += 1
                if looked > ENTRIES_MAX:
                    raise TooMuchLeft(f"it left more than {ENTRIES_MAX} files and folders")
                name = prefix + entry.name
                if not name.isprintable():
                    continue
                if entry.is_dir(follow_symlinks=False) and depth < DEPTH_MAX:
                    folders.append((f"{name}/", depth + 1))
                elif entry.is_file(follow_symlinks=False):
                    yield name


def _read(folder: Path, name: str, most: int) -> bytes | None:
    """The file's bytes; None when it is gone, or is no plain file any more."""
    *above, last = name.split("/")
    nofollow = getattr(os, "O_NOFOLLOW", 0)
    fd = -1
    try:
        if os.open in os.supports_dir_fd:
            parent = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
            try:
                for part in above:
                    inner = os.open(part, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | nofollow, dir_fd=parent)
                    os.close(parent)
                    parent = inner
                fd = os.open(last, os.O_RDONLY | nofollow | getattr(os, "O_NONBLOCK", 0), dir_fd=parent)
            finally:
                os.close(parent)
        else:  # Windows: links need a right there that jobs do not have
            fd = os.open(folder / name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with os.fdopen(fd, "rb") as file:
            fd = -1
            data = file.read(most + 1)
    except OSError:
        return None
    finally:
        if fd >= 0:
            os.close(fd)
    if len(data) > most:
        raise TooMuchLeft(f"the files that its outputs name have more than {FILES_BYTES_MAX} bytes")
    return data


def _matcher(pattern: str) -> Callable[[str], bool]:
    parts = pattern.split("/")

    def match(name: str) -> bool:
        return _match(name.split("/"), parts)

    return match


def _match(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Row by row: which beginnings of the name the pattern's parts so far can be; no step is taken twice."""
    reach = {0}
    for part in pattern:
        if part == "**":
            reach = set(range(min(reach), len(name) + 1)) if reach else reach
        else:
            reach = {at + 1 for at in reach if at < len(name) and fnmatch.fnmatchcase(name[at], part)}
    return len(name) in reach
