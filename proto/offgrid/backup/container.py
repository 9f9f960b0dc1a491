"""What a backup is: a zip file of all rows and events of a store, in pieces that any machine reads.

    segments/00000001.pb …   offgrid.v1.Segment: rows of tables, then the journal's events
    manifest.json            whose store it is and how it was, and each piece's size and SHA-256

Its comment, which ends the file, has the BLAKE2b-256 of all bytes before it: so a changed, a missing and a surplus byte
show wherever they are, also where zip itself has no checksum. Nothing of a file is used before that was checked.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message import DecodeError

from offgrid.backup import BackupDamaged, BackupUnknown
from offgrid.backup.recovery import Recipient, Secret
from offgrid.backup.sealed import SealedReader, SealedWriter, is_sealed
from offgrid.v1 import state_pb2

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 64 * 1024 * 1024
SEGMENT_BYTES_MAX = 64 * 1024 * 1024  # a segment has 1 MiB, and one row or event more, which may have 16
READ_BYTES = 1024 * 1024
_LEVEL = 6
_DATE = (1980, 1, 1, 0, 0, 0)  # zip's own times are local ones; the manifest has the moment
_MARK = "offgrid backup, blake2b-256 "
_COMMENT_BYTES = len(_MARK) + 64
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, ValueError, NotImplementedError, RuntimeError,
    DecodeError,
)  # fmt: skip

Progress = Callable[[int, int], None]
"""Bytes done, and of how many."""


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Whose store it is and how it was: of its journal it keeps the events behind `journal_floor`. `rows`: of each
    table how many; `damaged`: what could not be read any more, and is not in it."""

    node_id: str
    node: str
    mesh: str
    life: int
    journal_floor: int
    journal_seq: int
    made_us: int
    made_by: str
    rows: Mapping[str, int]
    damaged: tuple[str, ...] = ()
    members: tuple[Member, ...] = field(default=(), repr=False)
    format: int = FORMAT

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Raises BackupUnknown for one of a newer format, ValueError."""
        said: dict[str, Any] = json.loads(data)
        if said["format"] != FORMAT:
            raise BackupUnknown(f"it is a backup of format {said['format']}, this program knows {FORMAT}")
        members = tuple(Member(str(m["name"]), int(m["bytes"]), str(m["sha256"])) for m in said["members"])
        return cls(**{**said, "members": members, "damaged": tuple(said["damaged"])})


class BackupWriter:
    """Into a file that is open for writing, and at its start, in a `with` block. Methods raise OSError."""

    def __init__(self, file: BinaryIO, recipient: Recipient | None = None) -> None:
        self._sealed = SealedWriter(file, recipient) if recipient is not None else None
        self._out = _Digesting(self._sealed if self._sealed is not None else file)
        self._zip = zipfile.ZipFile(self._out, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
        self._members: list[Member] = []

    @property
    def key(self) -> bytes:
        """Opens what is sealed, for `check` of what was written; empty where nothing is."""
        return self._sealed.key if self._sealed is not None else b""

    def __enter__(self) -> BackupWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """What is not finished stays half."""
        self._zip.fp = None
        if self._sealed is not None:
            self._sealed.give_up()

    def add(self, segment: state_pb2.Segment) -> int:
        """Its size."""
        data = segment.SerializeToString()
        name = f"segments/{len(self._members) + 1:08}.pb"
        self._put(name, data)
        self._members.append(Member(name, len(data), hashlib.sha256(data).hexdigest()))
        return len(data)

    def finish(self, **facts: Any) -> Manifest:
        """With all of the manifest but its members. The file is whole then, and not yet on the disk."""
        manifest = Manifest(members=tuple(self._members), **facts)
        self._put(MANIFEST, manifest.encode())
        self._zip.comment = bytes(_COMMENT_BYTES)
        self._zip.close()
        self._out.end()
        if self._sealed is not None:
            self._sealed.close()
        return manifest

    def _put(self, name: str, data: bytes) -> None:
        info = zipfile.ZipInfo(name, _DATE)
        info.compress_type = zipfile.ZIP_DEFLATED
        self._zip.writestr(info, data)


class BackupReader:
    """Of a file that may be sealed. Use `open`; `check` comes before all else."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zip: zipfile.ZipFile | None = None
        self._manifest: Manifest | None = None
        self.digest = b""

    @classmethod
    def open(cls, path: Path, *, secret: Secret | None = None, key: bytes = b"") -> BackupReader:
        """By the recipient's secret, or the file's own key. Raises BackupUnknown, BackupDamaged, SecretNeeded,
        OSError."""
        file = path.open("rb")
        try:
            sealed = is_sealed(file.read(8))
            file.seek(0)
            return cls(io.BufferedReader(SealedReader(file, secret=secret, key=key), READ_BYTES) if sealed else file)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> BackupReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()
        self._file.close()

    @property
    def manifest(self) -> Manifest:
        assert self._manifest is not None, "check comes first"
        return self._manifest

    def check(self, progress: Progress = lambda done, total: None) -> Manifest:
        """Reads all of it: the digest over the file, then each piece, and whether all of them are one whole. Raises
        BackupDamaged, BackupUnknown."""
        size = self._file.seek(0, io.SEEK_END)
        self._check_digest(size, lambda done: progress(done, 2 * size))
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._manifest = Manifest.decode(self._member(MANIFEST, MANIFEST_BYTES_MAX))
            self._check_names(self._manifest)
            self._check_whole(self._manifest, lambda done: progress(size + min(done, size), 2 * size))
        except _DAMAGE as error:
            raise BackupDamaged(f"it is no whole backup: {error}") from error
        except TypeError as error:  # of what the manifest says
            raise BackupDamaged(f"its manifest is no such one: {error}") from error
        return self._manifest

    def segments(self) -> Iterator[state_pb2.Segment]:
        """In their order. Raises BackupDamaged should the file be another one by now."""
        for member in self.manifest.members:
            try:
                data = self._member(member.name, SEGMENT_BYTES_MAX)
                if (len(data), hashlib.sha256(data).hexdigest()) != (member.bytes, member.sha256):
                    raise BackupDamaged(f"{member.name} is not what the manifest says")
                yield state_pb2.Segment.FromString(data)
            except _DAMAGE as error:
                raise BackupDamaged(f"{member.name} cannot be read: {error}") from error

    # ---- inside

    def _check_digest(self, size: int, on_read: Callable[[int], None]) -> None:
        if size < _COMMENT_BYTES:
            raise BackupUnknown(f"{size} bytes are no backup")
        self._file.seek(size - _COMMENT_BYTES)
        said = self._file.read(_COMMENT_BYTES)
        if not said.startswith(_MARK.encode()):
            self._file.seek(0)
            if self._file.read(2) != b"PK":
                raise BackupUnknown("it is no backup")
            raise BackupDamaged("its end is missing, or damaged")
        digest, left = _digest(), size - _COMMENT_BYTES
        self._file.seek(0)
        while left:
            part = self._file.read(min(left, READ_BYTES))
            if not part:
                raise BackupDamaged("it has become shorter while it was read")
            digest.update(part)
            left -= len(part)
            on_read(size - left)
        if _comment(digest) != said:
            raise BackupDamaged("its digest is wrong: bytes in it are damaged")
        self.digest = digest.digest()

    def _check_names(self, manifest: Manifest) -> None:
        assert self._zip is not None
        if sorted(self._zip.namelist()) != sorted([MANIFEST, *(member.name for member in manifest.members)]):
            raise BackupDamaged("what is in it is not what its manifest names")

    def _check_whole(self, manifest: Manifest, on_read: Callable[[int], None]) -> None:
        """Every row that the manifest counts, and every event."""
        rows, last, done = dict.fromkeys(manifest.rows, 0), manifest.journal_floor, 0
        for member, segment in zip(manifest.members, self.segments(), strict=True):
            for table in segment.tables:
                rows[table.name] = rows.get(table.name, 0) + len(table.rows)
            for part in segment.events:
                if part.first_seq != last + 1:
                    raise BackupDamaged(f"{member.name} goes on at event {part.first_seq}, {last + 1} is needed")
                last += len(part.events)
            done += member.bytes
            on_read(done)
        if rows != dict(manifest.rows):
            raise BackupDamaged("it has not the rows that its manifest counts")
        if last != manifest.journal_seq:
            raise BackupDamaged(f"its events end at {last}, not at {manifest.journal_seq}")

    def _member(self, name: str, bytes_max: int) -> bytes:
        assert self._zip is not None
        info = self._zip.getinfo(name)
        if info.file_size > bytes_max:
            raise BackupDamaged(f"{name} has {info.file_size} bytes; {bytes_max} at most are taken")
        with self._zip.open(info) as file:
            return file.read(bytes_max + 1)


class _Digesting(io.RawIOBase):
    """What goes through, but for its last bytes: in their place stands what comes to before them."""

    def __init__(self, below: Any) -> None:
        self._below, self._digest, self._held = below, _digest(), b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        new = bytes(data)  # type: ignore[call-overload]  # whatever has bytes
        held = self._held + new
        cut = max(0, len(held) - _COMMENT_BYTES)
        self._digest.update(held[:cut])
        self._below.write(held[:cut])
        self._held = held[cut:]
        return len(new)

    def end(self) -> None:
        self._below.write(_comment(self._digest))


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=32, person=b"og.backup.v1")


def _comment(digest: hashlib.blake2b) -> bytes:
    return f"{_MARK}{digest.hexdigest()}".encode("ascii")
