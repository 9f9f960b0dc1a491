"""The web page at `/`: files of the package's folder `page/`, read once, and nothing else.

All but the first document are addressed below `/page/HASH/`, the hash being that of all files together: they may be
kept for ever (RFC 8246), and a page that was loaded before an update never mixes two versions. There is no build step:
the page's own modules are joined when they are read (`page_modules.py`), and comments stay at home.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import re
from collections.abc import Mapping
from http import HTTPStatus
from importlib import resources
from importlib.resources.abc import Traversable

import msgspec
import segno
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from offgrid_node.gateway.faults import Refusal
from offgrid_node.gateway.page_modules import joined

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
DOCUMENT = "index.html"
ENTRY, JOINED = "app.js", "lib/page.js"
APART = ("vendor/", "words/")  # as they came, and the one language that is read
VENDORED = "vendor/"
GZIP_FROM_BYTES = 256
QR_TEXT_BYTES_MAX = 1_024
_COMMENT = re.compile(rb"(?:^| +)// .*$|^/\*.*\*/$", re.MULTILINE)
_LEADING = re.compile(rb"^ +", re.MULTILINE)
_SPACED = re.compile(rb" ?([{};:,]) ")  # in styles
FOR_EVER, ASK_AGAIN = "public, max-age=31536000, immutable", "no-cache"


class PageFile(msgspec.Struct, frozen=True):
    """One file as it is sent."""

    content_type: str
    body: bytes
    zipped: bytes
    etag: str

    @classmethod
    def of(cls, name: str, body: bytes) -> PageFile:
        etag = hashlib.sha256(body).hexdigest()[:32]
        return cls(TYPES[name.rpartition(".")[2]], body, gzip.compress(body, mtime=0), etag)

    def answer(self, request: Request, cache: str) -> Response:
        """200 with the body, gzipped where it is asked for, or 304 (RFC 9110, 13.1.2)."""
        headers = {"ETag": f'"{self.etag}"', "Cache-Control": cache, "Vary": "Accept-Encoding"}
        asked = request.headers.get("if-none-match", "")
        if asked.strip() == "*" or self.etag in (tag.strip().removeprefix("W/").strip('"') for tag in asked.split(",")):
            return Response(status_code=304, headers=headers)
        body = self.body
        if len(body) >= GZIP_FROM_BYTES and _takes_gzip(request.headers.get("accept-encoding", "")):
            body, headers["Content-Encoding"] = self.zipped, "gzip"
        return Response(body, headers=headers, media_type=self.content_type)


def page_files() -> tuple[str, Mapping[str, PageFile]]:
    """Below which path the files are, and all of them by their names; the document is filled in."""
    raw = dict(_read(resources.files(__package__).joinpath("page"), ""))
    own = {name: raw.pop(name).decode() for name in [*raw] if name.endswith(".js") and not name.startswith(APART)}
    raw[JOINED] = joined(own, ENTRY, JOINED, VENDORED).encode()
    raw = {name: body if name.startswith(VENDORED) else _without_comments(name, body) for name, body in raw.items()}
    base = f"/page/{_hash_of(raw)}"
    document = raw[DOCUMENT].decode().replace("{{base}}", base).replace("{{module}}", JOINED)
    raw[DOCUMENT] = document.encode()
    return base, {name: PageFile.of(name, body) for name, body in raw.items()}


def page_routes() -> list[BaseRoute]:
    """The document, the files, and `POST /page/qr`, which draws a text as SVG."""
    base, files = page_files()

    async def document(request: Request) -> Response:
        return files[DOCUMENT].answer(request, ASK_AGAIN)

    async def file(request: Request) -> Response:
        found = files.get(request.path_params["path"])
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return found.answer(request, FOR_EVER)

    return [
        Route("/", document, methods=["GET"]),
        Route(f"{base}/{{path:path}}", file, methods=["GET"]),
        Route("/page/qr", qr, methods=["POST"]),
    ]


async def qr(request: Request) -> Response:
    """The request's body, a text of at most 1 KiB, as a QR code (ISO/IEC 18004) in SVG."""
    body = await request.body()
    try:
        text = body.decode() if len(body) <= QR_TEXT_BYTES_MAX else ""
    except UnicodeDecodeError:
        text = ""
    if not text:
        said = f"a text of 1 to {QR_TEXT_BYTES_MAX} bytes, UTF-8, is drawn"
        return Refusal(HTTPStatus.BAD_REQUEST, "NotDrawable", said).response
    drawn = await asyncio.to_thread(_drawn, text)
    return Response(drawn, headers={"Cache-Control": "no-store"}, media_type=TYPES["svg"])


def _drawn(text: str) -> bytes:
    """Of 1 KiB it takes most of a second."""
    out = io.BytesIO()
    segno.make(text, error="m", micro=False).save(out, kind="svg", border=3, light="#fff")
    return out.getvalue()


def _read(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _read(entry, f"{prefix}{entry.name}/")
        elif entry.name.rpartition(".")[2] in TYPES:
            found.append((prefix + entry.name, entry.read_bytes()))
    return found


def _without_comments(name: str, body: bytes) -> bytes:
    """No text of the page has a " // " in it."""
    lines = _LEADING.sub(b"", _COMMENT.sub(b"", body))
    return _SPACED.sub(rb"\1", lines) if name.endswith(".css") else lines


def _hash_of(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, body in sorted(files.items()):
        digest.update(b"%d %s %d\n" % (len(name), name.encode(), len(body)) + body)
    return digest.hexdigest()[:16]


def _takes_gzip(accept: str) -> bool:
    words = (word.strip().partition(";") for word in accept.lower().split(","))
    return any(name in ("gzip", "*") and more.replace(" ", "") not in ("q=0", "q=0.0") for name, _, more in words)
