"""What the store of sessions is measured beside: py-lmdb alone, and the event-sourcing library of the Python world."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

import lmdb

from offgrid_tools.bench.peers import lacking
from offgrid_tools.bench.state_events import BATCH, entry, samples
from offgrid_tools.bench.state_ours import KEPT_BLOCKS, STORE_BYTES_MAX

SEQ_KEY = struct.Struct(">Q")
TYPE_KEY = struct.Struct(">BQ")
KINDS = {"energy.update": 1, "health.heartbeat": 2, "pattern.interference": 3}


class RawLmdb:
    """The binding alone with its default flags, as someone would write it who wants events and an index by type."""

    def __init__(self, folder: Path) -> None:
        self._env = lmdb.open(str(folder), map_size=STORE_BYTES_MAX, max_dbs=2)
        self._events = self._env.open_db(b"events")
        self._by_type = self._env.open_db(b"by_type")
        made = [entry(number) for number in range(KEPT_BLOCKS * BATCH)]
        self._made = [(KINDS[each.kind], SEQ_KEY.pack(each.timestamp_us) + each.data) for each in made]
        self._seq = 0

    def append(self, count: int) -> None:
        """`count` events in one transaction, fsynced."""
        with self._env.begin(write=True) as txn:
            for _ in range(count):
                kind, event = self._made[self._seq % len(self._made)]
                self._seq += 1
                txn.put(SEQ_KEY.pack(self._seq), event, db=self._events, append=True)
                txn.put(TYPE_KEY.pack(kind, self._seq), b"", db=self._by_type)

    def close(self) -> None:
        self._env.close()


class EventSourcing:
    """`eventsourcing` as its tutorial has it, on SQLite: one aggregate, whose events are saved a batch at a time.

    SQLite is left as it comes: a write-ahead log, and an fsync for each transaction (synchronous=FULL)."""

    name = "eventsourcing"

    @staticmethod
    def missing() -> str:
        return lacking(["eventsourcing"])

    def __init__(self, folder: Path) -> None:
        from eventsourcing.application import Application

        folder.mkdir()
        settings = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(folder / "events.db")}
        self._app: Any = Application(env=settings)
        self._recorded, aggregate = _classes()
        self._run = aggregate()
        self._samples = samples()

    def append(self, count: int) -> None:
        """`count` events, as one `Application.save`."""
        for each, _ in zip(self._samples, range(count), strict=False):
            self._run.trigger_event(self._recorded, **each._asdict())
        self._app.save(self._run)

    def replay(self) -> int:
        """The aggregate from its first event on; how many there were."""
        found: Any = self._app.repository.get(self._run.id)
        return int(found.version)

    def close(self) -> None:
        self._app.close()


@cache
def _classes() -> tuple[Any, Any]:
    """They are made where the library is there, and once: events name their class by its place in the module."""
    from eventsourcing.domain import Aggregate

    class Run(Aggregate):  # type: ignore[misc,unused-ignore] # of no known type
        """Comes to what the reducer `session` comes to."""

        def __init__(self) -> None:
            self.events, self.energy = 0, 0.0
            self.kinds: dict[str, int] = {}
            self.frame_state: dict[str, Any] = {}

        class Recorded(Aggregate.Event):  # type: ignore[misc,name-defined,unused-ignore]
            kind: str
            data: dict[str, Any]
            frame: int
            energy_delta: float

            def apply(self, aggregate: Any) -> None:
                aggregate.events += 1
                aggregate.kinds[self.kind] = aggregate.kinds.get(self.kind, 0) + 1
                aggregate.energy += self.energy_delta
                aggregate.frame_state["frame_id"] = self.frame
                if self.kind == "energy.update":
                    aggregate.frame_state["fps"] = self.data["fps"]

    return Run.Recorded, Run
