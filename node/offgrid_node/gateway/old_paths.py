"""The prototype's paths, as its users script them (docs/http.md), bound to the handlers that all else is.

Bodies are JSON whatever the Content-Type says. Answers have the shapes of `old_shapes.py`; errors are those of /v1, but
that a path for a role which this node has not is answered with 409.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from offgrid_node.gateway.faults import JSON, fault_response, json_of_status
from offgrid_node.gateway.gateway_urls import GatewayUrls
from offgrid_node.gateway.metered import REFUSED, route_of
from offgrid_node.gateway.node_view import NodeView
from offgrid_node.gateway.old_bodies import Bodies
from offgrid_node.gateway.old_clients import OldClients
from offgrid_node.gateway.old_looks import OldLooks
from offgrid_node.gateway.old_market import OldMarket
from offgrid_node.gateway.old_shapes import Document
from offgrid_node.gateway.old_work import OldWork
from offgrid_node.gateway.plain_json import plain_json
from offgrid_node.gateway.signature_guard import SignatureGuard
from offgrid_node.protocol.errors import FailedPrecondition, PermissionDenied
from offgrid_node.services.mesh import mesh_of
from offgrid_node.services.status import status_of

CHALLENGE = 'HMAC-SHA256 realm="offgrid", Bearer realm="offgrid"'

Handler = Callable[[Request], Awaitable[Document]]


def old_routes(view: NodeView) -> list[BaseRoute]:
    """All of B9, and what its users would look for beside it."""
    config, clock = view.config, view.runtime.clock
    key = config.gateway.auth_key.get_secret_value()
    bodies = Bodies(SignatureGuard(key, view.node_id, config.node.data_dir, clock))
    urls = GatewayUrls(view.node_id, view.url, lambda: mesh_of(view.runtime).directory, view.request, view.asks_quickly)
    work, looks, market = OldWork(view, bodies, urls), OldLooks(view), OldMarket(view, bodies, urls)
    table: Sequence[tuple[str, str, Handler]] = (
        ("POST", "/api/missions", work.create_mission),
        ("GET", "/api/missions", work.list_missions),
        ("GET", "/api/missions/{id}", work.get_mission),
        ("PATCH", "/api/missions/{id}", work.update_mission),
        ("POST", "/api/missions/{id}/tasks", work.create_task),
        ("GET", "/api/missions/{id}/tasks", work.list_tasks),
        ("GET", "/api/tasks/{id}", work.get_task),
        ("POST", "/api/tasks/{id}/jobs", work.create_job),
        ("GET", "/api/tasks/{id}/jobs", work.list_jobs),
        ("GET", "/api/jobs", work.list_jobs),
        ("GET", "/api/jobs/{id}", work.get_job),
        ("POST", "/api/jobs/{id}/dispatch", work.dispatch_job),
        ("GET", "/memory/query", looks.query),
        ("GET", "/status", looks.status),
        ("GET", "/announce", looks.announce),
        ("POST", "/auction", market.auction),
        ("POST", "/toggle", market.toggle),
        ("POST", "/run", market.run),
    )
    handlers: dict[str, dict[str, Handler]] = {}
    for method, path, handler in table:
        handlers.setdefault(path, {})[method] = handler
    clients = OldClients(view.meters.http)

    def heard(request: Request) -> None:
        client = request.client.host if request.client else ""
        clients.on_request(request.method, route_of(request.scope), client, clock.now().utc_us / 1e6)

    return [Route(path, _endpoint(found, heard), methods=list(found)) for path, found in handlers.items()]


def _endpoint(
    handlers: Mapping[str, Handler], heard: Callable[[Request], None]
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        heard(request)
        handler = handlers["GET" if request.method == "HEAD" else request.method]
        try:
            return Response(plain_json(await handler(request)), media_type=JSON)
        except FailedPrecondition as fault:
            if "role" in fault.metadata:  # it is no fault of the request's
                return Response(
                    json_of_status(HTTPStatus.CONFLICT, status_of(fault)), HTTPStatus.CONFLICT, media_type=JSON
                )
            raise
        except PermissionDenied as fault:
            response = fault_response(fault)
            if response.status_code == HTTPStatus.UNAUTHORIZED:
                request.scope[REFUSED] = fault.reason
                response.headers["WWW-Authenticate"] = CHALLENGE
            return response

    return answer
