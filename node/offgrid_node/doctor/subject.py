"""The node that is looked at: its folder, its config as far as that can be read, and whether it runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from offgrid.client import Address, Client, NoNode, OffgridError, find
from offgrid_node.config import ConfigError, Problem
from offgrid_node.doctor.findings import Needs, command
from offgrid_node.folder import Folder
from offgrid_node.storage.disk import LOCK_FILE, PID_FILE

if TYPE_CHECKING:
    from offgrid.v1.mesh_pb2 import GetStatusResponse, Peer
    from offgrid_node.config import Config

T = TypeVar("T")
CALL_S = 1.5  # for each question to the node
UNAUTHENTICATED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})


class Subject(msgspec.Struct, dict=True):
    """Asked by several threads at once. `utc_us` is the clock that people set."""

    path: Path
    environ: Mapping[str, str] = msgspec.field(default_factory=lambda: dict(os.environ))
    utc_us: Callable[[], int] = lambda: time.time_ns() // 1_000
    problems: tuple[Problem, ...] = ()
    trouble: OffgridError | None = None
    """Why the node does not answer, where there is one to ask."""

    def __post_init__(self) -> None:
        self.folder = Folder(self.path)
        self._lock, self._locks = threading.Lock(), dict[str, threading.Lock]()
        self._known = dict[str, object]()
        self.config_if_any: Config | None = None
        with suppress(PermissionError):  # of another user's folder no more is looked at than whose it is
            if self.folder.config_path.exists():
                try:
                    self.config_if_any = self.folder.config(self.environ)
                except ConfigError as error:
                    self.problems = tuple(error.problems)
        self.client = self._connect()
        self.status = self._ask_status()

    @property
    def config(self) -> Config:
        """For checks that need it."""
        assert self.config_if_any is not None
        return self.config_if_any

    @cached_property
    def pid(self) -> int | None:
        """Of the process that holds the store; None where none does."""
        if self.config_if_any is None:
            return None
        return holder_of_store(self.config_if_any.storage.memory_db)

    @property
    def asked(self) -> Client:
        """The running node."""
        assert self.client is not None
        return self.client

    def once(self, name: str, find_out: Callable[[], T]) -> T:
        """What several checks go by, found out by the first of them; the others wait for it."""
        with self._lock:
            its_own = self._locks.setdefault(name, threading.Lock())
        with its_own:
            if name not in self._known:
                self._known[name] = find_out()
            return cast("T", self._known[name])

    @property
    def peers(self) -> tuple[Peer, ...]:
        """As the running node sees them, itself included. Raises OffgridError."""
        return self.once("peers", lambda: tuple(self.asked.mesh.peers()))

    def lacks(self, needs: Needs) -> bool:
        match needs:
            case Needs.CONFIG:
                return self.config_if_any is None
            case Needs.STOPPED:
                return self.config_if_any is None or self.status is not None or self.pid is not None
            case Needs.RUNNING:
                return self.status is None or self.config_if_any is None
            case Needs.NOTHING:
                return False

    def node(self, *words: object) -> str:
        """An `offgrid-node` command for this folder."""
        return command("offgrid-node", *words, "--dir", self.path)

    def operator(self, *words: object) -> str:
        """An `offgrid` command to this node."""
        return command("offgrid", "--node-dir", self.path, *words)

    def close(self) -> None:
        if self.client is not None:
            self.client.close()

    def _connect(self) -> Client | None:
        address: Address | None = None
        with suppress(NoNode, OffgridError):
            address = find(str(self.path.absolute()))
        return Client(address, timeout_s=CALL_S) if address is not None else None

    def _ask_status(self) -> GetStatusResponse | None:
        """On a thread: by each carrier that a stopped process leaves waiting a call has its time anew."""
        if self.client is None:
            return None
        answers: list[GetStatusResponse | OffgridError] = []
        thread = threading.Thread(target=lambda: answers.append(_status_of(self.asked)), daemon=True)
        thread.start()
        thread.join(CALL_S)
        no_answer = OffgridError("DEADLINE_EXCEEDED", "NoAnswer", f"no answer within {CALL_S:g} s")
        answer = answers[0] if answers else no_answer
        if isinstance(answer, OffgridError):
            self.trouble = answer
            return None
        return answer


def _status_of(client: Client) -> GetStatusResponse | OffgridError:
    try:
        return client.mesh.status()
    except OffgridError as error:
        return error


def holder_of_store(path: Path) -> int | None:
    """The process that has taken the store in this folder, as it wrote down itself; None where no such one lives."""
    from filelock import FileLock, Timeout

    try:
        pid = int((path / PID_FILE).read_text("ascii"))
        if os.name == "posix":
            os.kill(pid, 0)
    except (OSError, ValueError) as error:
        if not isinstance(error, PermissionError):
            return None
    lock = FileLock(path / LOCK_FILE, timeout=0, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        return pid
    except OSError:
        return None
    lock.release()
    return None
