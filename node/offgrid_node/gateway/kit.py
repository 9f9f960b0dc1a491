"""`GET /kit/…`: the install kit that this node has, for machines that are to become nodes. Programs, and no key or name
of the owner's, so it is open to all; whoever fetches it checks digests (docs/operations.md)."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from offgrid_node.gateway.faults import Refusal

if TYPE_CHECKING:
    from offgrid_node.config import Config

TEXTS = (".txt", ".py", ".json")


def kit_routes(config: Config) -> list[BaseRoute]:
    """Of the node of this config: the kit in its folder, else the one that it was installed from."""
    folder = config.node.data_dir.parent

    async def answer(request: Request) -> Response:
        place = f"{request.url.scheme}://{request.headers.get('host', '')}/kit"
        return await asyncio.to_thread(_answer, folder, request.path_params["path"], place)

    return [Route("/kit/{path:path}", answer, methods=["GET"])]


def _answer(folder: Path, name: str, place: str) -> Response:
    """Raises Corrupt for a kit that somebody changed."""
    from offgrid_node.kit.finding import kit_of_node
    from offgrid_node.kit.manifest import files_of

    kit = kit_of_node(folder)
    if kit is None:
        text = "this node has no install kit; `offgrid-node bundle`, typed in its folder, makes one"
        return Refusal(HTTPStatus.NOT_FOUND, "NoKit", text).response
    files = files_of(kit)
    if not name:
        return PlainTextResponse(_index(kit, place))
    path = files.get(name)
    if path is None or not path.is_file():
        return Refusal(HTTPStatus.NOT_FOUND, "UnknownPath", f"the kit has no file {name[:100]!r}").response
    return FileResponse(path, media_type="text/plain" if path.suffix in TEXTS else "application/octet-stream")


def _index(kit: Path, place: str) -> str:
    from offgrid_node.kit.manifest import INSTALLER, README, complete_targets, read_manifest, sha256_of
    from offgrid_node.kit.typed import install_lines

    lines = install_lines(place, sha256_of(kit / INSTALLER), complete_targets(kit, read_manifest(kit)))
    typed = "\n".join(f"    {line}" for line in lines)
    readme = (kit / README).read_text(encoding="utf-8")
    return f"{readme}\nOver the network, one of these lines; take it from a screen of the node's owner:\n\n{typed}\n"
