"""Sessions that leave a desk, and come into another."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from session_desk import START_US, Desk, event

from offgrid.v1 import state_pb2
from offgrid_node.protocol.state.sessions.blocks import decode

DIGEST = b"d" * 32
CHAT = {"type": "object", "properties": {"said": {"type": "string", "x-content": True}}}
HASH = "blake2b-256:" + "0" * 64


def told(desk: Desk) -> list[tuple[str, str, int]]:
    """What the journal says of sessions: outcome, by whom, of how many events."""
    events = (state_pb2.Event.FromString(raw) for _, raw in desk.store.events(0))
    return [(e.session.outcome, e.session.by, e.session.events) for e in events if e.HasField("session")]


def filled(desk: Desk, count: int = 5) -> str:
    session = desk.session()
    for place in range(count):
        desk.record(session, event(START_US + place, frame=place, uptime_s=place), sent=place)
    return session


def register(desk: Desk, kind: str, schema: Any) -> None:
    desk.ask("register_kind", state_pb2.RegisterKindRequest(kind=kind, schema=json.dumps(schema).encode()))


def exported(desk: Desk, session: str, content: bool | None = None) -> tuple[state_pb2.ExportHead, list[Any]]:
    head, *parts = desk.ask("export_session", state_pb2.ExportSessionRequest(session=session, content=content))
    following, entries = head.head.first, []
    for part in parts:
        assert part.first == following
        found = decode(part.events)
        following, entries = following + len(found), entries + found
    return head.head, entries


def coming(events: int, name: str = "run", digest: bytes = DIGEST, **more: Any) -> state_pb2.BeginImportRequest:
    origin = state_pb2.Origin(node_id="node-0", session_id="s-there", digest=digest, first=1, events=events)
    return state_pb2.BeginImportRequest(session=state_pb2.Session(name=name, origin=origin, **more))


def bring(desk: Desk, session: str, first: int, *events: list[Any]) -> int:
    request = state_pb2.ImportEventsRequest(session=session, first=first, events=msgspec.msgpack.encode(events))
    return int(desk.ask("import_events", request).recorded)


def begun(desk: Desk, events: int = 3, **more: Any) -> str:
    return str(desk.ask("begin_import", coming(events, **more)).session.session_id)


def ended(desk: Desk, session: str) -> state_pb2.Session:
    found: state_pb2.Session = desk.ask("end_import", state_pb2.EndImportRequest(session=session)).session
    return found
