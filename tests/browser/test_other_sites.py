"""What pages of other sites have a real browser try at a node on its machine: they read and change nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, sync_playwright

from offgrid_node.local_mesh import LocalMesh

TRIES = {
    "fetch": "async node => (await fetch(node + '/v1/status')).status",
    "fetch that asks for nothing back": """async node =>
        (await fetch(node + '/v1/missions', {method: 'POST', mode: 'no-cors', body: '{"title": "evil"}'})).type""",
    "a beacon": """async node => {
        navigator.sendBeacon(node + '/v1/missions', '{"title": "evil"}'); return 'nothing to see' }""",
    "a script": """node => new Promise(done => { const tag = document.createElement('script');
        tag.src = node + '/v1/status'; tag.onload = () => done('loaded'); tag.onerror = () => done('refused');
        document.body.append(tag) })""",
    "an image": """node => new Promise(done => { const tag = new Image(); tag.src = node + '/v1/status';
        tag.onload = () => done('loaded'); tag.onerror = () => done('refused') })""",
    "a WebSocket": """node => new Promise(done => { const feed = new WebSocket(node.replace('http', 'ws') + '/v1/feed');
        feed.onmessage = () => done('heard'); feed.onerror = () => done('refused') })""",
    "server-sent events": """node => new Promise(done => { const events = new EventSource(node + '/v1/events:watch');
        events.onmessage = () => done('heard'); events.onerror = () => { events.close(); done('refused') } })""",
    "a form": """node => new Promise(done => { const form = document.createElement('form');
        Object.assign(form, {method: 'post', action: node + '/v1/missions', enctype: 'text/plain', target: 'frame'});
        form.innerHTML = `<input name='{"title": "evil", "description": "' value='"}'>`;
        const frame = document.createElement('iframe'); frame.name = 'frame';
        frame.onload = () => done('nothing to see'); document.body.append(frame, form); form.submit() })""",
}


@pytest.fixture(scope="module")
def node(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    with LocalMesh(tmp_path_factory.mktemp("sites"), "t", {"attic": ["core"]}, gateway__listen="127.0.0.1:0") as mesh:
        mesh.start()
        yield mesh


@pytest.fixture(scope="module")
def url(node: LocalMesh) -> str:
    """It is served, to those who are let in."""
    with node["attic"].client() as client:
        url = client.mesh.status().gateway
    assert json.load(urlopen(f"{url}/v1/status", timeout=30))["name"] == "attic"  # noqa: S310 - our own
    return url


@pytest.fixture(scope="module")
def away(chromium: str, node: LocalMesh) -> Iterator[Browser]:
    """A browser for which evil.example is this machine."""
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of another site's server here."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title><body>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("site", ["evil.example", "localhost", "127.0.0.1"])
def test_a_page_elsewhere_reads_and_changes_nothing(
    away: Browser, node: LocalMesh, url: str, port: int, site: str
) -> None:
    page = away.new_page()
    page.goto(f"http://{site}:{port}/")
    for which, script in TRIES.items():
        told = page.evaluate(f"node => ({script})(node).catch(error => error.name)", url)
        assert told in ("TypeError", "refused", "nothing to see"), (which, told)
    page.close()
    with node["attic"].client() as client:
        assert list(client.missions.list()) == []


def test_a_name_that_is_made_to_point_here_is_not_answered(away: Browser, url: str) -> None:
    page = away.new_page()
    answer = page.goto(f"http://evil.example:{url.rpartition(':')[2]}/v1/status")
    assert answer is not None
    assert answer.status == 403
    assert "node_id" not in answer.text()
    page.close()


def test_a_link_elsewhere_leads_to_the_page_and_the_page_to_its_node(away: Browser, url: str, port: int) -> None:
    page = away.new_page()
    page.goto(f"http://evil.example:{port}/")
    page.evaluate("url => { location.href = url }", f"{url}/")
    page.wait_for_url(f"{url}/*")
    page.get_by_text("Live", exact=True).wait_for()
    page.close()
