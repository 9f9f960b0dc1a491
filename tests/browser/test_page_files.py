"""Files of the page: up by parts that go on where they broke off, down by the browser itself."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from offgrid.client.payloads import builtin
from offgrid_node.local_mesh import LocalMesh

SIZE = 12_000_000
READ_BYTES = 65_536
NEVER = 2**63
WAIT_S, POLL_MS = 30.0, 20.0
PIECE_BYTES = 1_200_000  # what the gateway gathers before it writes, and some
PART_BYTES = 2_200_000  # what may come twice where a connection ends, and some

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("browser")]


class Link:
    """A way to the gateway, which counts the bytes that go there. From `stops_at` on nothing moves until `go_on`."""

    def __init__(self, to: tuple[str, int]) -> None:
        self.to, self.sent = to, 0
        self.stops_at = NEVER
        self._moves, self.stopped = threading.Event(), threading.Event()
        self._moves.set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def go_on(self, stops_at: int = NEVER) -> None:
        """By new connections."""
        self.stops_at = stops_at
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.stopped.clear()
        self._moves.set()

    def close(self) -> None:
        with self._server, suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self.go_on()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self.to)
                self._ends += [near, far]
                threading.Thread(target=self._carry, args=(near, far, 1), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, 0), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counts: int) -> None:
        with source, suppress(OSError):
            while data := source.recv(READ_BYTES):
                self._moves.wait()
                target.sendall(data)
                self.sent += counts * len(data)
                if self.sent > self.stops_at:
                    self._moves.clear()
                    self.stopped.set()
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def link(url: str) -> Iterator[Link]:
    place = urlsplit(url)
    link = Link((str(place.hostname), place.port or 0))
    yield link
    link.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_context(locale="en-GB").new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    page.context.close()


def choose(page: Page, file: Path) -> None:
    page.locator("#upload-file").set_input_files(file)
    page.get_by_role("button", name="Put").click()


def test_a_file_is_put_and_had_again(page: Page, url: str, tmp_path: Path) -> None:
    file = tmp_path / "map.txt"
    file.write_bytes(os.urandom(10_000))
    page.goto(f"{url}/#/storage")
    choose(page, file)
    row = page.locator("tbody tr", has_text="map.txt")
    expect(row).to_contain_text("durable")
    expect(row).to_contain_text(re.compile("any (one|2) of [23] hosts"))
    page.get_by_role("link", name="map.txt is here").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "map.txt"
    assert download.value.path().read_bytes() == file.read_bytes()


def test_where_one_host_alone_can_keep_it_one_copy_is_chosen(page: Page, url: str, tmp_path: Path) -> None:
    def two_members(route: Route) -> None:
        answer = route.fetch()
        peers = answer.json()["peers"]
        kept = [peer for peer in peers if peer["self"] or peer["member"]["name"] == "barn"]
        route.fulfill(response=answer, json={**answer.json(), "peers": kept})

    file = tmp_path / "one.txt"
    file.write_text("one copy of it")
    page.route("**/v1/peers?*", two_members)
    page.goto(f"{url}/#/storage")
    expect(page.locator("main")).to_contain_text("One host alone can keep it")
    choose(page, file)
    expect(page.locator("tbody tr", has_text="one.txt")).to_contain_text("durable")
    page.get_by_role("link", name="one.txt is here").click()
    expect(page.locator("main dl").first).to_contain_text("/ 1")  # the weight that makes it durable
    page.unroute_all(behavior="ignoreErrors")


def half_way(page: Page, link: Link, url: str, file: Path) -> None:
    """The link has stopped in the middle of it, and the node has what came so far."""
    file.write_bytes(os.urandom(SIZE))
    page.goto(f"{link.url}/#/storage")
    page.locator(".connection.good").wait_for()
    link.stops_at = link.sent + SIZE // 2
    choose(page, file)
    arrived(page, link, url, SIZE // 2 - PIECE_BYTES)
    expect(page.get_by_role("progressbar", name=file.name)).to_be_visible()


def arrived(page: Page, link: Link, url: str, least: int) -> None:
    """The link has stopped, and the node has so many bytes: the system's buffers may have held them all till now."""
    assert link.stopped.wait(WAIT_S)
    upload_id = page.evaluate("JSON.parse(sessionStorage['offgrid.upload']).id")
    until_s = time.monotonic() + WAIT_S
    while page.request.put(f"{url}/v1/uploads/{upload_id}").json()["offset"] < least:
        assert time.monotonic() < until_s
        page.wait_for_timeout(POLL_MS)


