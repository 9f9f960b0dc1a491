"""What a soak has recorded in the sessions of a node, and what the node must say of them, whatever it went through:
each event that was answered for is there, once and in its order, until retention drops the oldest; the state is what
the events come to; and what was shredded nobody reads, in any file.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from offgrid.client import Client, OffgridError
from offgrid.client.sessions import NotDurable, Session
from offgrid.reducers import Recorded, SessionReducer, show_state
from offgrid.v1 import state_pb2
from offgrid_node.storage.session_keys import SESSION_KEYS, SessionKeys
from offgrid_tools.soak.clients import TRANSIENT

ENERGY = 0.25  # of each that has one: sums of it are the same in any order
REDUCER = SessionReducer()


class Said:
    """Events that a session is given, in their order; of all four kinds, each with a word that is nowhere else."""

    def __init__(self, name: str) -> None:
        self.name, self.marker = name, f"PLANTED-{name}-"
        self.events: list[Recorded] = []
        self._upto, self._state = 0, REDUCER.initial()

    def next(self, rng: Random, at_us: int) -> Recorded:
        number = len(self.events) + 1
        marker = f"{self.marker}{number}-"
        kind, data = rng.choice(
            (
                ("energy.update", {"energy": rng.random(), "accumulator": float(number), "model_id": marker}),
                ("user.prompt", {"prompt_id": marker, "length": number, "hash": f"{rng.getrandbits(128):032x}"}),
                ("pattern.interference", {"models_involved": [marker], "interference_type": "phase", "strength": 0.5}),
                ("health.heartbeat", {"marker": marker, "filling": "x" * rng.randint(0, 300)}),
            )
        )
        delta = ENERGY if rng.random() < 0.5 else None
        event = Recorded(number, at_us, kind, number if rng.random() < 0.3 else None, delta, data)
        self.events.append(event)
        return event

    def digest(self, number: int) -> bytes:
        """Of what that many come to; for numbers that never fall."""
        if number < self._upto:
            self._upto, self._state = 0, REDUCER.initial()
        for event in self.events[self._upto : number]:
            self._state = REDUCER.apply(self._state, event)
        self._upto = number
        return show_state(REDUCER, self._state)[1]


class Page(msgspec.Struct):
    """One session of the diary. `durable` is what the node has answered for; `key` the one that it is sealed under, as
    far as it was seen; `purged` once the node has said so, `purging` from the first time that it was asked on."""

    session_id: str
    said: Said
    durable: int = 0
    ended: bool = False
    purging: bool = False
    purged: bool = False
    key: bytes = b""

    def check(self, client: Client) -> Iterator[str]:
        """What is wrong. Others record in it meanwhile, and retention drops."""
        durable = self.durable
        try:
            told = client.sessions.get(self.session_id)
        except OffgridError as error:
            if error.reason != "SessionNotFound":
                raise
            if not self.purging:
                yield f"{self.said.name} is not there"
            self.purged = True  # and forgotten
            return
        if self.purging:
            yield from self._check_purged(client, told)
            return
        if told.purged_us:
            if told.ended_us == told.purged_us:
                yield f"{self.said.name} was open and is purged, and nobody has asked for that"
            self.purging = self.purged = True  # nothing of it was left, and its row had to go
            return
        if told.recorded < durable:
            yield f"{self.said.name}: {durable} events were answered for, {told.recorded} are recorded"
        if told.recorded > len(self.said.events):
            yield f"{self.said.name}: {len(self.said.events)} events were sent, {told.recorded} are recorded"
        if told.lost or told.dropped:
            yield f"{self.said.name}: {told.lost} events are lost, {dict(told.dropped)} dropped"
        yield from self._check_records(client, told.recorded)
        yield from self._check_state(client, durable)

    def _check_records(self, client: Client, recorded: int) -> Iterator[str]:
        numbers = list[int]()
        for record in client.sessions.records(self.session_id):
            numbers.append(record.number)
            if record.number > len(self.said.events):
                yield f"{self.said.name}: event {record.number} was never sent"
                return
            sent = self.said.events[record.number - 1]
            if _recorded(record) != sent:
                yield f"{self.said.name}: event {record.number} is {record}, sent was {sent}"
                return
        now = client.sessions.get(self.session_id)
        here = [number for number in numbers if number > now.recorded - now.kept]
        if here and here != [*range(here[0], here[-1] + 1)]:
            yield f"{self.said.name}: its events are not in order, each once: {here}"
        if now.kept and (not here or here[-1] < recorded):
            last = here[-1] if here else 0
            yield f"{self.said.name}: of {recorded} events, {now.kept} kept, the last that can be read is {last}"

    def _check_state(self, client: Client, durable: int) -> Iterator[str]:
        shown = client.sessions.show(self.session_id)
        if shown.number > len(self.said.events) or shown.number < durable:
            yield f"{self.said.name}: its state is of {shown.number} events, {durable} were answered for"
        elif shown.digest != self.said.digest(shown.number):
            yield f"{self.said.name}: its state is not what {shown.number} events come to: {shown.state.decode()}"

    def _check_purged(self, client: Client, told: state_pb2.Session) -> Iterator[str]:
        """While nobody knows whether the purge came to be it is there whole, or gone whole."""
        if self.purged and not told.purged_us:
            yield f"{self.said.name}: its purge was answered, and it is not purged"
        try:
            records = [*client.sessions.records(self.session_id)]
        except OffgridError as error:
            if error.reason not in ("SessionShredded", "SessionKeyless"):
                raise
        else:
            if told.purged_us:
                yield f"{self.said.name} is purged, and {len(records)} of its events can be read"


class Seat(threading.Thread):
    """Somebody who records in one session after the other, as long as the node is there and while it is not."""

    def __init__(self, number: int, diary: Diary, connect: Callable[[], Client], rng: Random) -> None:
        super().__init__(daemon=True)
        self.number, self._diary, self._connect, self._rng = number, diary, connect, rng
        self.stopping = threading.Event()
        self.broken: list[str] = []

    def run(self) -> None:
        count = 0
        with self._connect() as client:
            while not self.stopping.is_set():
                try:
                    self._record(client, f"seat-{self.number}-{count}")
                except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                    self.broken.append(f"seat {self.number}: {type(error).__name__}: {error}")
                    return
                count += 1

    def _record(self, client: Client, name: str) -> None:
        session = self._until_done(lambda: client.session(name))
        if session is None:
            return
        page = self._diary.begin(session.session_id, name)
        length = self._rng.randint(*self._diary.lengths)
        while not self.stopping.is_set() and len(page.said.events) < length:
            for _ in range(self._rng.randint(1, 40)):
                event = page.said.next(self._rng, self._diary.time_us())
                session.record(event.kind, event.data, frame=event.frame_id, energy_delta=event.energy_delta,
                               timestamp_us=event.timestamp_us)  # fmt: skip
            self._flush(page, session)
            self.stopping.wait(self._rng.uniform(0.0, 0.15))
        self._flush(page, session)
        if not self.stopping.is_set():
            self._until_done(session.end)
            page.ended = True
        else:
            session.close()

    def _flush(self, page: Page, session: Session) -> None:
        while True:
            done = session.flush(0.5)
            page.durable = session.figures.durable
            if done or self._diary.given_up.is_set():
                return

    def _until_done(self, work: Callable[[], Any]) -> Any:
        while not self._diary.given_up.is_set():
            try:
                return work()
            except OffgridError as error:
                if error.code not in TRANSIENT:
                    raise
            except NotDurable:
                pass
            self.stopping.wait(0.1)
        return None


class Diary(msgspec.Struct):
    """All sessions of a run; thread-safe. `lengths`: how many events one has, from and to."""

    rng: Random
    lengths: tuple[int, int] = (300, 1_500)
    pages: dict[str, Page] = msgspec.field(default_factory=dict)
    given_up: threading.Event = msgspec.field(default_factory=threading.Event)
    _lock: threading.Lock = msgspec.field(default_factory=threading.Lock)
    _at_us: int = 1_790_000_000_000_000

    def begin(self, session_id: str, name: str) -> Page:
        with self._lock:
            page = self.pages[session_id] = Page(session_id, Said(name))
        return page

    def time_us(self) -> int:
        """That events are said to be of: its own, for clocks are wrong."""
        with self._lock:
            self._at_us += 1_000
            return self._at_us

    def all(self) -> list[Page]:
        with self._lock:
            return [*self.pages.values()]

    def readable(self) -> list[Page]:
        return [page for page in self.all() if not page.purging]

    def over(self) -> list[Page]:
        """Those that have ended."""
        return [page for page in self.readable() if page.ended]

    def see_keys(self, data: Path) -> None:
        """Notes the keys of all that are there, for the search for those that should not be."""
        keys = keys_in(data)
        for page in self.readable():
            page.key = keys.get(page.session_id, page.key)

    def check(self, client: Client) -> list[str]:
        """What is wrong with sessions that are readable, and with those that no longer are."""
        return [wrong for page in self.all() for wrong in page.check(client)]

    def find_shredded(self, folders: Collection[Path]) -> list[str]:
        """Where a key or a word of what was shredded lies."""
        words = {word: page.said.name for page in self.all() if page.purged for word in _traces(page)}
        found = list[str]()
        for path in (path for folder in folders for path in files_in(folder)):
            content = _content(path)
            names = {name for word, name in words.items() if word in content}
            found += [f"{path}: something of {name}, which was purged" for name in sorted(names)]
        return found

    def forget(self, count: int) -> None:
        """All but the newest so many that are shredded, whose traces were looked for often enough."""
        with self._lock:
            purged = [key for key, page in self.pages.items() if page.purged]
            for key in purged[: max(0, len(purged) - count)]:
                del self.pages[key]


def keys_in(data: Path) -> Mapping[str, bytes]:
    """Of a node that may run: of a copy of the file. None, before its first session."""
    if not (data / SESSION_KEYS).exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / SESSION_KEYS
        shutil.copy(data / SESSION_KEYS, copy)
        return SessionKeys(copy).all()


def _traces(page: Page) -> list[bytes]:
    return [page.said.marker.encode(), *([page.key] if page.key else [])]


def files_in(folder: Path) -> list[Path]:
    """While others make some, and take some away."""
    return sorted(Path(where) / name for where, _, names in os.walk(folder) for name in names)


def _content(path: Path) -> bytes:
    """Nothing, of one that has gone or is no file."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def _recorded(record: state_pb2.Record) -> Recorded:
    frame = record.frame_id if record.HasField("frame_id") else None
    delta = record.energy_delta if record.HasField("energy_delta") else None
    return Recorded(record.number, record.timestamp_us, record.kind, frame, delta, json.loads(record.data))
