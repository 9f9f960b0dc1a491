"""Nodes that are known by their gateway's URL: what it says, what is wrong with what others say, and its silence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.discovery.gateways import ABOUT_PATH, About, Gateways, parse_about
from offgrid_node.discovery.hints import ADDRESSES_MAX
from offgrid_node.protocol.errors import InvalidRequest

NODE = "a" * 32
GOOD = {"node_id": NODE, "addresses": ["10.0.0.5:7440", "[fe80::1]:7440"]}


@contextmanager
def gateway(about: About) -> Iterator[str]:
    """The URL of one that says this at ABOUT_PATH, and nothing elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == ABOUT_PATH else 404)
            self.end_headers()
            self.wfile.write(about.text() if self.path == ABOUT_PATH else b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_gateway_tells_which_node_it_is_and_its_last_word_counts() -> None:
    attic = About(NODE, ("10.0.0.5:7440",))
    with gateway(attic) as url:
        gateways = Gateways("storage.hosts", [f"{url}/", url, f"{url}/elsewhere"])
        assert gateways.ask() == [attic]
        (notice,) = gateways.notices
        assert notice.startswith(f"storage.hosts = {url}/elsewhere: it does not say which node it is")
    assert gateways.ask() == gateways.known == [attic]


def test_one_that_never_answered_is_named_and_no_node() -> None:
    gateways = Gateways("jobs.broker_url", ["http://127.0.0.1:1"])
    assert gateways.ask() == []
    assert gateways.notices == (
        "jobs.broker_url = http://127.0.0.1:1: it does not say which node it is: Connection refused",
    )


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("{", "about"),
        ("[" * 9_000, "about"),
        ("[]", "about"),
        (json.dumps(GOOD | {"node_id": "A" * 32}), "node_id"),
        (json.dumps(GOOD | {"node_id": 7}), "node_id"),
        (json.dumps(GOOD | {"addresses": "10.0.0.5:7440"}), "addresses"),
        (json.dumps(GOOD | {"addresses": ["http://10.0.0.5:7440"]}), "addresses"),
        (json.dumps(GOOD | {"addresses": ["10.0.0.5"]}), "addresses"),
    ],
)
def test_what_is_wrong_is_named(said: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_about(said.encode())
    assert caught.value.violations[0].field == field


@given(st.binary(max_size=200))
def test_no_bytes_do_any_harm(text: bytes) -> None:
    with suppress(InvalidRequest):
        parse_about(text)


def test_more_addresses_than_anybody_has_are_left_out() -> None:
    many = json.dumps(GOOD | {"addresses": [f"10.0.0.5:{port}" for port in range(1, 99)]})
    assert len(parse_about(many.encode()).addresses) == ADDRESSES_MAX
