"""A copy of the journal in a MariaDB or MySQL server on this machine, for those who ask by SQL. The store stays the
truth, and never waits for it: a thread of its own reads the journal, some events at a time, and writes what is new.

How far it has come stands in the database itself, in the transaction of the rows, with the digest of the event that
came last. Where the store has another event of that number, or none, it was put back from a backup: the rows of this
node go, and the copy begins anew. Rows of events that the store keeps no more stay.

The names of the tables are `offgrid_events` and `offgrid_mirror`; of several nodes that share a database each has its
rows. What sessions say is sealed in the store, and is not in here.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from google.protobuf.json_format import MessageToJson

from offgrid.event_types import type_name
from offgrid.v1 import state_pb2
from offgrid_node.config.sql_target import SqlTarget
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault, InvalidRequest
from offgrid_node.storage.store import Store

BATCH_EVENTS, BATCH_BYTES = 500, 1024 * 1024
DATA_BYTES_MAX = 1024 * 1024  # of one event as JSON; of a larger one the row says how large it is
LOOK_S = 1.0
PAUSE_S, PAUSE_S_MAX = 1.0, 60.0
CALL_S = 30
CLOSE_S = 1.0
SUBJECT_CHARS = 255
DIGEST_BYTES = 16

EVENTS_TABLE = """
CREATE TABLE IF NOT EXISTS offgrid_events (
  node VARCHAR(64) CHARACTER SET ascii NOT NULL COMMENT 'whose journal',
  seq BIGINT UNSIGNED NOT NULL COMMENT 'place in the journal',
  etype INT UNSIGNED NOT NULL,
  type VARCHAR(64) CHARACTER SET ascii NOT NULL COMMENT 'e.g. JOB_CREATED; its number where this node does not know it',
  at DATETIME(6) NOT NULL COMMENT 'UTC',
  subject VARCHAR(255) NOT NULL COMMENT 'what it is about',
  data LONGTEXT NOT NULL COMMENT 'JSON',
  PRIMARY KEY (node, seq),
  KEY by_type (etype, at),
  KEY by_time (at),
  KEY by_subject (subject, at)
) CHARACTER SET utf8mb4
"""
MIRROR_TABLE = """
CREATE TABLE IF NOT EXISTS offgrid_mirror (
  node VARCHAR(64) CHARACTER SET ascii NOT NULL PRIMARY KEY,
  seq BIGINT UNSIGNED NOT NULL COMMENT 'the newest event that is here',
  digest BINARY(16) NOT NULL COMMENT 'of that event'
)
"""
ADD = """
INSERT INTO offgrid_events (node, seq, etype, type, at, subject, data)
VALUES (%s, %s, %s, %s, TIMESTAMPADD(MICROSECOND, %s, '1970-01-01'), %s, %s)
ON DUPLICATE KEY UPDATE etype = VALUES(etype), type = VALUES(type), at = VALUES(at), subject = VALUES(subject),
  data = VALUES(data)
