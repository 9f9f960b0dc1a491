"""Power cuts at whatever a node's sessions are just writing: store and log, the ring of keys, and its twin that is
wrapped beside the backups; while they record, take snapshots, purge, drop what is old, and while the store's file is
made small. The real machine, handlers and files run in this process; a cut is a folder as the disk may be left
(cut_disk.py), in which they come up anew and are held against the diary of the one that lives on.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import msgspec
from google.protobuf.message import Message

from offgrid.backup.wrapped import WRAPPED_KEYS
from offgrid.client import Client, OffgridError
from offgrid.client.calls import Calls
from offgrid.client.sessions import Sessions
from offgrid.reducers import SessionReducer
from offgrid.v1 import state_pb2
from offgrid_node.folder import BACKUPS
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.state.sessions.commands import DropOldest
from offgrid_node.protocol.state.sessions.machine import SessionsMachine
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.router import snake
from offgrid_node.services.sessions.handlers import SessionHandlers
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.session_vault import SessionVault
from offgrid_node.storage import redo_log
from offgrid_node.storage.compacting import compact
from offgrid_node.storage.copying import copy_place
from offgrid_node.storage.disk import make_folder, sync_file, sync_folder
from offgrid_node.storage.lmdb_env import DATA_FILE
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.session_keys import SESSION_KEYS, SessionKeys
from offgrid_node.storage.wrapped_keys import WrappedKeys
from offgrid_tools.soak.chance import chance
from offgrid_tools.soak.cut_disk import CutDisk
from offgrid_tools.soak.diary import Diary, Page

STEPS = 40  # of a life of the one that goes on
LOOKED_CHANCE = 0.25  # that a moment is one in which the power fails
LIMIT_BYTES = 64 * 1024 * 1024
RECORDS_BYTES = 32 * 1024  # the log is full now and then
OPEN_MAX, SHREDDED_MAX, NAMES = 3, 3, ("one", "two")
STORE, WRAPPED = "memory.db", Path("elsewhere") / BACKUPS / WRAPPED_KEYS
WRITER = b"writer-1"


class Desk:
    """Sessions over a folder, as a node has them; a client's calls are answered at once. Close it."""

    def __init__(self, folder: Path, rng: Random) -> None:
        self.folder, self._now_ms = folder, 0
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.store = LoggedStore.open(folder / STORE, limit_bytes=LIMIT_BYTES)
        wrapped = WrappedKeys(SessionKeys(folder / SESSION_KEYS), folder / WRAPPED, wrap, lambda work: work())
        reducer = SessionReducer()
        self.runtime = Runtime(
            lambda: {"sessions": SessionsMachine(self.store, {reducer.name: reducer.version})},
            self.store,
            self,
            rng,
            cast("Any", None),  # nothing leaves
        )
        vault = SessionVault(wrapped, rng.randbytes)
        self.handlers = SessionHandlers(
            self.runtime, vault, rng, {reducer.name: reducer}, self._later, "n-1", Privacy(raw_content=True),
            Bulk(inline),
        )  # fmt: skip
        self.handlers.shredding.start()
        self.work()
        self.client = cast("Client", SimpleNamespace(sessions=Sessions(cast("Calls", self))))

    def close(self) -> None:
        self.store.close()

    def now(self) -> Now:
        return Now(self._now_ms, 1_790_000_000_000_000 + self._now_ms * 1_000)

    def work(self) -> None:
        """All that is due soon; and rows that are to be swept."""
        self.runtime.turn()
        while self._timers and self._timers[0][0] <= self._now_ms + 1_000:
            self._now_ms, _, callback = heapq.heappop(self._timers)
            callback()
            self.runtime.turn()
        while self.runtime.deadline_ms() is not None:
            self.runtime.wake()
            self.runtime.turn()

    def unary(self, method: str, request: Message, answer: type[Message], **named: Any) -> Any:
        """Raises OffgridError."""
        try:
            outcome = getattr(self.handlers, snake(method.partition("/")[2]))(ADMIN, request)
            if isinstance(outcome, Ticket):
                outcome = self.wait(outcome)
        except Fault as fault:
            raise OffgridError("INTERNAL", fault.reason, fault.message) from fault
        return outcome

    def wait(self, ticket: Ticket) -> Message:
        """Raises Fault."""
        self.work()
        if isinstance(ticket.outcome, Fault):
            raise ticket.outcome
        assert ticket.outcome is not None
        return ticket.outcome

    def _later(self, delay_ms: int, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self._now_ms + max(1, delay_ms), next(self._count), callback))


