"""The part of WASI preview 1 that is about files, for modules: descriptors into a folder in memory.

All of them are ours, so that no call about files reaches the host. A run without a folder has wasmtime's own, to which
no folder was given. Layouts: https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec

from offgrid_node.executors.memory_folder import File, Folder, FolderError, MemoryFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from offgrid_node.executors.wasi import GuestMemory, Run

ROOT_FD, ROOT_NAME = 3, b"/"
DESCRIPTORS_MAX = 64
ERRNO = {
    "EACCES": 2, "EBADF": 8, "EEXIST": 20, "EFAULT": 21, "EFBIG": 22, "EINVAL": 28, "EISDIR": 31, "EMFILE": 33,
    "ENAMETOOLONG": 37, "ENOENT": 44, "ENOSPC": 51, "ENOTDIR": 54, "ENOTEMPTY": 55, "ENOTSUP": 58, "EROFS": 69,
    "ESPIPE": 70,
}  # fmt: skip
SUCCESS = 0
CREATE, DIRECTORY, EXCLUSIVE, TRUNCATE = 1, 2, 4, 8
APPEND = 1
MAY_READ, MAY_WRITE, ALL_RIGHTS = 1 << 1, 1 << 6, (1 << 30) - 1
CHARACTERS, FOLDER, REGULAR = 2, 3, 4  # kinds of files
SET, CURRENT, END = 0, 1, 2
FDSTAT, FILESTAT, DIRENT = struct.Struct("<BxHxxxxQQ"), struct.Struct("<QQB7xQQQQQ"), struct.Struct("<QQIB3x")
SIZE_MAX = 1 << 40


class Descriptor(msgspec.Struct):
    """An open file, or folder."""

    entry: File | Folder
    at: int = 0
    append: bool = False
    may_write: bool = False


class Descriptors:
    """Those of one run."""

    def __init__(self, folder: MemoryFolder) -> None:
        self.folder = folder
        self._open: dict[int, Descriptor] = {ROOT_FD: Descriptor(folder.root)}

    def add(self, descriptor: Descriptor) -> int:
        if len(self._open) >= DESCRIPTORS_MAX:
            raise FolderError("EMFILE")
        fd = next(fd for fd in range(ROOT_FD + 1, ROOT_FD + 1 + DESCRIPTORS_MAX) if fd not in self._open)
        self._open[fd] = descriptor
        return fd

    def get(self, fd: int) -> Descriptor:
        if fd not in self._open:
            raise FolderError("EBADF")
        return self._open[fd]

    def folder_of(self, fd: int) -> Folder:
        entry = self.get(fd).entry
        if not isinstance(entry, Folder):
            raise FolderError("ENOTDIR")
        return entry

    def file_of(self, fd: int) -> tuple[Descriptor, File]:
        descriptor = self.get(fd)
        if not isinstance(descriptor.entry, File):
            raise FolderError("EISDIR")
        return descriptor, descriptor.entry

    def close(self, fd: int) -> None:
        self.get(fd)
        del self._open[fd]

    def renumber(self, fd: int, to: int) -> None:
        moved = self.get(fd)
        self.get(to)
        del self._open[fd]
        self._open[to] = moved

    def read(self, fd: int, count: int, at: int | None = None) -> bytes:
        descriptor, file = self.file_of(fd)
        start = descriptor.at if at is None else at
        data = bytes(file.data[start : start + count])
        if at is None:
            descriptor.at += len(data)
        return data

    def write(self, fd: int, data: bytes, at: int | None = None) -> None:
        descriptor, file = self.file_of(fd)
        if not descriptor.may_write:
            raise FolderError("EBADF")
        start = len(file.data) if descriptor.append else descriptor.at if at is None else at
        if start + len(data) > SIZE_MAX:
            raise FolderError("EFBIG")
        if start + len(data) > len(file.data):
            self.folder.resize(file, start + len(data))
        file.data[start : start + len(data)] = data
        if at is None:
            descriptor.at = start + len(data)

    def seek(self, fd: int, offset: int, whence: int) -> int:
        descriptor, file = self.file_of(fd)
        base = {SET: 0, CURRENT: descriptor.at, END: len(file.data)}.get(whence)
        if base is None or not 0 <= base + offset <= SIZE_MAX:
            raise FolderError("EINVAL")
        descriptor.at = base + offset
        return descriptor.at

    def open(self, fd: int, path: str, flags: int, rights: int, fd_flags: int) -> int:
        at, entry = self.folder_of(fd), None
        try:
            entry = self.folder.find(path, at)
        except FolderError as error:
            if error.errno != "ENOENT" or not flags & CREATE:
                raise
        if entry is not None and flags & CREATE and flags & EXCLUSIVE:
            raise FolderError("EEXIST")
        if entry is None:
            entry = self.folder.create(path, at)
        if flags & DIRECTORY and not isinstance(entry, Folder):
            raise FolderError("ENOTDIR")
        may_write = bool(rights & MAY_WRITE) and isinstance(entry, File)
        if isinstance(entry, File) and entry.fixed and ((may_write and not rights & MAY_READ) or flags & TRUNCATE):
            raise FolderError("EROFS")
        if flags & TRUNCATE and isinstance(entry, File):
            self.folder.resize(entry, 0)
        return self.add(Descriptor(entry, append=bool(fd_flags & APPEND), may_write=may_write))


def stat_of(entry: File | Folder) -> bytes:
    kind, size = (FOLDER, 0) if isinstance(entry, Folder) else (REGULAR, len(entry.data))
    return FILESTAT.pack(1, entry.inode, kind, 1, size, 0, 0, 0)


STREAM_STAT = FILESTAT.pack(0, 0, CHARACTERS, 1, 0, 0, 0, 0)


class FileFunctions:
    """Those that need no stream: name, arguments as `host_calls.define` has them, and what they do. Each gets
    its arguments unsigned and raises FolderError or IndexError."""

    @staticmethod
    def table() -> Iterable[tuple[str, str, Callable[[Run, GuestMemory, tuple[int, ...]], None]]]:
        f = FileFunctions
        return (
            ("fd_prestat_get", "ii", f.prestat_get),
            ("fd_prestat_dir_name", "iii", f.prestat_name),
            ("fd_close", "i", f.close),
            ("fd_fdstat_get", "ii", f.fdstat),
            ("fd_fdstat_set_flags", "ii", f.set_flags),
            ("fd_fdstat_set_rights", "iqq", f.nothing),
            ("fd_filestat_get", "ii", f.filestat),
            ("fd_filestat_set_size", "iq", f.set_size),
            ("fd_filestat_set_times", "iqqi", f.nothing),
            ("fd_pread", "iiiqi", f.pread),
            ("fd_pwrite", "iiiqi", f.pwrite),
            ("fd_seek", "iqii", f.seek),
            ("fd_tell", "ii", f.tell),
            ("fd_sync", "i", f.nothing),
            ("fd_datasync", "i", f.nothing),
            ("fd_advise", "iqqi", f.nothing),
            ("fd_allocate", "iqq", f.unsupported),
            ("fd_readdir", "iiiqi", f.readdir),
            ("fd_renumber", "ii", f.renumber),
            ("path_open", "iiiiiqqii", f.open),
            ("path_filestat_get", "iiiii", f.path_filestat),
            ("path_filestat_set_times", "iiiiqqi", f.unsupported),
            ("path_create_directory", "iii", f.create_directory),
            ("path_remove_directory", "iii", f.remove_directory),
            ("path_unlink_file", "iii", f.unlink),
            ("path_rename", "iiiiii", f.rename),
            ("path_link", "iiiiiii", f.unsupported),
            ("path_symlink", "iiiii", f.unsupported),
            ("path_readlink", "iiiiii", f.unlinked),
        )

    @staticmethod
    def nothing(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        run.open_files.get(args[0])

    @staticmethod
    def unsupported(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        raise FolderError("ENOTSUP")

    @staticmethod
    def unlinked(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        raise FolderError("EINVAL")  # as of anything that is no link

    @staticmethod
    def prestat_get(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        FileFunctions._root(run, args[0])
        memory.write(args[1], struct.pack("<II", 0, len(ROOT_NAME)))

    @staticmethod
    def prestat_name(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        FileFunctions._root(run, args[0])
        memory.write(args[1], ROOT_NAME[: args[2]])

    @staticmethod
    def _root(run: Run, fd: int) -> None:
        if fd != ROOT_FD:
            raise FolderError("EBADF")
        run.open_files.get(fd)

    @staticmethod
    def close(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        if args[0] > 2:
            run.open_files.close(args[0])

    @staticmethod
    def fdstat(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        kind, flags = CHARACTERS, 0
        if args[0] > 2:
            descriptor = run.open_files.get(args[0])
            kind = FOLDER if isinstance(descriptor.entry, Folder) else REGULAR
            flags = APPEND if descriptor.append else 0
        memory.write(args[1], FDSTAT.pack(kind, flags, ALL_RIGHTS, ALL_RIGHTS))

    @staticmethod
    def set_flags(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        run.open_files.get(args[0]).append = bool(args[1] & APPEND)

    @staticmethod
    def filestat(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        memory.write(args[1], STREAM_STAT if args[0] <= 2 else stat_of(run.open_files.get(args[0]).entry))

    @staticmethod
    def set_size(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        descriptor, file = run.open_files.file_of(args[0])
        if not descriptor.may_write or args[1] > SIZE_MAX:
            raise FolderError("EINVAL")
        run.open_files.folder.resize(file, args[1])

    @staticmethod
    def pread(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        fd, vectors, count, at, result = args
        total = 0
        for pointer, length in memory.pieces(vectors, count):
            data = run.open_files.read(fd, length, at + total)
            memory.write(pointer, data)
            total += len(data)
        memory.write(result, total.to_bytes(4, "little"))

    @staticmethod
    def pwrite(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        fd, vectors, count, at, result = args
        total = 0
        for pointer, length in memory.pieces(vectors, count):
            run.open_files.write(fd, memory.read(pointer, length), at + total)
            total += length
        memory.write(result, total.to_bytes(4, "little"))

    @staticmethod
    def seek(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        if args[0] <= 2:
            raise FolderError("ESPIPE")
        offset = args[1] - (1 << 64) if args[1] >> 63 else args[1]
        memory.write(args[3], run.open_files.seek(args[0], offset, args[2]).to_bytes(8, "little"))

    @staticmethod
    def tell(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        memory.write(args[1], run.open_files.file_of(args[0])[0].at.to_bytes(8, "little"))

    @staticmethod
    def readdir(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        fd, pointer, room, cookie, used = args
        folder, listed = run.open_files.folder_of(fd), bytearray()
        for number, (name, entry) in enumerate(list(folder.entries.items())[cookie:], cookie + 1):
            kind, encoded = FOLDER if isinstance(entry, Folder) else REGULAR, name.encode()
            listed += DIRENT.pack(number, entry.inode, len(encoded), kind) + encoded
            if len(listed) >= room:
                break
        memory.write(pointer, bytes(listed[:room]))
        memory.write(used, min(len(listed), room).to_bytes(4, "little"))

    @staticmethod
    def renumber(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        run.open_files.renumber(args[0], args[1])

    @staticmethod
    def open(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        fd, _, pointer, length, flags, rights, _, fd_flags, result = args
        opened = run.open_files.open(fd, _path(memory, pointer, length), flags, rights, fd_flags)
        memory.write(result, opened.to_bytes(4, "little"))

    @staticmethod
    def path_filestat(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        fd, _, pointer, length, result = args
        files = run.open_files
        memory.write(result, stat_of(files.folder.find(_path(memory, pointer, length), files.folder_of(fd))))

    @staticmethod
    def create_directory(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        files = run.open_files
        files.folder.make_folder(_path(memory, args[1], args[2]), files.folder_of(args[0]))

    @staticmethod
    def remove_directory(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        files = run.open_files
        files.folder.remove(_path(memory, args[1], args[2]), files.folder_of(args[0]), folder=True)

    @staticmethod
    def unlink(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        files = run.open_files
        files.folder.remove(_path(memory, args[1], args[2]), files.folder_of(args[0]), folder=False)

    @staticmethod
    def rename(run: Run, memory: GuestMemory, args: tuple[int, ...]) -> None:
        files = run.open_files
        old, new = _path(memory, args[1], args[2]), _path(memory, args[4], args[5])
        files.folder.rename(old, files.folder_of(args[0]), new, files.folder_of(args[3]))


def _path(memory: GuestMemory, pointer: int, length: int) -> str:
    if length > 4096:
        raise FolderError("ENAMETOOLONG")
    try:
        return memory.read(pointer, length).decode()
    except UnicodeDecodeError:
        raise FolderError("EINVAL") from None
