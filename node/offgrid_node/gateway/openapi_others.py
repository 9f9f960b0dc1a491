"""Whatever else a gateway serves, in the OpenAPI document: signing in, the feed, metrics, page, documents, gRPC-Web."""

from __future__ import annotations

from offgrid_node.gateway import feed
from offgrid_node.gateway.openapi_forms import (
    COUNT,
    EDGE,
    TEXT,
    TEXTS,
    WRITING,
    Json,
    answers,
    content,
    in_path,
    query,
    ref,
    shape,
    told,
)
from offgrid_node.services.router import SERVICES

TAG = "Gateway"
TAG_TEXT = "What is of the gateway itself and no RPC."
HTML = "text/html"
GRPC_WEB = ("application/grpc-web+proto", "application/grpc-web")
_NO_CONTENT: Json = {"description": "Done"}
_BINARY: Json = {"type": "string", "format": "binary"}
_MOVED: Json = {"description": "To the address that stands"}
_SAME: Json = {"description": "What If-None-Match names is what there is"}
_NOT_FOUND = (404,)
_LOOKED_FOR = query("q", {"type": "string"}, "Words that are looked for, at `/docs` and `/docs/search.html`.")


def _operation(name: str, summary: str, responses: Json, text: str = "", **more: object) -> Json:
    found: Json = {"operationId": f"{TAG}_{name}", "tags": [TAG], "summary": summary}
    return found | ({"description": text} if text else {}) | more | {"responses": responses}


_LOGIN: Json = {
    "oneOf": [
        shape({"token": told(TEXT, "As gateway.token has it.")}),
        shape({"code": told(TEXT, "Of the link that `offgrid page` gives; once, and for two minutes.")}),
    ]
}
_FEED_QUERY = [
    query("after", TEXT, "The last `cursor` that was seen, or its number."),
    query("etypes", TEXT, "Only events of these numbers, with commas."),
    query("session", TEXT, "An application's session in place of the journal."),
    query("kinds", TEXT, "Of a session: only these kinds of events, with commas."),
    query("reducer", TEXT, "Of a session: by which its state is made."),
]

SCHEMAS: Json = {
    "About": shape({"node_id": TEXT, "name": TEXT, "addresses": TEXTS, "version": TEXT}),
    "FeedMessage": {
        "type": "object",
        "description": "One text frame of /v1/feed.",
        "required": ["type"],
        "properties": {
            "type": {"enum": ["state.sync", "state.resumed", "event", "change", "heartbeat", "error"]},
            "number": COUNT,
            "cursor": told(TEXT, "What to go on behind."),
            "timestamp": {"type": "string", "format": "date-time"},
            "etype": COUNT,
            "name": TEXT,
            "subject": TEXT,
            "data": told({}, "As the event's field of that type has it."),
            "error": ref("Error"),
        },
    },
}

PATHS: dict[str, Json] = {
    feed.FEED_PATH: {
        "get": _operation(
            "Feed",
            "What happens at this node, over a WebSocket",
            answers(
                (*EDGE, 404, 426), s101={"description": "A WebSocket (RFC 6455), of FeedMessages from the node alone"}
            ),
            (feed.__doc__ or "").strip(),
            parameters=_FEED_QUERY,
            **{"x-websocket": {"server": ref("FeedMessage")}},
        )
    },
    "/v1/about": {
        "get": _operation(
            "About",
            "Which node this is, and where the mesh reaches it",
            answers(EDGE, s200={"description": "Open to all", **content(ref("About"))}),
        )
    },
    "/v1/login": {
        "post": _operation(
            "Login",
            "Signs a browser in",
            answers(WRITING, s204={"description": "Signed in: the cookie, or none is needed"}),
            requestBody={"required": True, **content(_LOGIN)},
        )
    },
    "/v1/logout": {"post": _operation("Logout", "Signs a browser out", answers(WRITING, s204=_NO_CONTENT))},
    "/metrics": {
        "get": _operation(
            "Metrics",
            "For Prometheus",
            answers(
                EDGE,
                s200={
                    "description": "Prometheus' text, or OpenMetrics, as Accept asks",
                    **content(TEXT, "text/plain", "application/openmetrics-text"),
                },
            ),
        )
    },
    "/openapi.json": {
        "get": _operation(
            "OpenApi",
            "This document",
            answers(EDGE, s200={"description": "OpenAPI 3.1", **content({"type": "object"})}),
        )
    },
    "/": {
        "get": _operation(
            "Page", "The web page", answers(EDGE, s200={"description": "A document", **content(TEXT, HTML)}, s304=_SAME)
        )
    },
    "/page/{version}/{path}": {
        "get": _operation(
            "PageFile",
            "A file of the web page, for ever the same",
            answers(
                (*EDGE, 404),
                s200={
                    "description": "As it is",
                    **content(TEXT, "text/javascript", "text/css", "image/svg+xml", HTML),
                },
                s304=_SAME,
            ),
            parameters=[in_path("version", "The digest of all files; the document at / names them."), in_path("path")],
        )
    },
    "/page/qr": {
        "post": _operation(
            "DrawQr",
            "A text as a QR code",
            answers(WRITING, s200={"description": "SVG", **content(TEXT, "image/svg+xml")}),
            requestBody={
                "required": True,
                **content({"type": "string", "minLength": 1, "maxLength": 256}, "text/plain"),
            },
        )
    },
    "/docs": {
        "get": _operation(
            "DocsIndex",
            "To the first document, or to those in which words are found",
            answers(EDGE, s308=_MOVED),
            parameters=[_LOOKED_FOR],
        )
    },
    "/docs/{path}": {
        "get": _operation(
            "DocsPage",
            "A document, such as http.html",
            answers(
                (*EDGE, 404),
                s200={"description": "As it is", **content(TEXT, HTML, "text/css", "application/json", "text/plain")},
                s304=_SAME,
                s308=_MOVED,
            ),
            parameters=[in_path("path"), _LOOKED_FOR],
        )
    },
    "/kit/{path}": {
        "get": _operation(
            "InstallKit",
            "A file of the node's install kit",
            answers(
                (*EDGE, 404),
                s200={"description": "As it is", **content(_BINARY, "application/octet-stream", "text/plain")},
            ),
            "What `install.py` asks for; with no path, what to type on the machine that is to be installed.",
            parameters=[in_path("path")],
        )
    },
}


def grpc_web_paths() -> dict[str, Json]:
    """One for each service."""
    return {f"/{service.full_name}/{{name}}": {"post": _grpc_web(service.name)} for service in SERVICES}


def _grpc_web(service: str) -> Json:
    body = content(_BINARY, *GRPC_WEB)
    return _operation(
        f"GrpcWeb_{service}",
        f"Calls of {service} as gRPC-Web",
        answers(
            WRITING, s200={"description": "Frames; how the call ended is in the last", **content(_BINARY, GRPC_WEB[0])}
        ),
        "For clients made of the .proto files: one frame, a message of the RPC `name`.",
        parameters=[in_path("name")],
        requestBody={"required": True, **body},
    )
