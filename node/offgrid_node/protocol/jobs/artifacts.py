"""Files that a job gets and leaves: how they are named, how many, how large, and how those of a result are packed.

The archive is a tar (POSIX ustar, with pax headers for long names) that is a function of names and bytes alone, so that
redundant executions can be compared by its digest: sorted, no times, no owners, mode 0644.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Sequence

from offgrid.archive import files_in
from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Corrupt, FieldViolation

INPUT_FILES_MAX = 64
OUTPUT_PATTERNS_MAX = 64
FILES_MAX = 256
FILES_BYTES_MAX = 64 * 1024 * 1024  # of all files of a job together, in as well as out
NAME_BYTES_MAX = 255
DIGEST_BYTES = 32
RESERVED_NAMES = ("input",)  # the job's standard input, by name


def check_file_name(name: str) -> str:
    """Why a file cannot be called so; empty when it can."""
    parts = name.split("/")
    if not name or name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "is not a relative path without empty parts, . and .."
    if len(name.encode(errors="surrogatepass")) > NAME_BYTES_MAX:
        return f"is longer than {NAME_BYTES_MAX} bytes"
    if not name.isprintable() or "\\" in name or ":" in name:
        return "holds a control character, a backslash or a colon"
    if parts[0] in RESERVED_NAMES:
        return f"begins with {parts[0]!r}, which is the job's standard input"
    return ""


def check_files(payload: jobs_pb2.JobPayload) -> list[FieldViolation]:
    """What is wrong with the files that a payload brings and wants, by field."""
    wrong: list[FieldViolation] = []
    for field, count, most in (
        ("payload.files", len(payload.files), INPUT_FILES_MAX),
        ("payload.outputs", len(payload.outputs), OUTPUT_PATTERNS_MAX),
    ):
        if count > most:
            wrong.append(FieldViolation(field, f"{count} entries; at most {most} allowed"))
    if wrong:
        return wrong
    seen = set[str]()
    for index, file in enumerate(payload.files):
        problem = check_file_name(file.name)
        if not problem and file.name in seen:
            problem = "is there twice"
        if not problem and any(name.startswith(f"{file.name}/") or file.name.startswith(f"{name}/") for name in seen):
            problem = "is a file and a folder"
        if problem:
            wrong.append(FieldViolation(f"payload.files[{index}].name", f"{file.name[:80]!r} {problem}"))
        if bool(file.object_id) == file.HasField("object"):
            text = "give one of object_id (from a job's owner) and object (from its core)"
            wrong.append(FieldViolation(f"payload.files[{index}].object_id", text))
        seen.add(file.name)
    for index, pattern in enumerate(payload.outputs):
        if problem := check_file_name(pattern):
            wrong.append(FieldViolation(f"payload.outputs[{index}]", f"{pattern[:80]!r} {problem}"))
    return wrong


def pack(files: Sequence[tuple[str, bytes]]) -> bytes:
    """The archive of these files; empty for none."""
    if not files:
        return b""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in sorted(files):
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(data), 0o644
            tar.addfile(about, io.BytesIO(data))
    return archive.getvalue()


def unpack(archive: bytes) -> list[tuple[str, bytes]]:
    """The files of an archive that `pack` made. Raises Corrupt for one that it would not have made."""
    if not archive:
        return []
    try:
        files = files_in(archive)
    except ValueError as error:
        raise Corrupt(f"the archive of a result's files cannot be read: {error}") from error
    for name, _ in files:
        if check_file_name(name):
            raise Corrupt(f"the archive holds {name[:80]!r}, which no result has")
    if len(files) > FILES_MAX or len(dict(files)) < len(files) or pack(files) != archive:
        raise Corrupt("the archive of a result's files is not packed as it should be")
    return files


def archive_digest(archive: bytes) -> bytes:
    """Empty for no files."""
    return hashlib.blake2b(archive, digest_size=DIGEST_BYTES).digest() if archive else b""


def listed(files: Iterable[tuple[str, bytes]]) -> list[jobs_pb2.ResultFile]:
    """What a result says of its files, by name."""
    return [
        jobs_pb2.ResultFile(
            name=name, size_bytes=len(data), digest=hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
        )
        for name, data in sorted(files)
    ]