class Life:
    """One that goes on, and is looked at as a power cut would leave it."""

    def __init__(self, home: Path, seed: str) -> None:
        self.rng, self.home = chance(seed), home
        self.live, self.image = home / "live", home / "image"
        make_folder(self.live)
        Desk(self.live, self.rng).close()
        self.disk = CutDisk(self.live, self.rng)
        self.diary = Diary(self.rng)
        self.met: Counter[str] = Counter()
        self.broken: list[str] = []
        self._doing = ""

    def run(self, steps_max: int) -> None:
        with self.disk.connected():
            self.desk = Desk(self.live, self.rng)
            self.disk.on_moment = self._moment
            steps: Sequence[Callable[[], None]] = (
                *(self.record, self.record, self.record, self.start, self.end, self.snapshot),
                *(self.purge, self.drop, self.checkpoint, self.compact, self.reopen),
            )
            try:
                for _ in range(steps_max):
                    if self.broken:
                        break
                    step = self.rng.choice(steps)
                    self._doing = step.__name__
                    step()
                    self.desk.work()
            finally:
                self.disk.on_moment = lambda: None
                self.desk.close()

    # ---- steps

    def record(self) -> None:
        for page in self.rng.sample(open_ := self._open(), min(1, len(open_))):
            events = [page.said.next(self.rng, self.diary.time_us()) for _ in range(self.rng.randint(1, 6))]
            texts = [(e.timestamp_us, e.kind, e.frame_id, e.energy_delta, json.dumps(e.data).encode()) for e in events]
            request = state_pb2.RecordEventsRequest(
                session=page.session_id, writer=WRITER, sent=page.durable, events=msgspec.msgpack.encode(texts)
            )
            self.desk.unary("/RecordEvents", request, state_pb2.RecordEventsResponse)
            page.durable += len(events)

    def start(self) -> None:
        if len(self.diary.readable()) < OPEN_MAX:
            request = state_pb2.StartSessionRequest(name=self.rng.choice(NAMES))
            session = self.desk.unary("/StartSession", request, state_pb2.StartSessionResponse).session
            if session.session_id not in self.diary.pages:
                self.diary.begin(session.session_id, session.session_id)

    def end(self) -> None:
        for page in self._open()[:1]:
            self.desk.client.sessions.end(page.session_id)
            page.ended = True

    def snapshot(self) -> None:
        for page in self.diary.readable():
            if page.durable:
                self.desk.client.sessions.snapshot(page.session_id)

    def purge(self) -> None:
        if len(self.diary.readable()) == OPEN_MAX:
            page = self.rng.choice(self.diary.readable())
            page.purging = True
            self.desk.client.sessions.purge([page.session_id])
            page.purged = True
            self.diary.forget(SHREDDED_MAX)

    def drop(self) -> None:
        self.snapshot()
        command = DropOldest(self.desk.store.journal_seq, self.rng.randint(1, 2_000), 0)
        with suppress(Fault):
            self.desk.wait(self.desk.runtime.ask("sessions", "retention", command))

    def checkpoint(self) -> None:
        self.desk.store.checkpoint()

    def compact(self) -> None:
        compact(self.desk.store, lambda: (copied(self.desk.store), ()))

    def reopen(self) -> None:
        self.desk.close()
        self.desk = Desk(self.live, self.rng)

    def _open(self) -> list[Page]:
        return [page for page in self.diary.readable() if not page.ended]

    # ---- cuts

    def _moment(self) -> None:
        if self.rng.random() < LOOKED_CHANCE and not self.broken:
            self.met[self._doing] += 1
            self.disk.look(self.image, self._check)

    def _check(self) -> None:
        try:
            self.broken += [f"a power cut while it was to {self._doing}: {wrong}" for wrong in self._wrong()]
        except (Fault, OffgridError) as error:
            self.broken.append(f"a power cut while it was to {self._doing}: {error}")

    def _wrong(self) -> Iterator[str]:
        desk = Desk(self.image, chance("image"))
        try:
            yield from self.diary.check(desk.client)
            yield from desk.store.verify()
            here = {*SessionKeys(self.image / SESSION_KEYS)}
            wrapped = json.loads((self.image / WRAPPED).read_text())
            for page in self.diary.all():
                is_purged = page.purged or bool(desk.client.sessions.get(page.session_id).purged_us)
                if is_purged and (page.session_id in here or page.session_id in wrapped):
                    yield f"the key of {page.session_id}, which was purged, is there"
        finally:
            desk.close()


def copied(store: LoggedStore) -> Path:
    """As `copy_store`, by the very handle that is open: this process must not open the file a second time."""
    place = copy_place(store.path)
    shutil.rmtree(place, ignore_errors=True)
    make_folder(place)
    env: Any = store._below._held.now().env
    env.copy(str(place), compact=True)
    with (place / DATA_FILE).open("r+b") as file:
        sync_file(file.fileno())
    sync_folder(place)
    return place


def wrap(keys: Any) -> bytes:
    return json.dumps(sorted(keys)).encode()


def cut_sessions(seed: int, steps: int = STEPS) -> tuple[Counter[str], list[str]]:
    """One life: how often the power failed, by what was under way, and what was violated."""
    shm = Path("/dev/shm")  # noqa: S108 - nothing is to be durable there
    home = Path(tempfile.mkdtemp(prefix="offgrid-cuts-", dir=shm if os.access(shm, os.W_OK) else None))
    try:
        with (
            patch.object(redo_log, "RECORDS_END", redo_log.BLOCK_BYTES + RECORDS_BYTES),
            patch.object(redo_log, "LOG_BYTES", 2 * redo_log.BLOCK_BYTES + RECORDS_BYTES),
        ):
            life = Life(home, f"{seed}/session-cuts")
            life.run(steps)
        return life.met, life.broken
    finally:
        shutil.rmtree(home, ignore_errors=True)
