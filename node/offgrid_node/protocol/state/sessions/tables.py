"""The rows of sessions."""

from __future__ import annotations

import re

from offgrid_node.protocol.ids import time_of_id
from offgrid_node.protocol.state.tables import NUMBER_BYTES, number_key

SESSIONS = "sessions"  # session id → SessionRow; ids sort by the time of their making
OPEN_SESSIONS = "sessions_open"  # id of a session that has not ended → nothing
PINNED = "sessions_pinned"  # id of a session that is pinned → nothing
NAMES = "session_names"  # name → id of the newest session of that name
BLOCKS = "session_blocks"  # session id + number of its first event (8 bytes, big-endian) → BlockRow
SNAPSHOTS = "session_snapshots"  # session id + reducer's name + 0 + number (8 bytes, big-endian) → SnapshotRow
PURGING = "sessions_purging"  # id of a session whose key is to go → nothing; KEY_GONE: only its rows are left

KEY_GONE = b"\1"
PASSED = "sessions_passed"  # session id → number (8 bytes, big-endian): its blocks up to that one were to go
RETENTION, RETENTION_KEY = "retention", b"dropped"  # one row → RetentionRow
IMPORTS = "session_imports"  # digest of an export → id of the session that it became, or is becoming
KINDS = "session_kinds"  # name → Kind

ID_PREFIX = "s"
ID_CHARS = 26
SESSION_ID = re.compile(r"s-[a-z2-7]{24}\Z")


def snapshots_of(session_id: str, reducer: str) -> bytes:
    """What all keys of that reducer's begin with."""
    return f"{session_id}{reducer}\0".encode()


def reducer_of(key: bytes) -> str:
    """Of a snapshot."""
    return key[ID_CHARS : -NUMBER_BYTES - 1].decode()


def block_key(session_id: str, first: int) -> bytes:
    return session_id.encode() + number_key(first)


def time_of(session_id: str) -> int:
    """When it was made by the clock of then, in milliseconds; 0 for what is no id (ids.py)."""
    return time_of_id(session_id) if SESSION_ID.match(session_id) else 0
