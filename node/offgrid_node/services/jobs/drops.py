"""The drop folder: jobs of the local queue as files, for another program to carry out; and what that leaves there.

`<job id>.job.json` says what is to be done; `<job id>.result.json` beside it ends the job. Files are written whole or
not at all, and whoever writes a result does well to write it under another name first and rename it. A result that is
not one is set aside as `.refused`, with a line in the log. Only files of this node are ever removed. All of this is
work at a disk: call it in a thread.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
import logging
import os
import re
import stat
import time
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from google.protobuf.json_format import MessageToDict

from offgrid.v1 import jobs_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.bounds import LOG_BYTES_MAX
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX
from offgrid_node.protocol.jobs.receipts import COMPLETED, FAILED
from offgrid_node.storage.disk import write_durably

JOB, RESULT, REFUSED = ".job.json", ".result.json", ".refused"
VERSION = 1
RESULT_FILE_BYTES_MAX = 512 * 1024  # an output and a log of their full sizes, in base64 and with escapes
HEAD_BYTES = 256  # of a job's file: its node stands there
SETTLING_S = 5.0  # a result that cannot be read may still be on its way into its file
JOB_NAME = re.compile(r"(j-[a-z0-9.-]{1,62})\.(job|result)\.json\Z")
EXIT_CODES = range(-(2**31), 2**31)

_log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """Jobs whose files are missing, and what came back for those that are there."""

    missing: list[str]
    results: list[tuple[str, jobs_pb2.JobResult]]


class DropFolder:
    """One folder, which may be shared with other nodes and programs."""

    def __init__(self, path: Path, node_id: str) -> None:
        self._path, self._mark = path, f'{{"version": {VERSION}, "node": {json.dumps(node_id)}, '.encode()
        self._node_id = node_id
        # Of what lies there now: job files of others that were looked at, and result files that cannot be set aside.
        self._foreign, self._stuck = set[str](), set[str]()

    def open(self) -> None:
        """Raises OSError."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, job: jobs_pb2.Job, payload: bytes) -> None:
        """Raises OSError."""
        write_durably(self._path / f"{job.job_id}{JOB}", job_text(self._node_id, job, payload).encode())
        said = fields("job_dropped", job=job.job_id, needs=str(job.needs), folder=self._path, ends_with=RESULT)
        _log.info("a job lies in the drop folder", extra=said)

    def look(self, wanted: Set[str]) -> Seen:
        """Removes this node's files of all other jobs. Raises OSError."""
        with os.scandir(self._path) as entries:
            there = {found[0] for entry in entries if (found := JOB_NAME.fullmatch(entry.name))}
        jobs = {name.removesuffix(JOB) for name in there if name.endswith(JOB)}
        self._foreign &= jobs
        self._stuck &= there
        for job_id in sorted(jobs - wanted - self._foreign):
            self._clear(job_id)
        results = [name.removesuffix(RESULT) for name in there if name.endswith(RESULT)]
        read = [(job_id, self._read(job_id)) for job_id in sorted(results) if job_id in wanted]
        return Seen(sorted(wanted - jobs), [(job_id, result) for job_id, result in read if result is not None])

    # ---- inside

    def _clear(self, job_id: str) -> None:
        """The job has ended, or goes another way."""
        path = self._path / f"{job_id}{JOB}"
        try:
            with _opened(path) as file:
                own = file.read(HEAD_BYTES).startswith(self._mark)
        except FileNotFoundError:
            return
        except (InvalidRequest, PermissionError):  # none that this node has put there
            own = False
        if own:
            path.unlink(missing_ok=True)
            (self._path / f"{job_id}{RESULT}").unlink(missing_ok=True)
        else:
            self._foreign.add(job_id)

    def _read(self, job_id: str) -> jobs_pb2.JobResult | None:
        path = self._path / f"{job_id}{RESULT}"
        try:
            with _opened(path) as file:
                facts = os.fstat(file.fileno())
                if facts.st_size > RESULT_FILE_BYTES_MAX:
                    raise InvalidRequest(f"has {facts.st_size} bytes; at most {RESULT_FILE_BYTES_MAX} are allowed")
                text = file.read(RESULT_FILE_BYTES_MAX)
            try:
                return result_in(text)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                if abs(time.time() - facts.st_mtime) < SETTLING_S:
                    return None
                raise InvalidRequest(f"is not JSON: {error}") from error
        except (InvalidRequest, OSError) as fault:
            self._set_aside(path, fault.message if isinstance(fault, InvalidRequest) else str(fault))
            return None

    def _set_aside(self, path: Path, why: str) -> None:
        """Under another name. What cannot be given one stays, is told of once, and keeps no other job waiting."""
        try:
            path.replace(path.with_name(path.name + REFUSED))
        except FileNotFoundError:
            return
        except OSError as fault:
            if path.name not in self._stuck:
                self._stuck.add(path.name)
                said = fields("drop_stuck", path=path, why=why, error=fault.strerror or fault)
                _log.warning("a file in the drop folder cannot be set aside", extra=said)
            return
        _log.warning("a file in the drop folder is set aside", extra=fields("drop_set_aside", path=path, why=why))


