"""The journal's copy in MariaDB: all of it, once, in a real server that comes and goes. Needs `mariadbd` (Debian:
mariadb-server-core) and is skipped without."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.etypes import EventType
from offgrid_node.sql_mirror import BATCH_EVENTS, DATA_BYTES_MAX, SqlMirror, Target
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

pymysql: Any = pytest.importorskip("pymysql")
DAEMON, INSTALL = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
PATIENCE_S = 60
SMALL = ("--innodb-use-native-aio=0", "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=4M")
pytestmark = [
    pytest.mark.xdist_group("sql"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets of the driver's
]


class Server:
    """MariaDB in a folder of its own, asked over a socket, as whoever runs this."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.socket = home / "s"
        self._run_install()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.query("CREATE DATABASE offgrid", database=None)

    def _run_install(self) -> None:
        """A machine on which it makes no database, say for want of what the kernel gives to all of them, is none for
        these tests."""
        how = ["--no-defaults", f"--datadir={self._home / 'data'}", "--auth-root-authentication-method=normal", *SMALL]
        done = subprocess.run([str(INSTALL), *how], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if done.returncode:
            pytest.skip(f"mariadb-install-db ends with {done.returncode}: {(done.stdout + done.stderr)[-500:]}")

    def start(self) -> None:
        assert DAEMON is not None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [
                DAEMON,
                "--no-defaults",
                f"--datadir={self._home / 'data'}",
                f"--socket={self.socket}",
                f"--pid-file={self._home / 'pid'}",
                "--bind-address=127.0.0.1",
                f"--port={self.port}",
                "--user=root",
                *SMALL,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: self.query("SELECT 1", database=None) == [(1,)])

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def query(self, text: str, database: str | None = "offgrid") -> list[tuple[Any, ...]]:
        try:
            connection = pymysql.connect(unix_socket=str(self.socket), user="root", database=database, autocommit=True)
        except pymysql.err.OperationalError:
            return []
        with connection, connection.cursor() as cursor:
            cursor.execute(text)
            return [*cursor.fetchall()]

    @property
    def target(self) -> Target:
        return Target.parse(f"mysql://root@localhost/offgrid?unix_socket={self.socket}")


def until(is_so: Callable[[], bool]) -> None:
    """However long it takes on this machine."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if DAEMON is None or INSTALL is None:
        pytest.skip("no MariaDB server on this machine")
    made = Server(tmp_path_factory.mktemp("sql"))
    yield made
    made.kill()


@pytest.fixture
def mirrors(server: Server) -> Iterator[Callable[..., SqlMirror]]:
    made: list[SqlMirror] = []

    def mirror(store: MemoryStore, node: str) -> SqlMirror:
        made.append(SqlMirror(store, server.target, node))
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


def subjects(server: Server, node: str) -> list[str]:
    rows = server.query("SELECT node, subject FROM offgrid_events ORDER BY seq")
    return [subject for owner, subject in rows if owner == node]


def test_the_journal_is_there_and_goes_on(server: Server, mirrors: Callable[..., SqlMirror]) -> None:
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


def test_a_process_goes_on_where_the_one_before_was_killed(server: Server, mirrors: Callable[..., SqlMirror]) -> None:
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
    server: Server, mirrors: Callable[..., SqlMirror], later: int
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


def test_what_the_store_keeps_no_more_stays(server: Server, mirrors: Callable[..., SqlMirror]) -> None:
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


def test_an_event_that_is_too_large_says_how_large(server: Server, mirrors: Callable[..., SqlMirror]) -> None:
    store = MemoryStore()
    record(store, "big", output=bytes(DATA_BYTES_MAX))
    mirror = mirrors(store, "five")
    until(lambda: mirror.seq == 1)
    (row,) = server.query("SELECT data FROM offgrid_events WHERE node = 'five'")
    assert json.loads(row[0])["left_out_bytes"] > DATA_BYTES_MAX


def test_a_server_that_is_killed_is_told_of_and_caught_up_with(
    server: Server, mirrors: Callable[..., SqlMirror]
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


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("postgres://u@127.0.0.1/db", "no such form"),
        ("mysql://127.0.0.1/db", "no such form"),
        ("mysql://u:hush@127.0.0.1", "no such form"),
        ("mysql://u:hush@10.0.0.7/db", "is not this machine"),
        ("mysql://u:hush@127.0.0.1:99999/db", "its port"),
        ("mysql://u:hush@127.0.0.1/db?ssl=1", "unknown options: ssl"),
    ],
)
def test_a_target_that_is_none_is_refused_without_its_password(url: str, wrong: str) -> None:
    with pytest.raises(InvalidRequest, match=wrong) as caught:
        Target.parse(url)
    assert "hush" not in str(caught.value)


def test_a_target_is_shown_without_its_password() -> None:
    target = Target.parse("mysql://u:h%40sh@localhost:3307/journal")
    assert (target.password, target.port, str(target)) == ("h@sh", 3307, "journal at localhost:3307")
