"""Names, archives and lists of a job's files: safe below any folder, and an archive tells of its files alone."""

from __future__ import annotations

import contextlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Corrupt, InvalidRequest
from offgrid_node.protocol.jobs.artifacts import (
    FILES_MAX,
    INPUT_FILES_MAX,
    NAME_BYTES_MAX,
    check_file_name,
    listed,
    pack,
    unpack,
)
from offgrid_node.protocol.jobs.needs import check_payload

NAMES = st.text(min_size=1, max_size=60).filter(lambda name: not check_file_name(name))


@pytest.mark.parametrize("name", ["a", "a/b", "a b.txt", "ä/ö", "a" * NAME_BYTES_MAX, "inputs", "...", "a..b"])
def test_names_that_can_be(name: str) -> None:
    assert check_file_name(name) == ""


@pytest.mark.parametrize(
    "name",
    ["", "/a", "a//b", "a/", ".", "..", "a/../b", "./a", "a\0b", "a\nb", "a\\b", "C:x", "input", "input/a",
     "a" * (NAME_BYTES_MAX + 1), "\ud800"],
)  # fmt: skip
def test_names_that_cannot_be(name: str) -> None:
    assert check_file_name(name)


@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=8))
def test_an_archive_holds_its_files_whatever_their_order(files: dict[str, bytes]) -> None:
    there, back = list(files.items()), list(reversed(files.items()))
    archive = pack(there)
    assert archive == pack(back)
    assert unpack(archive) == sorted(there)
    assert [(each.name, each.size_bytes) for each in listed(there)] == [(n, len(d)) for n, d in sorted(there)]


@given(st.binary(max_size=3000))
def test_bytes_that_are_no_archive_are_refused_or_are_one_of_nothing(data: bytes) -> None:
    with contextlib.suppress(Corrupt):
        assert all(check_file_name(name) == "" for name, _ in unpack(data))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_an_archive_holds_plain_files_only(kind: bytes) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        about = tarfile.TarInfo("a")
        about.type, about.linkname = kind, "/etc/passwd"
        tar.addfile(about)
    with pytest.raises(Corrupt, match="plain file"):
        unpack(archive.getvalue())


def test_an_archive_of_too_many_files_is_refused() -> None:
    with pytest.raises(Corrupt):
        unpack(pack([(str(n), b"") for n in range(FILES_MAX + 1)]))


def payload(**changes: object) -> jobs_pb2.JobPayload:
    return jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="wc"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (payload(files=[jobs_pb2.JobFile(name="../x", object_id="o")]), "payload.files[0].name"),
        (payload(files=[jobs_pb2.JobFile(name="x")]), "payload.files[0].object_id"),
        (payload(files=[jobs_pb2.JobFile(name="x", object_id="o")] * 2), "payload.files[1].name"),
        (payload(files=[jobs_pb2.JobFile(name=n, object_id="o") for n in ("x/y", "x")]), "payload.files[1].name"),
        (payload(files=[jobs_pb2.JobFile(name=str(n), object_id="o") for n in range(INPUT_FILES_MAX + 1)]),
         "payload.files"),
        (payload(outputs=["/etc/*"]), "payload.outputs[0]"),
        (jobs_pb2.JobPayload(builtin=jobs_pb2.BuiltinTask(name="echo"), outputs=["x"]), "payload.outputs"),
    ],
)  # fmt: skip
def test_a_payload_names_its_files_well(wrong: jobs_pb2.JobPayload, field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_payload(wrong)
    assert field in [violation.field for violation in raised.value.violations]


def test_a_payload_may_bring_and_want_files() -> None:
    check_payload(payload(files=[jobs_pb2.JobFile(name="a/b", object_id="o")], outputs=["out/*", "**/x"]))


def head(size: bytes = b"00000000000\0", kind: bytes = b"0") -> bytes:
    """A tar header that this test alone would write, its sum in order."""
    buffer = bytearray(tarfile.TarInfo("a").tobuf(tarfile.USTAR_FORMAT))
    buffer[124:136], buffer[156:157], buffer[148:156] = size, kind, b" " * 8
    buffer[148:156] = b"%06o\0 " % sum(buffer)
    return bytes(buffer)


def with_pax(record: bytes) -> bytes:
    size = b"%011o\0" % len(record)
    return head(size, b"x") + record + bytes(-len(record) % 512) + head() + bytes(1_024)


@pytest.mark.parametrize(
    "archive",
    [
        with_pax(b"1" * 200_000),  # CVE-2024-6232: minutes of one regular expression, and then minutes more
        with_pax(b"13 mtime=inf\n"),
        with_pax(b"13 size=1e99\n"),
        with_pax(b"010 path=b\n"),
        head(b"\x80\0" + bytes([1] * 10)) + bytes(1_024),
        head(b"\xff" * 10 + b"\xfe\0") + bytes(1_024),
        head(b"-0000000001\0") + bytes(1_024),
        20_000 * (head(b"%011o\0" % 10, b"x") + b"10 path=b\n" + bytes(502)) + head() + bytes(1_024),
        20_000 * (head(b"%011o\0" % 1, b"L") + b"b" + bytes(511)) + head() + bytes(1_024),
        head(kind=b"S") + bytes(1_024),
        head(b"%011o\0" % 513) + bytes(512),
        2 * head() + bytes(8_192),
        pack([("a", b"")])[:600],
        pack([("a", b"")]) + b"behind its end",
        b"x" * 700,
    ],
    ids=range(15),
)
def test_an_archive_that_no_node_would_pack_is_refused_at_once(archive: bytes) -> None:
    with pytest.raises(Corrupt):
        unpack(archive)


@given(st.binary(max_size=2_000), st.integers(0, 3_000))
def test_whatever_comes_as_an_archive_is_read_or_refused(noise: bytes, at: int) -> None:
    whole = pack([("a", b"one"), ("ö" * 60, b"two")])
    for archive in (noise, whole[:at] + noise + whole[at:], whole[:at] + noise + whole[at + len(noise) :]):
        with contextlib.suppress(Corrupt):
            assert pack(unpack(archive)) == archive