def test_what_breaks_off_goes_on_where_it_was(
    page: Page, link: Link, url: str, mesh: LocalMesh, tmp_path: Path
) -> None:
    file = tmp_path / "survey.bin"
    half_way(page, link, url, file)
    link.go_on(stops_at=link.sent + SIZE // 4)
    arrived(page, link, url, SIZE * 3 // 4 - PART_BYTES - PIECE_BYTES)
    link.go_on()
    expect(page.get_by_role("link", name="survey.bin is here")).to_be_visible()
    assert link.sent < SIZE + 2 * PART_BYTES
    with mesh["attic"].client() as client, client.objects.open("survey.bin") as stream:
        assert stream.read() == file.read_bytes()


def test_it_goes_on_after_a_reload_when_the_same_file_is_chosen(
    page: Page, link: Link, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "film.bin"
    half_way(page, link, url, file)
    page.goto("about:blank")
    link.go_on()
    before = link.sent
    page.goto(f"{link.url}/#/storage")
    expect(page.locator("main")).to_contain_text("film.bin broke off.")
    choose(page, file)
    expect(page.get_by_role("link", name="film.bin is here")).to_be_visible()
    assert link.sent - before < SIZE // 2 + PART_BYTES


def test_what_is_cancelled_is_given_up_at_the_node_too(page: Page, link: Link, url: str, tmp_path: Path) -> None:
    half_way(page, link, url, tmp_path / "wrong one.bin")
    page.get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("link", name="Storage")).to_contain_text("%")
    page.get_by_role("link", name="Storage").click()
    with page.expect_response(lambda one: one.request.method == "DELETE" and "/v1/uploads/" in one.url) as given_up:
        page.get_by_role("button", name="Cancel").click()
        link.go_on()
    assert given_up.value.ok
    expect(page.get_by_role("progressbar")).to_have_count(0)
    expect(page.get_by_role("button", name="Put")).to_be_enabled()


def test_what_cannot_be_had_is_said_in_words_and_saved_as_no_file(page: Page, url: str, mesh: LocalMesh) -> None:
    with mesh["attic"].client() as client:
        page.goto(f"{url}/#/storage/{client.objects.put(b'soon gone', name='gone').object_id}")
        button = page.get_by_role("button", name="Download")
        button.wait_for()
        error = {"code": 500, "status": "DATA_LOSS", "message": "no shard of it is whole", "details": []}
        page.route("**/v1/objects/*:bytes", lambda route: route.fulfill(status=500, json={"error": error}))
        button.click()
        expect(page.get_by_role("alert")).to_contain_text("No shard of it is whole")


def test_a_large_result_is_saved_under_the_name_of_its_job(page: Page, url: str, mesh: LocalMesh) -> None:
    told = os.urandom(300_000)
    with mesh["attic"].client() as client:
        job = client.submit(builtin("echo", input=told))
        job.result(WAIT_S)
        page.goto(f"{url}/#/jobs/{job.job_id}")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == f"{job.job_id}.output"
    assert download.value.path().read_bytes() == told


def test_a_cut_that_closes_nothing_is_noticed_and_a_link_back_is_live_again(page: Page, link: Link) -> None:
    page.goto(f"{link.url}/#/settings")
    page.locator(".connection.good").wait_for()
    link.stops_at = 0
    expect(page.locator(".connection")).to_contain_text("No answer")
    link.go_on()
    expect(page.locator(".connection.good")).to_be_visible()
