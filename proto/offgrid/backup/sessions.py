"""Sessions in a backup, read by their keys, without the node that wrote it: each as an export of it (offgrid.exports).

So a session comes into a running node by the road that every other takes: checked event by event, whole or not at all,
and as one of that node's own, which says where it comes from.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, BinaryIO

import msgspec

from offgrid.backup import BackupDamaged
from offgrid.backup.container import BackupReader
from offgrid.exports.document import FORMAT, Head, SessionPart
from offgrid.exports.writing import ExportWriter
from offgrid.kinds import KNOWN
from offgrid.reducers import Recorded
from offgrid.v1 import state_pb2

SESSIONS, BLOCKS, KINDS = "sessions", "session_blocks", "session_kinds"  # tables of the node's
ID_CHARS, NONCE_BYTES = 26, 24

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


def write_export(file: BinaryIO, kept: Kept, session_id: str, events: Iterator[Recorded]) -> None:
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
    writer = ExportWriter(file, "json", Head(FORMAT, kept.node_id, part, "recorded", first, session.kept, kinds))
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
    """As the node seals them: protocol/state/sessions/blocks.py and keys/blocks.py there."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
    from nacl.exceptions import CryptoError

    nonce, sealed = block.sealed[:NONCE_BYTES], block.sealed[NONCE_BYTES:]
    bound = f"og.session.v1 {session_id} block".encode()
    try:
        return msgspec.msgpack.decode(
            crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, bound, nonce, key), type=Entries
        )
    except (CryptoError, ValueError, TypeError) as error:
        text = f"session {session_id}: the block at event {block.first} does not open: {error}"
        raise BackupDamaged(text) from error
