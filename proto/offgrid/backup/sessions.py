"""Sessions in a backup, read by their keys, without the node that wrote it: each as an export of it (offgrid.exports).

So a session comes into a running node by the road that every other takes: checked event by event, whole or not at all,
and as one of that node's own, which says where it comes from.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, BinaryIO

import msgspec

from offgrid.backup import BackupDamaged
from offgrid.backup.container import BackupReader
from offgrid.exports.document import FORMAT, BasePart, Head, SessionPart
from offgrid.exports.writing import ExportWriter
from offgrid.kinds import KNOWN
from offgrid.reducers import Recorded
from offgrid.v1 import state_pb2

SESSIONS, BLOCKS, KINDS = "sessions", "session_blocks", "session_kinds"  # tables of the node's
SNAPSHOTS = "session_snapshots"
ID_CHARS, NUMBER_BYTES, NONCE_BYTES = 26, 8, 24

Entries = list[tuple[int, str, int | None, float | None, bytes]]


@dataclass(frozen=True, slots=True)
class Kept:
    """The sessions of a backup by their ids, and the schemas of the kinds that its node had learnt."""

    node_id: str
    sessions: Mapping[str, state_pb2.Session]
    kinds: Mapping[str, Any]


def kept_in(reader: BackupReader) -> Kept:
    """Of a backup that was checked. Raises BackupDamaged."""
    sessions, kinds = dict[str, state_pb2.Session](), dict[str, Any]()
    for segment in reader.segments():
        for table in segment.tables:
            if table.name == SESSIONS:
                for row in table.rows:
                    session = state_pb2.SessionRow.FromString(row.value).session
                    sessions[session.session_id] = session
            elif table.name == KINDS:
                for row in table.rows:
                    kind = state_pb2.Kind.FromString(row.value)
                    kinds[kind.kind] = json.loads(kind.schema)
    return Kept(reader.manifest.node_id, sessions, kinds)


def exports(
    reader: BackupReader, kept: Kept, keys: Mapping[str, bytes], wanted: Collection[str]
) -> Iterator[tuple[str, Iterator[Recorded]]]:
    """The events of each wanted session that has any, session after session: each is to be read before the next. Raises
    BackupDamaged where they are not all there, or do not open."""
    blocks = (
        (row.key[:ID_CHARS].decode("ascii", "replace"), row.value)
        for segment in reader.segments()
        for table in segment.tables
        if table.name == BLOCKS
        for row in table.rows
    )
    for session_id, rows in groupby(blocks, itemgetter(0)):
        if session_id in wanted:
            yield session_id, _events(kept.sessions[session_id], keys[session_id], (value for _, value in rows))


def bases(
    reader: BackupReader, kept: Kept, keys: Mapping[str, bytes], wanted: Collection[str]
) -> dict[str, list[BasePart]]:
    """Of each wanted session whose first events were kept no more, what they came to: by each reducer the oldest
    snapshot that opens, for which JSON has words, and behind which all events are kept. In memory: a state has 1 MiB at
    most."""
    gone = {each: kept.sessions[each].recorded - kept.sessions[each].kept for each in wanted}
    trimmed = {each for each, count in gone.items() if count}
    found = dict[str, dict[str, BasePart]]()
    for segment in reader.segments() if trimmed else ():
        for row in (row for table in segment.tables if table.name == SNAPSHOTS for row in table.rows):
            session_id = row.key[:ID_CHARS].decode("ascii", "replace")
            reducer = row.key[ID_CHARS : -NUMBER_BYTES - 1].decode("utf-8", "replace")
            if session_id in trimmed and reducer not in found.setdefault(session_id, {}):
                base = _base(session_id, keys[session_id], reducer, row)
                if base is not None and base.number >= gone[session_id]:
                    found[session_id][reducer] = base
    return {session_id: [*by_reducer.values()] for session_id, by_reducer in found.items()}


def _base(session_id: str, key: bytes, reducer: str, row: state_pb2.SegmentWrite) -> BasePart | None:
    number, snapshot = int.from_bytes(row.key[-NUMBER_BYTES:], "big"), state_pb2.SnapshotRow.FromString(row.value)
    try:
        packed = _unsealed(session_id, key, f"snapshot {reducer} {snapshot.version} {number}", snapshot.sealed)
        state = msgspec.msgpack.decode(packed)
        if msgspec.json.decode(msgspec.json.encode(state)) != state:
            return None
    except (CannotOpen, ValueError, TypeError):
        return None  # a later one may do
    return BasePart(reducer, snapshot.version, number, state)


def write_export(
    file: BinaryIO, kept: Kept, session_id: str, events: Iterator[Recorded], bases: Sequence[BasePart] = ()
) -> None:
    """In the form of JSON lines. Raises what reading the events does."""
    session = kept.sessions[session_id]
    part = SessionPart(
        session_id,
        session.name,
        session.started_us,
        session.ended_us,
        dict(sorted(session.dropped.items())),
        session.lost,
    )
    kinds = {kind: kept.kinds[kind] for kind in sorted(session.kinds) if kind not in KNOWN and kind in kept.kinds}
    first = session.recorded - session.kept + 1
    head = Head(FORMAT, kept.node_id, part, "recorded", first, session.kept, kinds, [*bases])
    writer = ExportWriter(file, "json", head)
    for event in events:
        writer.add(event)
    writer.end()


def _events(session: state_pb2.Session, key: bytes, rows: Iterator[bytes]) -> Iterator[Recorded]:
    following = session.recorded - session.kept + 1
    for row in rows:
        block = state_pb2.BlockRow.FromString(row)
        entries = _opened(session.session_id, key, block)
        if block.first != following or len(entries) != block.count:
            text = f"session {session.session_id}: the block at event {block.first} has {len(entries)} events, and "
            raise BackupDamaged(f"{text}is to begin at {following}")
        for at_us, kind, frame_id, energy_delta, data in entries:
            yield Recorded(following, at_us, kind, frame_id, energy_delta, msgspec.json.decode(data))
            following += 1
    if following != session.recorded + 1:
        text = f"session {session.session_id}: events {following} to {session.recorded} are missing"
        raise BackupDamaged(text)


def _opened(session_id: str, key: bytes, block: state_pb2.BlockRow) -> Entries:
    try:
        return msgspec.msgpack.decode(_unsealed(session_id, key, "block", block.sealed), type=Entries)
    except (CannotOpen, ValueError, TypeError) as error:
        text = f"session {session_id}: the block at event {block.first} does not open: {error}"
        raise BackupDamaged(text) from error


class CannotOpen(Exception):
    """It was not sealed so, by that key."""


def _unsealed(session_id: str, key: bytes, what: str, sealed: bytes) -> bytes:
    """As the node seals it: protocol/state/sessions/blocks.py, services/sessions/folding.py, keys/blocks.py there."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
    from nacl.exceptions import CryptoError

    bound = f"og.session.v1 {session_id} {what}".encode()
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed[NONCE_BYTES:], bound, sealed[:NONCE_BYTES], key)
    except (CryptoError, ValueError, TypeError) as error:
        raise CannotOpen(str(error)) from error
