"""The gateway whole: every list of routes joined to one application, behind the one that lets requests in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp

from offgrid_node.gateway.about import about_routes
from offgrid_node.gateway.access import Policy
from offgrid_node.gateway.docs import docs_routes
from offgrid_node.gateway.edge import Edge
from offgrid_node.gateway.faults import Refusal, fault_response
from offgrid_node.gateway.feed import feed_routes
from offgrid_node.gateway.grpc_web import grpc_web_routes
from offgrid_node.gateway.kit import kit_routes
from offgrid_node.gateway.login import login_routes
from offgrid_node.gateway.metered import Metered
from offgrid_node.gateway.metrics_page import metrics_routes
from offgrid_node.gateway.node_view import NodeView
from offgrid_node.gateway.object_bytes import ObjectBytes
from offgrid_node.gateway.old_paths import old_routes
from offgrid_node.gateway.openapi import openapi_routes
from offgrid_node.gateway.page import page_routes
from offgrid_node.gateway.sign_ins import SignIns
from offgrid_node.gateway.transcoding import LISTED, SHOWN_CHARS_MAX, transcoded_routes
from offgrid_node.meters.http import HttpMeters
from offgrid_node.protocol.errors import Fault

_REASONS = {HTTPStatus.NOT_FOUND: "UnknownPath", HTTPStatus.METHOD_NOT_ALLOWED: "MethodNotAllowed"}


def routes_of(view: NodeView, sign_ins: SignIns | None) -> list[BaseRoute]:
    """All that the gateway serves; the first that matches a request has it."""
    return [
        *login_routes(sign_ins, view.runtime.clock),
        *about_routes(view.about),
        *metrics_routes(view),
        *feed_routes(view),
        *openapi_routes(),
        *grpc_web_routes(view.router, view.stopping),
        *page_routes(),
        *docs_routes(),
        *kit_routes(view.folder, on=view.config.gateway.kit),
        *transcoded_routes(view.router, view.stopping, ObjectBytes(view.router).rows),
        *old_routes(view),
    ]


def monitoring_routes_of(view: NodeView) -> list[BaseRoute]:
    """What `metrics.listen` serves to whoever asks."""
    return [*about_routes(view.about), *metrics_routes(view)]


def application(
    routes: Sequence[BaseRoute],
    policy: Policy,
    now_ms: Callable[[], int],
    stopping: asyncio.Event,
    meters: HttpMeters,
) -> ASGIApp:
    """What `HttpServer` serves to those whom `policy` lets in; `now_ms` goes forwards only."""
    handlers = {HTTPException: _on_http_error, Fault: _on_fault}
    app = ExceptionMiddleware(Router(routes), handlers)  # type: ignore[arg-type]
    return Metered(Edge(app, policy, now_ms, stopping), meters)


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    text, path = error.detail, request.url.path[:SHOWN_CHARS_MAX]
    if error.status_code == HTTPStatus.NOT_FOUND:
        text = f"there is nothing at {path}; {LISTED}"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        text = f"{request.method} is not for {path}; use {(error.headers or {}).get('Allow', 'another')}"
    reason = _REASONS.get(HTTPStatus(error.status_code), "BadRequest")
    return Refusal(error.status_code, reason, text, tuple((error.headers or {}).items())).response


async def _on_fault(request: Request, fault: Fault) -> Response:
    return fault_response(fault)
