"""One mesh, one Chromium and one tab for all tests of the page: what a reader would have open."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator

import pytest
from orchard import EVENTS, HOSTILE, NODES, TOKEN, url_of
from playwright.sync_api import Browser, Page, expect, sync_playwright

from offgrid_node.doctor.ports import why_not
from offgrid_node.local_mesh import LocalMesh

WAIT_MS = 30_000  # until a test gives up: far longer than it takes, for a machine may be slow


@pytest.fixture(scope="module")
def chromium() -> str:
    """Where it is."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on this machine: apt-get install -y --no-install-recommends chromium")
    return found


@pytest.fixture(scope="module")
def mesh(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """A core that is a broker, and three hosts; attic serves the page, barn too and asks for a token. The ledger is
    open, a session is recorded, and some names are hostile."""
    with LocalMesh(tmp_path_factory.mktemp("browser"), "orchard", NODES) as mesh:
        for name, more in (("attic", {}), ("barn", {"gateway.token": TOKEN})):
            node = mesh[name]
            node.settings = {**node.settings, "gateway.listen": f"127.0.0.1:{_free_port()}", **more}
        mesh.start()
        mesh.wait_alive()
        mesh.wait_offers(3)
        with mesh["attic"].client() as client:
            client.ledger.open()
            client.missions.create(HOSTILE)
            client.objects.put(b"apples", name=HOSTILE)
            with client.session(f"flight {HOSTILE}") as flight:
                for number in range(EVENTS):
                    flight.record("energy.update", {"energy": number / 2, "accumulator": float(number)}, frame=number)
        yield mesh


@pytest.fixture(scope="module")
def browser(chromium: str, mesh: LocalMesh) -> Iterator[Browser]:
    """Behind the mesh: while it is there a loop runs in this thread, and nobody could join."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=WAIT_MS)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(mesh: LocalMesh) -> str:
    return url_of(mesh, "attic")


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """Every address that the tab has asked for."""
    return []


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the tab's console has said that it should not."""
    return []


@pytest.fixture(scope="module")
def page(browser: Browser, url: str, asked: list[str], said: list[str]) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        locale="en-GB",
        timezone_id="Europe/Berlin",
        reduced_motion="reduce",  # no colour is seen half way to another
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda one: said.append(one.text) if "Content Security Policy" in one.text else None)
    page.goto(url)
    page.locator(".connection.good").wait_for()
    yield page
    context.close()


@pytest.fixture
def show(page: Page, url: str) -> Callable[[str], Page]:
    """Goes to a view of the page, by its address behind the #, without loading it anew."""

    def go(view: str) -> Page:
        page.evaluate("view => { location.hash = `#/${view}`; }", view)
        page.locator(f"a[aria-current][href='#/{view}']").first.wait_for()
        page.locator("main h1").wait_for()
        return page

    return go


def _free_port() -> int:
    """Not among those that the system gives to whoever asks for any: nodes are stopped and come back to it."""
    return next(port for port in random.sample(range(20_000, 30_000), 100) if why_not("127.0.0.1", port) is None)
