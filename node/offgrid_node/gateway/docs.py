"""`GET /docs/…`: the documents that come with the node, as pages without scripts that load nothing from elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import cache, partial
from hashlib import sha256
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from offgrid_node.gateway.faults import Refusal

if TYPE_CHECKING:
    from offgrid_node.manual import Site


SEARCHES = 1  # at a time, of whoever asks: some 30 ms each, in which the node's loop has to share the interpreter


def docs_routes() -> list[BaseRoute]:
    """The same of every node of this installation."""
    page = partial(_page, asyncio.Semaphore(SEARCHES))
    return [Route("/docs", _to_the_index, methods=["GET"]), Route("/docs/{path:path}", page, methods=["GET"])]


async def _to_the_index(request: Request) -> Response:
    """Or to what is looked for, `/docs?q=WORDS`."""
    query = f"search.html?{request.url.query}" if "q" in request.query_params else ""
    return RedirectResponse(f"/docs/{query}", HTTPStatus.PERMANENT_REDIRECT)


async def _page(room: asyncio.Semaphore, request: Request) -> Response:
    path, known = request.path_params["path"], request.headers.get("if-none-match", "")
    query = request.query_params.get("q", "")
    async with room if query else nullcontext():
        return await asyncio.to_thread(_answer, path, query, known)


def _answer(path: str, query: str, known: str) -> Response:
    """A page, made at most once, or what is found; `known` is the tag of what the reader has."""
    from offgrid_node.manual.library import NoDocuments
    from offgrid_node.manual.site import INDEX, SEARCH, TYPES

    try:
        body = _site().search(query) if path == SEARCH else _site().page(path or INDEX)
    except NoDocuments as error:
        return Refusal(HTTPStatus.NOT_FOUND, "NoDocuments", str(error)).response
    except KeyError:
        if _has(f"{path}.html"):
            return RedirectResponse(f"/docs/{path}.html", HTTPStatus.PERMANENT_REDIRECT)
        text = f"there is no page {path!r}; /docs/ has the list of all"
        return Refusal(HTTPStatus.NOT_FOUND, "UnknownPath", text).response
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    headers = {"cache-control": "no-cache", "etag": tag}
    if tag in known:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body, media_type=TYPES[PurePosixPath(path or INDEX).suffix], headers=headers)


def _has(path: str) -> bool:
    try:
        return bool(_site().page(path))
    except KeyError:
        return False


@cache
def _site() -> Site:
    """For all nodes of this process: documents never change."""
    from offgrid_node.manual import Library, Site

    return Site(Library.found(), searched=True)
