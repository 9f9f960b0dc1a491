"""`/v1/feed`: what happens at a node, as it happens, over a WebSocket (RFC 6455). One JSON object per text frame:

    {"type": "state.sync", "number": N, "cursor": C, "timestamp": …, PARTS}     first, unless it is taken up again
    {"type": "state.resumed", "number": N, "cursor": C, "timestamp": …}         first, with ?after=C: what follows C
    {"type": "event", "number": N, "cursor": C, "timestamp": …,                 one of the journal's
     "etype": 14, "name": "JOB_CREATED", "subject": …, "data": {…}}
    {"type": "change", "timestamp": …, SOME PARTS, "gone": {…}}     what became otherwise, whatever events said of it
    {"type": "heartbeat", "number": N, "cursor": C, "timestamp": …}             after HEARTBEAT_S without another word
    {"type": "error", "error": {"code", "status", "message", "details"}}        last, then the close

PARTS (`picture.py`) are `status`, `host`, `peers`, `links`, `jobs` and `transactions`; in a change `status` has the
fields that changed, lists the entries that are new or changed, "gone" the ids of those that went, by list. The first
change of a feed that was taken up again has all parts. `number` is the journal's; `timestamp` UTC with microseconds.
Roads are measured all the time: ask GET /v1/roads.

Reconnect with ?after=C, C the last `cursor` that was seen: it names the event, not its number alone. Where the journal
does not reach back so far, is another node's, or had another event of that number before the node was put back from a
backup, a `state.sync` comes instead, and what was before it counts no more. A number is taken in its place, and not
compared. ?etypes=14,15 asks for these events alone.

With ?session=NAME it is the session of an application instead (mission E7): `state.sync` has `session`, `reducer` and
`state`, events have `name` (the kind), `frame_id`, `energy_delta` and `data`, numbers are the session's; &reducer= and
&kinds=a,b as WatchSession has them. It ends (close 1000) when the session does.

Closes: 1000 the session ended; 1003 the client has said something, which a feed has no use for; 1008 refused, or
signed out, see the error; 1012 the node stops: reconnect; 1013 the reader was too slow, or too many feeds are open:
reconnect later.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from offgrid.event_types import type_name
from offgrid.json_form import json_of
from offgrid.v1 import state_pb2
from offgrid_node.config.problems import nearest
from offgrid_node.gateway.calling import call, stream
from offgrid_node.gateway.faults import Refusal, error_of
from offgrid_node.gateway.looking import Looking
from offgrid_node.gateway.node_view import NodeView
from offgrid_node.gateway.picture import Picture, changes, whole
from offgrid_node.gateway.signed_out import signed_out
from offgrid_node.gateway.times import utc
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, Fault, InvalidRequest
from offgrid_node.services.stream import Stream

FEED_PATH = "/v1/feed"
FEEDS_MAX = 32
HEARTBEAT_S = 15.0
TURN = 4  # messages before others have theirs, and before it is heard of that the connection is lost
MARK = ":"  # in a cursor, between the number and that by which it is known to be of the same journal

OF_NODE, OF_SESSION = ("after", "etypes"), ("session", "after", "reducer", "kinds")
"""What a feed may be asked for."""

ENDED, UNWANTED, REFUSED, STOPPING, LATER = 1000, 1003, 1008, 1012, 1013

SOCKET_ONLY = Refusal(
    HTTPStatus.UPGRADE_REQUIRED,
    "WebSocketOnly",
    "the feed is a WebSocket: ws:// in place of http://. Events over plain HTTP: GET /v1/events:watch",
    (("Upgrade", "websocket"), ("Connection", "Upgrade")),
)

Said = dict[str, Any]


def feed_routes(view: NodeView) -> list[BaseRoute]:
    """One route, and the looks that its readers share."""
    looking, open_feeds = Looking(view.router, view.runtime), set[WebSocket]()

    async def answer(socket: WebSocket) -> None:
        await socket.accept()
        open_feeds.add(socket)
        try:
            if len(open_feeds) > FEEDS_MAX:
                raise Exhausted(f"{FEEDS_MAX} feeds are open here", reason="TooManyFeeds", retry_ms=1_000)
            of_session = "session" in socket.query_params
            _check_names(socket.query_params, OF_SESSION if of_session else OF_NODE)
            feed = _SessionFeed(view, socket) if of_session else _NodeFeed(view, socket, looking)
            await feed.run()
        except Fault as fault:
            await _say(socket, {"type": "error", "error": error_of(fault)})
            await _close(socket, LATER if isinstance(fault, Exhausted) else REFUSED)
        except WebSocketDisconnect:
            pass
        finally:
            open_feeds.discard(socket)

    return [WebSocketRoute(FEED_PATH, answer), Route(FEED_PATH, _only_sockets, methods=["GET"])]


async def _only_sockets(request: Request) -> Response:
    return SOCKET_ONLY.response


class _Feed:
    """One reader: what there is to say goes out in turn; what is to come is bounded by the streams behind it."""

    def __init__(self, view: NodeView, socket: WebSocket) -> None:
        self._view, self._socket = view, socket
        self._ready = asyncio.Event()
        self._closing: list[Callable[[], None]] = []
        self._at: Said = {}

    async def run(self) -> None:
        """Until either side ends it. Raises the Fault that is to be told."""
        tell = asyncio.create_task(self._tell())
        listen = asyncio.create_task(self._listen())
        stop = asyncio.create_task(self._view.stopping.wait())
        leave = asyncio.create_task(signed_out(self._socket.scope))
        ends: list[asyncio.Task[Any]] = [tell, listen, stop, leave]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if tell in done:
                tell.result()
                await _close(self._socket, ENDED)
            elif listen in done:
                if listen.result():
                    await _close(self._socket, UNWANTED)
            elif stop in done:
                await _close(self._socket, STOPPING)
            else:
                raise leave.result()
        finally:
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            for close in self._closing:
                close()

    async def _tell(self) -> None:
        """Says everything, in its order; returns when there is no more to come."""
        raise NotImplementedError

    async def _listen(self) -> bool:
        """Whether the client has said something; otherwise it has gone."""
        said = await self._socket.receive()
        return bool(said["type"] == "websocket.receive")

    async def _say(self, said: Said) -> None:
        if "cursor" in said:
            self._at = {"number": said["number"], "cursor": said["cursor"]}
        await self._socket.send_text(json.dumps(said, ensure_ascii=False, separators=(",", ":")))

    def _open(self, method: str, request: Message) -> Stream:
        opened = stream(self._view.router, method, request)
        self._closing.append(opened.cancel)
        opened.when_ready(self._ready.set)
        return opened

    async def _say_next(self, opened: Stream, form: Callable[[Message], Said]) -> bool:
        """What the stream has now; False when it is at its end. Raises the Fault that it ended with."""
        self._ready.clear()
        for count, message in enumerate(opened.take(), 1):
            await self._say(form(message))
            if not count % TURN:
                await asyncio.sleep(0)
        if opened.ended and opened.fault is not None:
            raise opened.fault
        return not opened.ended

    async def _wait(self) -> None:
        """For something to say, or long enough for a heartbeat."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._ready.wait()
        except TimeoutError:
            await self._say({"type": "heartbeat", **self._at, "timestamp": self._now()})

    def _now(self) -> str:
        return utc(self._view.runtime.clock.now().utc_us)

    def _asked(self, name: str) -> list[str]:
        return [part for part in self._socket.query_params.get(name, "").split(",") if part]

    def _asked_after(self) -> tuple[int, str] | None:
        """The number, and what else its cursor says; "" where it is a number alone."""
        text = self._socket.query_params.get("after")
        number, _, mark = (text or "").partition(MARK)
        return None if text is None else (_number("after", number, "no cursor as the feed's messages have it"), mark)


