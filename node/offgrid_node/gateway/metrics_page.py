"""`GET /metrics`, as a route. Its library is imported when somebody asks for the first time, aside from the loop."""

from __future__ import annotations

import asyncio
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from offgrid_node.gateway.node_view import NodeView

if TYPE_CHECKING:
    from offgrid_node.gateway.metrics import MetricsPage

METRICS_PATH = "/metrics"


def metrics_routes(view: NodeView) -> list[BaseRoute]:
    """Prometheus text or OpenMetrics, as the Accept header asks."""

    @cache
    def page() -> MetricsPage:
        from offgrid_node.gateway.metrics import MetricsPage

        return MetricsPage(view.meters, view.runtime, view.facts)

    async def answer(request: Request) -> Response:
        await asyncio.to_thread(import_module, "offgrid_node.gateway.metrics")
        content_type, text = page().render(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    return [Route(METRICS_PATH, answer, methods=["GET"])]
