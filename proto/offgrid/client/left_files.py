"""Files that a job has left: out of the archive that its result names, into memory or a folder.

What is in the archive came from a host. A file counts when the result lists it, with its size and digest, under a name
that stays within the folder; anything else is refused before a single one is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from offgrid.archive import files_in
from offgrid.client.errors import OffgridError
from offgrid.client.targets import Target, replaced
from offgrid.v1 import jobs_pb2

DIGEST_BYTES = 32


def unpacked(archive: bytes, job: jobs_pb2.Job) -> dict[str, bytes]:
    """The files by name. Raises OffgridError(DATA_LOSS, FilesDamaged) for an archive that is another than the result
    says."""
    wanted = {file.name: file for file in job.result.files}
    found: dict[str, bytes] = {}
    try:
        for name, data in files_in(archive):
            if name not in wanted or name in found or not _stays(name):
                raise ValueError(f"it holds {name[:80]!r}, which the result does not list")
            found[name] = data
    except ValueError as error:
        raise _damaged(job, str(error)) from error
    for name, file in wanted.items():
        if name not in found or _digest(found[name]) != file.digest:
            raise _damaged(job, f"{name!r} in it is not the file that the result lists")
    return found


def write_into(folder: Target, files: Mapping[str, bytes]) -> list[Path]:
    """Each file whole or not at all, below `folder`, which is made where it is missing; returns their paths."""
    written = []
    for name, data in sorted(files.items()):
        path = Path(folder).joinpath(*PurePosixPath(name).parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            file.write(data)
        written.append(path)
    return written


def _stays(name: str) -> bool:
    parts = name.split("/")
    return all(part not in ("", ".", "..") for part in parts) and not set(name) & {"\\", ":", "\0"}


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def _damaged(job: jobs_pb2.Job, what: str) -> OffgridError:
    return OffgridError("DATA_LOSS", "FilesDamaged", f"the archive of job {job.job_id}'s files is damaged: {what}")
