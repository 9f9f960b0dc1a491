"""/docs: pages with a tag, and nothing beside them."""

from __future__ import annotations

import asyncio
import time

import pytest
from serving_app import Fields, ask, request, serving
from starlette.applications import Starlette

from offgrid_node.gateway import docs
from offgrid_node.gateway.docs import docs_routes

NOWHERE = ("nothing.html", "../README.md", "%2e%2e/%2e%2e/etc/passwd", "guide", "style.css/", "..%5cx", "%00")


def answers(*asked: tuple[str, ...]) -> list[tuple[int, Fields, bytes]]:
    """What comes back for each path and its header fields."""
    found: list[tuple[int, Fields, bytes]] = []

    async def talk(port: int) -> None:
        for path, *fields in asked:
            found.append(await ask(port, request(f"GET {path} HTTP/1.1", *fields)))

    serving(Starlette(routes=docs_routes()), talk)
    return found


def test_the_index_is_where_docs_leads_to() -> None:
    (status, fields, _), bare, index = answers(("/docs",), ("/docs/",), ("/docs/index.html",))
    assert (status, fields["location"]) == (308, "/docs/")
    assert (bare[0], bare[1]["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<h1" in bare[2]
    assert bare[2] == index[2]


def test_a_page_is_found_without_its_suffix() -> None:
    ((status, fields, _),) = answers(("/docs/guide/first-mesh",))
    assert (status, fields["location"]) == (308, "/docs/guide/first-mesh.html")


def test_a_page_is_sent_once() -> None:
    for path, kind in (("/docs/guide/jobs.html", "text/html"), ("/docs/style.css", "text/css")):
        ((status, fields, _),) = answers((path,))
        assert status == 200
        assert fields["content-type"].startswith(kind)
        ((status, _, body),) = answers((path, f"If-None-Match: {fields['etag']}"))
        assert (status, body) == (304, b"")


def test_nothing_else_is_there() -> None:
    for status, _, body in answers(*((f"/docs/{path}",) for path in NOWHERE)):
        assert status == 404
        assert b"root:" not in body


def test_the_documents_are_searched() -> None:
    (status, fields, _), (found, _, page), (empty, _, none) = answers(
        ("/docs?q=airtime+rules",), ("/docs/search.html?q=airtime+rules",), ("/docs/search.html",)
    )
    assert (status, fields["location"]) == (308, "/docs/search.html?q=airtime+rules")
    assert (found, empty) == (200, 200)
    assert b"<mark>airtime</mark>" in page.lower()
    assert b'value="airtime rules"' in page
    assert b"<li><a" not in none.split(b'class="found"')[1].split(b"</ol>")[0]


def test_searches_are_made_one_after_another_and_hold_up_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    at_a_time: list[int] = []

    class Slow:
        """Documents whose search takes a while."""

        searching = 0

        def search(self, query: str) -> bytes:
            self.searching += 1
            at_a_time.append(self.searching)
            time.sleep(0.1)
            self.searching -= 1
            return b"found"

        def page(self, path: str) -> bytes:
            return b"%d" % len(at_a_time)

    slow = Slow()
    monkeypatch.setattr(docs, "_site", lambda: slow)

    async def talk(port: int) -> None:
        searches = [ask(port, request(f"GET /docs/search.html?q={n} HTTP/1.1")) for n in range(5)]
        page = ask(port, request("GET /docs/index.html HTTP/1.1"))
        *found, (_, _, searched) = await asyncio.gather(*searches, page)
        assert [body for _, _, body in found] == [b"found"] * 5
        assert int(searched) < 5

    serving(Starlette(routes=docs_routes()), talk)
    assert at_a_time == [1] * 5