class _NodeFeed(_Feed):
    """The node's journal, and what changes beside it."""

    def __init__(self, view: NodeView, socket: WebSocket, looking: Looking) -> None:
        super().__init__(view, socket)
        self._looking = looking
        self._seen: Picture | None = None

    async def _tell(self) -> None:
        etypes = [_number("etypes", text) for text in self._asked("etypes")]
        events = self._taken_up(etypes)
        if events is None:
            self._seen = await self._looking.fresh()
            sync = {"type": "state.sync", **self._place(self._seen.seq), "timestamp": self._now()}
            await self._say(sync | whole(self._seen))
            events = self._open(
                "offgrid.v1.StateService/WatchEvents",
                state_pb2.WatchEventsRequest(after_seq=self._seen.seq, etypes=etypes),
            )
        else:
            await self._say({"type": "state.resumed", **self._at, "timestamp": self._now()})
        self._closing.append(self._looking.add(self._ready.set))
        while await self._say_next(events, _event):
            await self._say_changes()
            await self._wait()

    def _taken_up(self, etypes: list[int]) -> Stream | None:
        """The events behind ?after; None where a sync has to come first."""
        after, mark = self._asked_after() or (0, "")
        place = self._place(after)
        if not after or (mark and place["cursor"] != f"{after}{MARK}{mark}"):
            return None
        request = state_pb2.WatchEventsRequest(after_seq=after, etypes=etypes)
        try:
            events = self._open("offgrid.v1.StateService/WatchEvents", request)
        except FailedPrecondition:  # JournalBehind, EventsGone
            return None
        self._at = place
        return events

    def _place(self, number: int) -> Said:
        """An event by its number, and by the time at which it happened; of one that is not there that is 0."""
        found = next(self._view.runtime.store.events(number - 1), None) if number else None
        timestamp_us = state_pb2.Event.FromString(found[1]).timestamp_us if found and found[0] == number else 0
        return {"number": number, "cursor": _cursor(number, timestamp_us)}

    async def _say_changes(self) -> None:
        now = self._looking.now
        if now is self._seen or now.status is None:
            return
        changed = whole(now) if self._seen is None else changes(self._seen, now)
        self._seen = now
        if changed:
            await self._say({"type": "change", "timestamp": self._now()} | changed)


