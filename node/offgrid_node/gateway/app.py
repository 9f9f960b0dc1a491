"""The gateway whole: every list of routes joined to one application, behind the one that lets requests in."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from offgrid_node.gateway.about import about_routes
from offgrid_node.gateway.edge import Edge
from offgrid_node.gateway.faults import Refusal, fault_response
from offgrid_node.gateway.feed import feed_routes
from offgrid_node.gateway.metrics_page import metrics_routes
from offgrid_node.gateway.node_view import NodeView
from offgrid_node.gateway.object_bytes import ObjectBytes
from offgrid_node.gateway.old_paths import old_routes
from offgrid_node.gateway.openapi import openapi_routes
from offgrid_node.gateway.page import page_routes
from offgrid_node.gateway.transcoding import transcoded_routes
from offgrid_node.protocol.errors import Fault

_REASONS = {HTTPStatus.NOT_FOUND: "UnknownPath", HTTPStatus.METHOD_NOT_ALLOWED: "MethodNotAllowed"}
DEFECT = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal", "a defect of this node, its log says more")


def routes_of(view: NodeView) -> list[BaseRoute]:
    """All that the gateway serves; the first that matches a request has it."""
    return [
        *about_routes(view.about),
        *metrics_routes(view),
        *feed_routes(view),
        *openapi_routes(),
        *page_routes(),
        *transcoded_routes(view.router, view.stopping, ObjectBytes(view.router).rows),
        *old_routes(view),
    ]


def monitoring_routes_of(view: NodeView) -> list[BaseRoute]:
    """What `metrics.listen` serves to whoever asks."""
    return [*about_routes(view.about), *metrics_routes(view)]


def application(routes: Sequence[BaseRoute], hosts: Sequence[str] = ()) -> ASGIApp:
    """`hosts` are the names, beyond localhost, by which this node may be addressed."""
    handlers = {HTTPException: _on_http_error, Fault: _on_fault, Exception: _on_defect}
    return Edge(Starlette(routes=list(routes), exception_handlers=handlers), hosts)  # type: ignore[arg-type]


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    text, path = error.detail, request.url.path
    if error.status_code == HTTPStatus.NOT_FOUND:
        text = f"there is nothing at {path}; /openapi.json lists what there is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        text = f"{request.method} is not for {path}; use {(error.headers or {}).get('Allow', 'another')}"
    reason = _REASONS.get(HTTPStatus(error.status_code), "BadRequest")
    return Refusal(error.status_code, reason, text, tuple((error.headers or {}).items())).response


async def _on_fault(request: Request, fault: Fault) -> Response:
    return fault_response(fault)


async def _on_defect(request: Request, error: Exception) -> Response:
    return DEFECT.response
