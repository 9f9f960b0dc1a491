"""Tells the meters of every request that passes, whatever becomes of it. ASGI in, ASGI out."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offgrid_node.meters.http import NO_ROUTE, HttpMeters, Kind

REFUSED = "offgrid.refused"
"""In a request's scope, the reason of who did not let it in; set by whoever that was."""
TEMPLATE = "offgrid.template"
"""In a request's scope, the route that serves it, where Starlette's own `route` has no path."""
_OPENINGS = {"http.response.start": 0, "websocket.http.response.start": 0, "websocket.accept": 101}
_SHORT = {"/page/": "/page/{path}"}  # the page's files have a hash in their path


class Metered:
    """Wraps one application."""

    def __init__(self, app: ASGIApp, meters: HttpMeters) -> None:
        self._app, self._meters = app, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        meters, now = self._meters, asyncio.get_running_loop().time
        method = scope["method"] if scope["type"] == "http" else "GET"
        kind, status, began_s = Kind.REQUEST, 0, now()
        meters.open[kind] += 1

        async def tell(message: Message) -> None:
            nonlocal kind, status
            if (opening := _OPENINGS.get(message["type"])) is not None:
                status = message.get("status", opening)
                meters.on_begun(method, route_of(scope), now() - began_s)
                meters.open[kind] -= 1
                kind = _kind_of(message)
                meters.open[kind] += 1
            await send(message)

        try:
            await self._app(scope, receive, tell)
        finally:
            meters.open[kind] -= 1
            meters.on_ended(method, route_of(scope), status, scope.get(REFUSED, ""))


def route_of(scope: Scope) -> str:
    """The template of the path that serves a request."""
    path = scope.get(TEMPLATE) or getattr(scope.get("route"), "path", "") or NO_ROUTE
    return next((short for prefix, short in _SHORT.items() if path.startswith(prefix)), path)


def _kind_of(opening: Message) -> Kind:
    if opening["type"] == "websocket.accept":
        return Kind.WEBSOCKET
    whole = any(name.lower() == b"content-length" for name, _ in opening.get("headers", ()))
    return Kind.REQUEST if whole else Kind.STREAM
