"""The documents at /docs in a real browser: readable for all, on a telephone, on paper, and from nowhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.applications import Starlette

from offgrid_node.gateway.docs import docs_routes

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
WAIT_S = 30.0
PAGES = (
    "guide/home-lab.html",  # code, lists and tables
    "doctor.html",  # a long table
    "search.html?q=airtime+region",
    "search.html?q=nosuchword",
)


@pytest.fixture(scope="module")
def docs_url() -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=docs_routes()), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + WAIT_S
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield f"http://{host}:{port}/docs"
    server.should_exit = True
    thread.join(WAIT_S)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[("light", 1280), ("dark", 390)], ids=["light", "dark on a telephone"])
def reader(browser: Browser, docs_url: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """One who has every request that leads elsewhere refused, and held against the page."""
    scheme, width = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page, elsewhere = context.new_page(), list[str]()
    page.on("request", lambda asked: None if asked.url.startswith(docs_url) else elsewhere.append(asked.url))
    yield page
    context.close()
    assert elsewhere == []


def faults(page: Page) -> list[Any]:
    page.evaluate(AXE)
    return list(page.evaluate("async () => (await axe.run()).violations.map(found => [found.id, found.nodes[0].html])"))


def test_no_page_has_a_fault_that_axe_finds_nor_is_wider_than_the_screen(reader: Page, docs_url: str) -> None:
    for path in PAGES:
        reader.goto(f"{docs_url}/{path}")
        assert faults(reader) == [], path
        assert reader.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_what_is_looked_for_is_found_by_keys_alone(reader: Page, docs_url: str) -> None:
    reader.goto(f"{docs_url}/guide/jobs.html")
    reader.get_by_role("searchbox").focus()
    reader.keyboard.type("lost disk")
    reader.keyboard.press("Enter")
    reader.wait_for_url(f"{docs_url}/search.html?q=lost+disk")
    reader.get_by_role("main").get_by_role("link", name="A lost disk").first.click()
    reader.wait_for_url(f"{docs_url}/guide/lost-disk.html")


def test_on_paper_there_is_the_text_alone_in_black_on_white(reader: Page, docs_url: str) -> None:
    reader.goto(f"{docs_url}/operations.html")
    reader.emulate_media(media="print")
    assert not reader.get_by_role("navigation").first.is_visible()
    assert reader.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert reader.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
