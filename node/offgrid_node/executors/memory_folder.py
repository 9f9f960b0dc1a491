"""A job's folder in memory: what a WebAssembly module has for a file system. Nothing of it is the host's, so no path,
however written, leads there; no links, no owners, no times.

Bounded in bytes, entries and depth; files that the job has brought cannot be changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from offgrid_node.protocol.jobs.artifacts import FILES_BYTES_MAX

BYTES_MAX = 2 * FILES_BYTES_MAX  # what it brings and what it makes
ENTRIES_MAX = 10_000
DEPTH_MAX = 32
NAME_BYTES_MAX = 255
PATH_BYTES_MAX = 4096


class FolderError(Exception):
    """Why not, by the name of its errno."""

    def __init__(self, errno: str) -> None:
        super().__init__(errno)
        self.errno = errno


class File(msgspec.Struct, eq=False):
    inode: int
    data: bytearray
    fixed: bool = False


class Folder(msgspec.Struct, eq=False):
    inode: int
    entries: dict[str, File | Folder] = msgspec.field(default_factory=dict)


class MemoryFolder:
    """One tree. Paths are relative to any folder of it; `..` stops at its root."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """`files` by names that artifacts.py allows."""
        self._inodes = iter(range(1, 2**63))
        self.root = Folder(next(self._inodes))
        self._bytes = self._entries = 0
        for name, data in files.items():
            *above, last = name.split("/")
            folder = self.root
            for part in above:
                inner = folder.entries.get(part)
                if not isinstance(inner, Folder):
                    inner = folder.entries[part] = self._new_folder()
                folder = inner
            file = folder.entries[last] = self._new_file()
            self.resize(file, len(data))
            file.data[:] = data
            file.fixed = True

    def files(self) -> Iterator[tuple[str, File]]:
        """All of them, by their whole names."""
        folders = [("", self.root)]
        while folders:
            prefix, folder = folders.pop()
            for name, entry in folder.entries.items():
                if isinstance(entry, Folder):
                    folders.append((f"{prefix}{name}/", entry))
                else:
                    yield prefix + name, entry

    def find(self, path: str, at: Folder) -> File | Folder:
        """Raises FolderError (ENOENT, ENOTDIR, …)."""
        trail = self._walk(path, at)
        folder, last = trail
        if last == "":
            return folder
        entry = folder.entries.get(last)
        if entry is None:
            raise FolderError("ENOENT")
        if path.endswith("/") and not isinstance(entry, Folder):
            raise FolderError("ENOTDIR")
        return entry

    def create(self, path: str, at: Folder) -> File:
        folder, last = self._walk(path, at)
        if not last or path.endswith("/"):
            raise FolderError("EISDIR")
        if last in folder.entries:
            raise FolderError("EEXIST")
        file = folder.entries[last] = self._new_file()
        return file

    def make_folder(self, path: str, at: Folder) -> None:
        folder, last = self._walk(path, at)
        if not last or last in folder.entries:
            raise FolderError("EEXIST")
        if self._depth(folder) >= DEPTH_MAX:
            raise FolderError("ENAMETOOLONG")
        folder.entries[last] = self._new_folder()

    def remove(self, path: str, at: Folder, *, folder: bool) -> None:
        above, last = self._walk(path, at)
        entry = above.entries.get(last)
        if entry is None:
            raise FolderError("EINVAL" if not last else "ENOENT")
        if isinstance(entry, Folder):
            if not folder:
                raise FolderError("EISDIR")
            if entry.entries:
                raise FolderError("ENOTEMPTY")
        elif folder:
            raise FolderError("ENOTDIR")
        elif entry.fixed:
            raise FolderError("EROFS")
        else:
            self.resize(entry, 0)  # what still has it open sees it empty: nothing outlives its name
        del above.entries[last]
        self._entries -= 1

    def rename(self, old: str, old_at: Folder, new: str, new_at: Folder) -> None:
        above, last = self._walk(old, old_at)
        moved = above.entries.get(last)
        if moved is None:
            raise FolderError("EINVAL" if not last else "ENOENT")
        target, name = self._walk(new, new_at)
        there = target.entries.get(name)
        if there is moved:
            return
        if not name or (isinstance(moved, File) and moved.fixed) or isinstance(moved, Folder):
            raise FolderError("EINVAL" if not name else "EROFS" if isinstance(moved, File) else "ENOTSUP")
        if there is not None:
            self.remove(new, new_at, folder=False)
        target.entries[name] = moved
        del above.entries[last]

    def resize(self, file: File, size: int) -> None:
        """Raises FolderError when there is no room, or it must not be changed."""
        if file.fixed:
            raise FolderError("EROFS")
        grown = size - len(file.data)
        if self._bytes + grown > BYTES_MAX:
            raise FolderError("ENOSPC")
        self._bytes += grown
        if grown > 0:
            file.data.extend(bytes(grown))
        else:
            del file.data[size:]

    def _new_file(self) -> File:
        self._count()
        return File(next(self._inodes), bytearray())

    def _new_folder(self) -> Folder:
        self._count()
        return Folder(next(self._inodes))

    def _count(self) -> None:
        if self._entries >= ENTRIES_MAX:
            raise FolderError("ENOSPC")
        self._entries += 1

    def _walk(self, path: str, at: Folder) -> tuple[Folder, str]:
        """The folder that a path's last part lies in, and that part; empty where it is a folder that was walked to."""
        if len(path) > PATH_BYTES_MAX:
            raise FolderError("ENAMETOOLONG")
        trail = self._trail(self.root if path.startswith("/") else at)
        *above, last = [part for part in path.split("/") if part not in ("", ".")] or [""]
        for part in above:
            self._step(trail, part)
        if last == "..":
            self._step(trail, last)
            last = ""
        if len(last.encode(errors="surrogatepass")) > NAME_BYTES_MAX or not (last.isprintable() or not last):
            raise FolderError("EINVAL")
        return trail[-1], last

    def _step(self, trail: list[Folder], part: str) -> None:
        if part == "..":
            if len(trail) > 1:
                trail.pop()
            return
        inner = trail[-1].entries.get(part)
        if inner is None:
            raise FolderError("ENOENT")
        if not isinstance(inner, Folder):
            raise FolderError("ENOTDIR")
        trail.append(inner)

    def _trail(self, folder: Folder) -> list[Folder]:
        """From the root down; a folder that was removed meanwhile has only itself."""
        if folder is self.root:
            return [folder]
        found = [(self.root, [self.root])]
        while found:
            at, trail = found.pop()
            for entry in at.entries.values():
                if entry is folder:
                    return [*trail, folder]
                if isinstance(entry, Folder):
                    found.append((entry, [*trail, entry]))
        return [folder]

    def _depth(self, folder: Folder) -> int:
        return len(self._trail(folder))
