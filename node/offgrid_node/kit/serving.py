"""Hands a kit to other machines, over plain HTTP: what it serves is public, and whoever fetches it checks digests.

Only files that the manifest names are served, each by its name, so no path leads out of the kit; and nothing of a kit
that somebody changed. What is changed while it is served is handed out no more.
"""

from __future__ import annotations

import io
import shutil
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from offgrid_node.kit.manifest import README
from offgrid_node.kit.shelf import Shelf
from offgrid_node.protocol.errors import Corrupt, Unavailable

PORT = 8090
CALLERS_MAX = 16  # at a time; a further one waits in the system's queue
CALLERS_OF_ONE_MAX = 8  # of one address; a further one is let go, and comes again
HEAD_S = 5.0  # for all of a request's head
QUIET_S = 30  # for a piece to go out
PIECE_BYTES = 256 * 1024


class KitServer(ThreadingHTTPServer):
    """Serves the kit in a folder until `shutdown`. Raises Unavailable where the address cannot be had, Corrupt where
    the kit is not what it says it is."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, kit: Path, host: str, port: int) -> None:
        self.kit, self.shelf = kit, Shelf(kit)
        self.shelf.check()
        self._room = threading.BoundedSemaphore(CALLERS_MAX)
        self._callers, self._counting = Counter[str](), threading.Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Caller)
        except (OSError, OverflowError) as error:
            raise Unavailable(f"{host}:{port} cannot be listened on: {error}; choose another with --listen") from error

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._counting:
            if self._callers[client_address[0]] >= CALLERS_OF_ONE_MAX:
                self.shutdown_request(request)
                return
            self._callers[client_address[0]] += 1
        self._room.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()
            with self._counting:
                self._callers[client_address[0]] -= 1
                self._callers += Counter()  # forgets those of whom none is left

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller went away in the middle: it comes again."""


class _Head(socket.SocketIO):
    """Reads of a caller until the head's time is over, however often a byte comes; TimeoutError then."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, "r")
        self._connection, self._deadline = connection, time.monotonic() + HEAD_S

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(max(self._deadline - time.monotonic(), 0.001))
        return super().readinto(buffer)


class _Caller(BaseHTTPRequestHandler):
    server: KitServer

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Head(self.connection))

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        self.connection.settimeout(QUIET_S)
        try:
            path = self.server.shelf.path_of(self.path.removeprefix("/") or README)
            source = path.open("rb") if path is not None else None
        except OSError:
            path = source = None
        except Corrupt:
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "that file is not what the kit says it is")
            return
        if source is None or path is None:
            self.send_error(HTTPStatus.NOT_FOUND, "this kit has no such file")
            return
        with source:
            self.send_response(HTTPStatus.OK)
            text = path.suffix in (".txt", ".py", ".json")
            self.send_header("Content-Type", "text/plain; charset=utf-8" if text else "application/octet-stream")
            self.send_header("Content-Length", str(path.stat().st_size))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if body:
                with suppress(OSError):  # it went away
                    shutil.copyfileobj(source, self.wfile, PIECE_BYTES)

    def version_string(self) -> str:
        return "offgrid-node"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Not on the terminal, where the lines to copy stand."""
