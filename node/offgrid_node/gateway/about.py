"""`GET /v1/about`: which node this is and where the mesh reaches it, for those who know only its URL."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from offgrid_node.discovery.gateways import ABOUT_PATH, About
from offgrid_node.gateway.faults import JSON


def about_routes(about: Callable[[], About]) -> list[BaseRoute]:
    """Made anew for each reader: a machine changes networks."""

    async def answer(request: Request) -> Response:
        return Response(about().text(), media_type=JSON)

    return [Route(ABOUT_PATH, answer, methods=["GET"])]
