"""Files that a job has left: only what its result lists, only below the folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from offgrid.client import OffgridError
from offgrid.client.left_files import unpacked, write_into
from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.jobs.artifacts import listed, pack, unpack

FILES = [("a.txt", b"alpha"), ("sub/b.bin", bytes(1000)), ("sub/" + "long" * 40, b"")]


def job(files: list[tuple[str, bytes]] = FILES) -> jobs_pb2.Job:
    return jobs_pb2.Job(job_id="j-1", result=jobs_pb2.JobResult(files=listed(files)))


def archive(*members: tarfile.TarInfo) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return made.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, "/etc/passwd"
    return made


def sparse(size_bytes: int) -> bytes:
    """An archive of 1,536 bytes with a file that says it has so many, all of them zero."""
    about = tarfile.TarInfo("a.txt")
    about.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(about.tobuf(format=tarfile.GNU_FORMAT))
    block[386:410], block[483:495], block[148:156] = b"%011o\0" % 0 * 2, b"%011o\0" % size_bytes, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def test_a_file_that_unfolds_is_refused_unread() -> None:
    bomb = sparse(1 << 32)
    with tarfile.open(fileobj=io.BytesIO(bomb)) as tar:
        assert [about.size for about in tar] == [1 << 32]
    with pytest.raises(OffgridError, match="plain file"):
        unpacked(bomb, job())
    with pytest.raises(Corrupt):
        unpack(bomb)


def test_all_come_into_the_folder(tmp_path: Path) -> None:
    files = unpacked(pack(FILES), job())
    assert files == dict(FILES)
    written = write_into(tmp_path / "new" / "folder", files)
    assert {str(path.relative_to(tmp_path / "new" / "folder")): path.read_bytes() for path in written} == dict(FILES)


@pytest.mark.parametrize(
    "data",
    [
        pack([*FILES, ("more", b"")]),
        pack(FILES[:2]),
        pack([("a.txt", b"other"), *FILES[1:]]),
        pack(FILES)[:700],
        b"junk",
        archive(member("a.txt"), member("a.txt")),
        archive(member("a.txt", tarfile.SYMTYPE)),
        archive(member("a.txt", tarfile.LNKTYPE)),
        archive(member("a.txt", tarfile.GNUTYPE_SPARSE)),
        archive(member("sub", tarfile.DIRTYPE)),
    ],
)
def test_an_archive_that_is_not_what_the_result_says_is_refused(data: bytes) -> None:
    with pytest.raises(OffgridError) as refused:
        unpacked(data, job())
    assert refused.value.reason == "FilesDamaged"


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../x", "a//x", "./x", "c:x", "a\\x"])
def test_no_name_leads_out_of_the_folder_even_where_the_result_lists_it(name: str) -> None:
    with pytest.raises(OffgridError):
        unpacked(pack([(name, b"x")]), job([(name, b"x")]))
