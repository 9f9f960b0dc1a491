"""Nodes that are known by their gateway's URL: what it says, what is wrong with what others say, and its silence."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.discovery.gateways import ABOUT_PATH, About, Gateways, parse_about
from offgrid_node.discovery.hints import ADDRESSES_MAX
from offgrid_node.gateway.about import AboutPage
from offgrid_node.gateway.http import HttpServer
from offgrid_node.protocol.errors import InvalidRequest

NODE = "a" * 32
GOOD = {"node_id": NODE, "addresses": ["10.0.0.5:7440", "[fe80::1]:7440"]}


def test_a_gateway_tells_which_node_it_is_and_its_last_word_counts() -> None:
    async def talk() -> None:
        page = AboutPage("attic", NODE, lambda: ("10.0.0.5:7440",))
        server = HttpServer({ABOUT_PATH: page.render})
        address = await server.listen("127.0.0.1:0")
        gateways = Gateways([f"http://{address}/", f"http://{address}", f"http://{address}/elsewhere"])
        assert await asyncio.to_thread(gateways.ask) == [About(NODE, ("10.0.0.5:7440",))]
        (notice,) = gateways.notices
        assert notice.startswith(f"http://{address}/elsewhere does not say which node it is")
        await server.close()
        assert await asyncio.to_thread(gateways.ask) == [About(NODE, ("10.0.0.5:7440",))]

    asyncio.run(talk())


def test_one_that_never_answered_is_named_and_no_node() -> None:
    gateways = Gateways(["http://127.0.0.1:1"])
    assert gateways.ask() == []
    assert "http://127.0.0.1:1 does not say" in gateways.notices[0]


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
