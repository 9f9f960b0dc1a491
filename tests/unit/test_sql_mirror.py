"""The journal's copy in MariaDB: all of it, once, in a real server that comes and goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from maria import SQL, MariaDB, until

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.config.sql_target import parse_target
from offgrid_node.protocol.etypes import EventType
from offgrid_node.sql_mirror import BATCH_EVENTS, DATA_BYTES_MAX, SqlMirror
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

pytest.importorskip("pymysql")
pytestmark = SQL


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    made = MariaDB(tmp_path_factory.mktemp("sql"))
    yield made
    made.kill()


@pytest.fixture
def mirrors(server: MariaDB) -> Iterator[Callable[..., SqlMirror]]:
    made: list[SqlMirror] = []

    def mirror(store: MemoryStore, node: str) -> SqlMirror:
        made.append(SqlMirror(store, parse_target(server.url), node))
        made[-1].start()
        return made[-1]

    yield mirror
    for each in made:
        each.close()


def record(store: MemoryStore, *subjects: str, output: bytes = b"") -> None:
    for at, subject in enumerate(subjects):
        event = state_pb2.Event(
            etype=EventType.JOB_CREATED, type="JOB_CREATED", subject=subject, timestamp_us=1_790_000_000_123_456 + at
        )
        event.job.CopyFrom(jobs_pb2.Job(job_id=subject, result=jobs_pb2.JobResult(output=output)))
        store.commit(Batch([event.SerializeToString()]))


def subjects(server: MariaDB, node: str) -> list[str]:
    rows = server.query("SELECT node, subject FROM offgrid_events ORDER BY seq")
    return [subject for owner, subject in rows if owner == node]


def test_the_journal_is_there_and_goes_on(server: MariaDB, mirrors: Callable[..., SqlMirror]) -> None:
    store = MemoryStore()
    record(store, *(f"j-{at}" for at in range(BATCH_EVENTS + 3)))
    mirror = mirrors(store, "one")
    until(lambda: mirror.seq == BATCH_EVENTS + 3)
    record(store, "j-ümläut 🛰")
    until(lambda: mirror.seq == BATCH_EVENTS + 4)

    found = server.query("SELECT seq, etype, type, at, subject, data FROM offgrid_events WHERE node = 'one' LIMIT 1")
    (seq, etype, name, at, subject, data) = found[0]
    assert (seq, etype, name, subject) == (1, 14, "JOB_CREATED", "j-0")
    assert at.isoformat() == "2026-09-21T14:13:20.123456"
    assert json.loads(data)["job_id"] == "j-0"
    assert subjects(server, "one")[-2:] == [f"j-{BATCH_EVENTS + 2}", "j-ümläut 🛰"]


def test_a_process_goes_on_where_the_one_before_was_killed(server: MariaDB, mirrors: Callable[..., SqlMirror]) -> None:
    store = MemoryStore()
    record(store, "a", "b")
    first = mirrors(store, "two")
    until(lambda: first.seq == 2)
    first.close()
    server.query("DELETE FROM offgrid_events WHERE node = 'two' AND seq = 1")
    record(store, "c")

    second = mirrors(store, "two")
    until(lambda: second.seq == 3)

    assert subjects(server, "two") == ["b", "c"], "and not from the beginning"


@pytest.mark.parametrize("later", [0, 1, 5])
def test_a_store_that_was_put_back_has_its_copy_begun_anew(
    server: MariaDB, mirrors: Callable[..., SqlMirror], later: int
) -> None:
    node, store = f"three-{later}", MemoryStore()
    record(store, "a")
    old = store.copy()
    record(store, "b", "c")
    first = mirrors(store, node)
    until(lambda: first.seq == 3)
    first.close()
    other = [f"other {at}" for at in range(later)]
    record(old, *other)

    second = mirrors(old, node)
    until(lambda: second.seq == 1 + later)

    assert subjects(server, node) == ["a", *other]


def test_what_the_store_keeps_no_more_stays(server: MariaDB, mirrors: Callable[..., SqlMirror]) -> None:
    store = MemoryStore()
    record(store, "a", "b")
    first = mirrors(store, "four")
    until(lambda: first.seq == 2)
    first.close()
    record(store, "c", "d")
    store.commit(Batch(floor=3))

    second = mirrors(store, "four")
    until(lambda: second.seq == 4)

    assert subjects(server, "four") == ["a", "b", "d"]


def test_a_type_that_a_newer_node_wrote_is_there_by_its_number(
    server: MariaDB, mirrors: Callable[..., SqlMirror]
) -> None:
    store = MemoryStore()
    later = state_pb2.Event(etype=99, type="ñ" * 70, subject="later")
    store.commit(Batch([later.SerializeToString() + b"\x9a\x06\x05later"]))
    mirror = mirrors(store, "seven")
    until(lambda: mirror.seq == 1)
    assert server.query("SELECT etype, type, subject, data FROM offgrid_events WHERE node = 'seven'") == [
        (99, "99", "later", "{}")
    ]


def test_an_event_that_is_too_large_says_how_large(server: MariaDB, mirrors: Callable[..., SqlMirror]) -> None:
    store = MemoryStore()
    record(store, "big", output=bytes(DATA_BYTES_MAX))
    mirror = mirrors(store, "five")
    until(lambda: mirror.seq == 1)
    (row,) = server.query("SELECT data FROM offgrid_events WHERE node = 'five'")
    assert json.loads(row[0])["left_out_bytes"] > DATA_BYTES_MAX


def test_a_server_that_is_killed_is_told_of_and_caught_up_with(
    server: MariaDB, mirrors: Callable[..., SqlMirror]
) -> None:
    store = MemoryStore()
    record(store, "a")
    mirror = mirrors(store, "six")
    until(lambda: mirror.seq == 1)
    server.kill()
    record(store, "b")
    until(lambda: bool(mirror.trouble))
    assert f"the SQL mirror offgrid at {server.socket} is 1 events behind: " in mirror.notices[0]

    server.start()

    until(lambda: mirror.seq == 2)
    assert mirror.notices == ()
    assert subjects(server, "six") == ["a", "b"]
