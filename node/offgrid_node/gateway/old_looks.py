"""The prototype's paths to look on: /memory/query, /status and /announce (docs/http.md)."""

from __future__ import annotations

import asyncio
import json

from starlette.requests import Request

from offgrid.event_types import EventType
from offgrid.v1 import common_pb2, jobs_pb2, mesh_pb2, state_pb2
from offgrid_node.config.problems import nearest
from offgrid_node.gateway.calling import call
from offgrid_node.gateway.node_view import NodeView
from offgrid_node.gateway.old_bodies import Query
from offgrid_node.gateway.old_shapes import Document, etypes_of, event_document, host_document, record_document
from offgrid_node.gateway.old_work import LIMIT, LIMIT_MAX, page_document
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.events import HOST
from offgrid_node.services.access import ROLE_NAMES

PAGES_MAX = 64  # of the journal, looked through for one answer: a quarter of a million events
RECORDS = frozenset({"30", "session_changed"})  # what a session's events may be asked for by, as by nothing


class OldLooks:
    """One method per path."""

    def __init__(self, view: NodeView) -> None:
        self._view = view

    async def query(self, request: Request) -> Document:
        """Events, the oldest first unless `order` is newest: of the journal, or of one application's session."""
        query = Query(request)
        if session := query.text("session"):
            return await self._records(query, session)
        try:
            etypes = etypes_of(query.words("etype", "type"))
        except ValueError as error:
            raise InvalidRequest.field("etype", _no_type(str(error))) from None
        message = state_pb2.ListEventsRequest(
            etypes=etypes,
            since_us=query.time_us("since_ts"),
            until_us=query.time_us("until_ts"),
            subject=query.text("subject"),
            newest_first=query.newest_first,
            page_token=query.page_token,
        )
        limit, events = query.limit(LIMIT, LIMIT_MAX), list[Document]()
        for _ in range(PAGES_MAX):
            message.page_size = limit - len(events)
            page = await call(
                self._view.router, "offgrid.v1.StateService/ListEvents", message, state_pb2.ListEventsResponse
            )
            events += map(event_document, page.events)
            message.page_token = page.next_page_token
            if len(events) >= limit or not page.next_page_token:
                break
            await asyncio.sleep(0)  # others have their turn
        return page_document("events", events, message.page_token)

    async def _records(self, query: Query, session: str) -> Document:
        words = query.words("etype", "type")
        kinds = [word for word in words if word.lower() not in RECORDS]
        message = state_pb2.ListRecordsRequest(
            session=session,
            kinds=kinds,
            since_us=query.time_us("since_ts"),
            until_us=query.time_us("until_ts"),
            page_size=query.limit(LIMIT, LIMIT_MAX),
            page_token=query.page_token,
            newest_first=query.newest_first,
        )
        page = await call(
            self._view.router, "offgrid.v1.SessionService/ListRecords", message, state_pb2.ListRecordsResponse
        )
        records = (record_document(session, record, json.loads(record.data)) for record in page.records)
        return page_document("events", records, page.next_page_token)

    async def status(self, request: Request) -> Document:
        found = await call(
            self._view.router,
            "offgrid.v1.MeshService/GetStatus",
            mesh_pb2.GetStatusRequest(),
            mesh_pb2.GetStatusResponse,
        )
        document: Document = {
            "ok": not found.removed,
            "status": "ok",
            "node_id": found.node_id,
            "name": found.name,
            "mesh": found.mesh,
            "roles": [common_pb2.Role.Name(role).removeprefix("ROLE_").lower() for role in found.roles],
            "mode": self._view.config.jobs.mode,
            "version": found.version,
            "uptime_s": found.uptime_ms / 1_000,
            "peers": {"alive": found.peers_alive, "total": found.peers_total},
            "jobs": {"open": found.jobs_open},
            "slots": {"total": found.slots_total, "busy": found.slots_busy},
            "notices": list(found.notices),
        }
        if HOST in found.roles:
            host = await self._host()
            document |= {"enabled": host.state == "on", "state": host.state}
        return document

    async def announce(self, request: Request) -> Document:
        about = self._view.about()
        roles = self._view.own_roles()
        url = self._view.url()
        document: Document = {
            "node_id": about.node_id,
            "name": about.name,
            "version": about.version,
            "roles": [name for role, name in sorted(ROLE_NAMES.items()) if role in roles],
            "url": url,
            "host": url,
            "grpc": next(iter(about.addresses), None),
            "addresses": list(about.addresses),
        }
        return document | (host_document(await self._host()) if HOST in roles else {"enabled": False, "state": "off"})

    async def _host(self) -> jobs_pb2.HostState:
        request = jobs_pb2.GetHostRequest()
        answer = await call(self._view.router, "offgrid.v1.HostService/GetHost", request, jobs_pb2.GetHostResponse)
        return answer.host


def _no_type(word: str) -> str:
    guess = nearest(word[:64].upper(), EventType.__members__)
    meant = f"did you mean {guess}? " if guess else ""
    return f"{word[:64]!r} is no type of events; {meant}/docs/reference/events lists them"
