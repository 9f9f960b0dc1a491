"""`GET /kit/…`: the install kit that this node has, for machines that are to become nodes. Programs, and no key or name
of the owner's, so it is open to all; whoever fetches it checks digests (docs/operations.md)."""

from __future__ import annotations

import asyncio
import os
import sys
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from offgrid_node.gateway.faults import Refusal
from offgrid_node.keys import refuse_writable
from offgrid_node.protocol.errors import FailedPrecondition

if TYPE_CHECKING:
    from offgrid_node.kit.shelf import Shelf

AT_A_TIME = 4  # files; whoever comes then waits, and all else of the node goes on
TEXTS = (".txt", ".py", ".json")
STAMPED = ("kit.json", "install.py", "README.txt")


def kit_routes(folder: Path, *, on: bool = True) -> list[BaseRoute]:
    """Of the node in this folder: the kit that was made there, else the one that the node was installed from."""
    if not on:
        return []
    kit, room = _Kit(folder), asyncio.Semaphore(AT_A_TIME)

    async def answer(request: Request) -> Response:
        place = f"{request.url.scheme}://{request.headers.get('host', '')}/kit"
        async with room:
            found = await asyncio.to_thread(kit.answer, request.path_params["path"], place)
        return _InTurn(found, room) if isinstance(found, FileResponse) else found

    return [Route("/kit/{path:path}", answer, methods=["GET"])]


class _InTurn(Response):
    """A file, sent when there is room."""

    def __init__(self, file: FileResponse, room: asyncio.Semaphore) -> None:
        super().__init__()
        self._file, self._room = file, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._room:
            await self._file(scope, receive, send)


class _Kit:
    """What is handed out of the kit that there is just now; it is looked at anew when one of its texts has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: tuple[object, Shelf] | None = None

    def answer(self, name: str, place: str) -> Response:
        """Raises Corrupt for what somebody changed, FailedPrecondition for a kit that another account could change."""
        from offgrid_node.kit.finding import kit_of_node

        kit = kit_of_node(self._folder)
        if kit is None:
            text = "this node has no install kit; `offgrid-node bundle`, typed in its folder, makes one"
            return Refusal(HTTPStatus.NOT_FOUND, "NoKit", text).response
        shelf = self._shelf(kit)
        if not name:
            return PlainTextResponse(_index(kit, place))
        path = shelf.path_of(name)
        if path is None:
            return Refusal(HTTPStatus.NOT_FOUND, "UnknownPath", f"the kit has no file {name[:100]!r}").response
        return FileResponse(path, media_type="text/plain" if path.suffix in TEXTS else "application/octet-stream")

    def _shelf(self, kit: Path) -> Shelf:
        from offgrid_node.kit.shelf import Shelf

        stats = [(kit / name).stat() for name in STAMPED if (kit / name).exists()]
        now = (kit, *((each.st_mtime_ns, each.st_size, each.st_ino) for each in stats))
        if self._known is None or self._known[0] != now:
            _check_ours(kit)
            self._known = (now, Shelf(kit))
        return self._known[1]


def _check_ours(kit: Path) -> None:
    """Raises FailedPrecondition where another account of this machine could name the digest in the lines to type."""
    for path in (kit, *(kit / name for name in STAMPED)):
        refuse_writable(path)
        if sys.platform != "win32" and path.exists() and path.stat().st_uid not in (0, os.getuid()):
            text = f"{path} belongs to another account than this node's and root; make a kit of your own, or remove it"
            raise FailedPrecondition(text, reason="OtherOwner")


def _index(kit: Path, place: str) -> str:
    from offgrid_node.kit.manifest import INSTALLER, README, complete_targets, read_manifest, sha256_of
    from offgrid_node.kit.typed import install_lines

    lines = install_lines(place, sha256_of(kit / INSTALLER), complete_targets(kit, read_manifest(kit)))
    typed = "\n".join(f"    {line}" for line in lines)
    readme = (kit / README).read_text(encoding="utf-8")
    return f"{readme}\nOver the network, one of these lines; take it from a screen of the node's owner:\n\n{typed}\n"
