"""Folders on the command line: which files a put finds below one, and where a get may write what has such a name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import click

from offgrid_tools.cli.files import plain

if TYPE_CHECKING:
    from offgrid.client import OffgridError

NAME_CHARS_MAX = 256  # as the node takes them
SPECIAL = {
    stat.S_ISLNK: "a symbolic link",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


class Found(NamedTuple):
    """A file to put, and what to call it. `path` "-" is standard input."""

    path: str
    name: str


def found_in(paths: Iterable[str], name: str | None) -> list[Found]:
    """All files that the paths stand for, before any of them is put. Raises click's usage error for what cannot be an
    object: a link or a special file in a folder, a name that is too long, two files of one name."""
    found = [each for path in paths for each in _found(path, name)]
    if not found:
        raise click.UsageError("there is no file in what is to be put; a folder alone is nothing that could be kept")
    taken: dict[str, str] = {}
    for each in found:
        if len(each.name) > NAME_CHARS_MAX:
            long = f"its name has {len(each.name)} characters; at most {NAME_CHARS_MAX} are allowed"
            raise click.UsageError(f"{click.format_filename(each.path)}: {long}")
        if each.name and taken.setdefault(each.name, each.path) != each.path:
            shown = click.format_filename(taken[each.name]), click.format_filename(each.path)
            raise click.UsageError(f"{shown[0]} and {shown[1]} would both be called {each.name}")
    return found


def none_below(prefix: str) -> OffgridError:
    """What is said of a folder that no object lies in."""
    from offgrid.client import OffgridError

    return OffgridError("NOT_FOUND", "ObjectNotFound", f"there are no objects whose names begin with {prefix}")


def _found(path: str, name: str | None) -> Iterator[Found]:
    if path == "-":
        yield Found(path, name or "")
    elif Path(path).is_dir():
        top = plain(Path(os.path.abspath(path)).name) if name is None else name
        yield from _below(path, top)
    else:
        yield Found(path, plain(Path(path).name)[:NAME_CHARS_MAX] if name is None else name)


def _below(folder: str, name: str) -> Iterator[Found]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        mode, inner = entry.stat(follow_symlinks=False).st_mode, f"{name}/{plain(entry.name)}"
        if stat.S_ISDIR(mode):
            yield from _below(entry.path, inner)
        elif stat.S_ISREG(mode):
            yield Found(entry.path, inner)
        else:
            what = next((words for is_one, words in SPECIAL.items() if is_one(mode)), "no file")
            shown = click.format_filename(entry.path)
            raise click.UsageError(
                f"{shown} is {what}: only files and folders can be put; leave it out, or name the files"
            )


def place_in(folder: str, name: str) -> Path:
    """Where an object of that name goes below `folder`. Raises click's usage error for a name that leads elsewhere, and
    for a link on the way there."""
    from offgrid.command_line.terminal import clean

    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or set(name) & {"\\", ":", "\0"}:
        raise click.UsageError(f"{clean(name)} is no name for a file here; get that object alone, with -o FILE")
    path = Path(folder)
    for part in PurePosixPath(name).parts[:-1]:
        path /= part
        if path.is_symlink():
            raise click.UsageError(f"{click.format_filename(path)} is a symbolic link; nothing is written through it")
    return path / parts[-1]