"""
MOVE_ON = "REPLACE INTO offgrid_mirror (node, seq, digest) VALUES (%s, %s, %s)"

_log = logging.getLogger("offgrid.sql")


class SqlMirror:
    """`store` is read beside whoever commits to it."""

    def __init__(self, store: Store, target: SqlTarget, node_id: str) -> None:
        self._store, self._target, self._node = store, target, node_id
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sql mirror", daemon=True)
        self.seq = 0  # the newest event that is known to be there
        self.trouble = ""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """What is under way may end, if the server answers; the next process begins it again where it does not."""
        self._stopping.set()
        self._thread.join(CLOSE_S)

    @property
    def notices(self) -> tuple[str, ...]:
        if not self.trouble:
            return ()
        behind = max(0, self._store.journal_seq - self.seq)
        return (f"the SQL mirror {self._target} is {behind} events behind: {self.trouble}",)

    # ---- in its thread

    def _run(self) -> None:
        pause_s = PAUSE_S
        while not self._stopping.is_set():
            try:
                for went_on in self._mirror():
                    pause_s = PAUSE_S
                    if self.trouble:
                        said = fields("sql_mirror_back", mirror=self._target)
                        _log.warning("the SQL mirror is written again", extra=said)
                        self.trouble = ""
                    if not went_on:
                        self._stopping.wait(LOOK_S)
            except Fault as fault:
                self._fails(fault.message)
            except Exception as error:  # noqa: BLE001 - whatever a database, its driver or the network says
                self._fails(f"{type(error).__name__}: {error}")
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    def _fails(self, why: str) -> None:
        if not self.trouble:
            said = fields("sql_mirror_failing", mirror=self._target, why=why)
            _log.warning("the SQL mirror is not written; said again when it is over", extra=said)
        self.trouble = why

    def _mirror(self) -> Iterator[bool]:
        """After each look whether there was anything new. Raises what a database may."""
        connection = _connect(self._target)
        try:
            with connection.cursor() as cursor:
                cursor.execute(EVENTS_TABLE)
                cursor.execute(MIRROR_TABLE)
            self.seq = self._begin(connection)
            while not self._stopping.is_set():
                events = self._next()
                if events:
                    self._write(connection, events)
                yield bool(events)
        finally:
            with suppress(Exception):  # it may be closed already, by a server that has gone
                connection.close()

    def _begin(self, connection: Any) -> int:
        """Behind which event it goes on; all of the node's rows go where they are of another history."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT seq, digest FROM offgrid_mirror WHERE node = %s", (self._node,))
            row = cursor.fetchone()
            if row is None:
                return 0
            seq, digest = int(row[0]), bytes(row[1])
            if seq <= self._store.journal_floor or self._digest_of(seq) == digest:
                return seq
            said = fields("sql_mirror_anew", mirror=self._target)
            _log.warning("the store was put back: the SQL mirror begins anew", extra=said)
            cursor.execute("DELETE FROM offgrid_events WHERE node = %s", (self._node,))
            cursor.execute("DELETE FROM offgrid_mirror WHERE node = %s", (self._node,))
            connection.commit()
            return 0

    def _digest_of(self, seq: int) -> bytes:
        found = next(self._store.events(seq - 1), None) if seq <= self._store.journal_seq else None
        return _digest(found[1]) if found is not None and found[0] == seq else b""

    def _next(self) -> list[tuple[int, bytes]]:
        found, size = list[tuple[int, bytes]](), 0
        for seq, raw in islice(self._store.events(self.seq), BATCH_EVENTS):
            found.append((seq, raw))
            size += len(raw)
            if size >= BATCH_BYTES:
                break
        return found

    def _write(self, connection: Any, events: list[tuple[int, bytes]]) -> None:
        newest, raw = events[-1]
        with connection.cursor() as cursor:
            for seq, event in events:
                cursor.execute(ADD, (self._node, seq, *_columns(event)))
            cursor.execute(MOVE_ON, (self._node, newest, _digest(raw)))
        connection.commit()
        self.seq = newest


def _digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=DIGEST_BYTES, person=b"og.sql.v1").digest()


def _columns(raw: bytes) -> tuple[int, str, int, str, str]:
    event = state_pb2.Event.FromString(raw)
    case = event.WhichOneof("data")
    data = "{}" if case is None else MessageToJson(getattr(event, case), preserving_proto_field_name=True, indent=None)
    if len(data.encode()) > DATA_BYTES_MAX:
        data = f'{{"left_out_bytes": {len(data.encode())}}}'
    return event.etype, type_name(event.etype, event.type), event.timestamp_us, event.subject[:SUBJECT_CHARS], data


def _connect(target: SqlTarget) -> Any:
    try:
        import pymysql
    except ImportError as error:
        text = "the extra `sql` is not installed: pip install 'offgrid-node[sql]'"
        raise InvalidRequest.field("state.sql_mirror", text) from error
    where: dict[str, Any] = (
        {"unix_socket": target.socket} if target.socket else {"host": target.host, "port": target.port}
    )
    return pymysql.connect(
        user=target.user,
        password=target.password,
        database=target.database,
        charset="utf8mb4",
        connect_timeout=CALL_S,
        read_timeout=CALL_S,
        write_timeout=CALL_S,
        **where,
    )