_NO_LINKS, _NO_WAIT = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)  # Windows has neither
_NO_FILE = (errno.ELOOP, errno.EMLINK, errno.ENXIO)  # a link, as Linux and as FreeBSD say it; a socket


def _opened(path: Path) -> BinaryIO:
    """Follows no link and waits for no pipe's other end. Raises InvalidRequest for what is no plain file, OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | _NO_LINKS | _NO_WAIT)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise InvalidRequest("is no plain file") from error
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return open(fd, "rb")
    os.close(fd)
    raise InvalidRequest("is no plain file")


def job_text(node_id: str, job: jobs_pb2.Job, payload: bytes) -> str:
    """What a job's file says; bytes of the payload stand there in base64, as protobuf's JSON has it."""
    fields: dict[str, Any] = {
        "version": VERSION,
        "node": node_id,
        "job_id": job.job_id,
        "kind": job.kind,
        "needs": job.needs,
        "requirements": job.requirements,
        "size_tokens": job.size_tokens,
        "timeout_ms": job.timeout_ms,
        "priority": job.priority,
        "deadline_us": job.deadline_us,
        "payload": MessageToDict(jobs_pb2.JobPayload.FromString(payload), preserving_proto_field_name=True),
    }
    return json.dumps(fields) + "\n"


def result_in(text: bytes) -> jobs_pb2.JobResult:
    """What a result's file says. Raises InvalidRequest that names the field; JSONDecodeError and UnicodeDecodeError for
    what is no JSON, perhaps not yet."""
    try:
        fields = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("has a number of too many digits, or lists within lists too deep") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("is no JSON object")
    wrong = list(_wrong(fields))
    if wrong:
        raise InvalidRequest("; ".join(wrong))
    status, log = fields["status"], fields.get("log", "").encode(errors="replace")
    output = base64.b64decode(fields.get("output_base64", ""), validate=True)
    exit_code = fields.get("exit_code")
    if exit_code is None:  # null says no more than nothing
        exit_code = 0 if status == COMPLETED else 1
    return jobs_pb2.JobResult(status=status, output=output, log=log[:LOG_BYTES_MAX], exit_code=exit_code)


def _wrong(fields: dict[str, Any]) -> Iterator[str]:
    status, exit_code = fields.get("status"), fields.get("exit_code")
    if status not in (COMPLETED, FAILED):
        yield f"has the status {status!r:.80}; allowed: {COMPLETED!r}, {FAILED!r}"
    if exit_code is not None and (type(exit_code) is not int or exit_code not in EXIT_CODES):
        yield f"has the exit_code {exit_code!r:.80}; a whole number of 32 bits is allowed"
    elif exit_code and status == COMPLETED:
        yield f"is {COMPLETED!r} with exit_code {exit_code}; then it is 0"
    if not isinstance(fields.get("log", ""), str):
        yield "has a log that is no text"
    output = fields.get("output_base64", "")
    try:
        size_bytes = len(base64.b64decode(output, validate=True)) if isinstance(output, str) else -1
    except (binascii.Error, ValueError):
        size_bytes = -1
    if size_bytes < 0:
        yield "has an output_base64 that is no base64"
    elif size_bytes > INLINE_BYTES_MAX:
        yield f"has an output of {size_bytes} bytes; at most {INLINE_BYTES_MAX} are allowed"