class _SessionFeed(_Feed):
    """A session of an application."""

    async def _tell(self) -> None:
        after = self._asked_after()
        asked = state_pb2.GetSessionRequest(session=self._socket.query_params["session"])
        found = await call(
            self._view.router, "offgrid.v1.SessionService/GetSession", asked, state_pb2.GetSessionResponse
        )
        self._id = found.session.session_id
        request = state_pb2.WatchSessionRequest(
            session=self._id,
            kinds=self._asked("kinds"),
            reducer=self._socket.query_params.get("reducer", ""),
        )
        if after is not None and (not after[1] or (after[1] == self._id and after[0] <= found.session.recorded)):
            request.after = after[0]
            await self._say({"type": "state.resumed", **self._place(after[0]), "timestamp": self._now()})
        records = self._open("offgrid.v1.SessionService/WatchSession", request)
        while await self._say_next(records, self._record):
            await self._wait()

    def _place(self, number: int) -> Said:
        return {"number": number, "cursor": _cursor(number, self._id)}

    def _record(self, message: Message) -> Said:
        assert isinstance(message, state_pb2.WatchSessionResponse)
        if message.HasField("sync"):
            sync = message.sync
            return {
                "type": "state.sync",
                **self._place(sync.number),
                "timestamp": self._now(),
                "session": json_of(sync.session),
                "reducer": sync.reducer,
                "state": json.loads(sync.state or b"null"),
            }
        record = message.record
        return {
            "type": "event",
            **self._place(record.number),
            "timestamp": utc(record.timestamp_us),
            "name": record.kind,
            "frame_id": record.frame_id if record.HasField("frame_id") else None,
            "energy_delta": record.energy_delta if record.HasField("energy_delta") else None,
            "data": json.loads(record.data or b"null"),
        }


def _event(message: Message) -> Said:
    assert isinstance(message, state_pb2.WatchEventsResponse)
    event = message.event
    which = event.WhichOneof("data")
    return {
        "type": "event",
        "number": event.seq,
        "cursor": _cursor(event.seq, event.timestamp_us),
        "timestamp": utc(event.timestamp_us),
        "etype": event.etype,
        "name": type_name(event.etype, event.type),
        "subject": event.subject,
        "data": json_of(getattr(event, which)) if which else None,
    }


def _check_names(asked: Iterable[str], allowed: Sequence[str]) -> None:
    for name in asked:
        if name not in allowed:
            guess = nearest(name[:64], allowed)
            meant = f"; did you mean {guess}?" if guess else ""
            raise InvalidRequest.field(name[:64], f"is no parameter here; allowed: {', '.join(allowed)}{meant}")


def _cursor(number: int, mark: object) -> str:
    return f"{number}{MARK}{mark}"


def _number(name: str, text: str, wrong: str = "no number") -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise InvalidRequest.field(name, f"{text[:32]!r} is {wrong}")
    return int(text)


async def _say(socket: WebSocket, said: Said) -> None:
    with suppress(Exception):
        await socket.send_text(json.dumps(said))


async def _close(socket: WebSocket, code: int) -> None:
    with suppress(Exception):
        await socket.close(code)
