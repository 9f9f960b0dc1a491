"""Where a node is reached over HTTP: its addresses, the link to its page, and a gateway that cannot be served."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from ipv6 import needs_six

from offgrid_node.access_files import GATEWAY_NAME
from offgrid_node.config import load
from offgrid_node.gateway.node_view import NodeView
from offgrid_node.protocol.errors import FailedPrecondition, Unavailable
from offgrid_node.web import Web

TOKEN = 'token = "correct-horse-battery"'


def web(folder: Path, gateway: str, metrics: str = "") -> Web:
    text = f'mesh.name = "home"\nmetrics.listen = "{metrics}"\n[gateway]\n{gateway}\n'
    (folder / "offgrid.toml").write_text(text, encoding="utf-8")
    made = Web(load(folder / "offgrid.toml", {}))
    made.bind()
    return made


@pytest.mark.parametrize(
    ("gateway", "metrics", "url", "shown"),
    [
        ('listen = "off"', "", "", ""),
        ('listen = "127.0.0.1:0"', "", "http://127.0.0.1:", "127.0.0.1:"),
        pytest.param('listen = "[::1]:0"', "", "http://[::1]:", "[::1]:", marks=needs_six),
        (f'listen = "0.0.0.0:0"\n{TOKEN}', "", "http://127.0.0.1:", ""),
        (f'listen = "127.0.0.1:0"\n{TOKEN}', "", "http://127.0.0.1:", ""),
        ('listen = "off"', "127.0.0.1:0", "", "127.0.0.1:"),
    ],
)
def test_its_url_and_where_metrics_are_shown_without_a_token(
    tmp_path: Path, gateway: str, metrics: str, url: str, shown: str
) -> None:
    made = web(tmp_path, gateway, metrics)
    assert made.url.rstrip("0123456789") == url
    assert made.metrics.rstrip("0123456789") == shown
    asyncio.run(made.close())


@pytest.mark.parametrize(("secret", "said"), [("", 0), ("a" * 15, 1), ("a" * 16, 0)])
def test_a_secret_that_is_soon_guessed_is_told_of_and_not_shown(tmp_path: Path, secret: str, said: int) -> None:
    made = web(tmp_path, f'listen = "127.0.0.1:0"\nauth_key = "{secret}"')
    assert [text[:52] for text in made.notices] == ["gateway.auth_key has less than 16 characters: who se"] * said
    asyncio.run(made.close())


def test_there_is_no_link_to_a_page_that_is_not_there(tmp_path: Path) -> None:
    made = web(tmp_path, 'listen = "off"')
    with pytest.raises(FailedPrecondition, match=r"gateway\.listen is \"off\""):
        made.page_link()
    made = web(tmp_path, 'listen = "127.0.0.1:0"')
    with pytest.raises(Unavailable, match="not up yet"):
        made.page_link()
    asyncio.run(made.close())


@pytest.mark.parametrize(
    ("listen", "url"),
    [("0.0.0.0:0", "http://192.0.2.7:"), ("127.0.0.1:0", "http://127.0.0.1:")],
)
def test_who_listens_everywhere_is_named_by_what_others_reach(tmp_path: Path, listen: str, url: str) -> None:
    made = web(tmp_path, f'listen = "{listen}"\n{TOKEN}')
    assert made.told(["192.0.2.7:7440"]).rstrip("0123456789") == url
    asyncio.run(made.close())


def test_a_gateway_that_cannot_be_served_is_said_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    def broken() -> NodeView:
        raise RuntimeError("nothing to view")

    async def whole() -> Web:
        made = web(tmp_path, 'listen = "127.0.0.1:0"')
        url = made.url
        made.start(broken)
        while not made.notices:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        with pytest.raises(urllib.error.URLError):
            await asyncio.to_thread(urllib.request.urlopen, url, timeout=10)
        await made.close()
        return made

    made = asyncio.run(whole())
    assert made.notices == ("the gateway cannot be served, the log says more: RuntimeError: nothing to view",)
    assert made.url == made.metrics == made.told(["192.0.2.7:7440"]) == ""


def test_a_node_listens_where_it_did_last_though_another_port_is_free_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (web(tmp_path, 'listen = "127.0.0.1:0"') for _ in "ab")
    ports = [int(each.address.rpartition(":")[2]) for each in (first, second)]
    monkeypatch.setattr("offgrid_node.web.auto_ports", lambda roles: ports)
    for each in (first, second):
        asyncio.run(each.close())
    for kept, wanted in ((None, 0), (f"127.0.0.1:{ports[1]}", 1), ("127.0.0.1:1", 0), ("?", 0)):
        (tmp_path / "data").mkdir(exist_ok=True)
        if kept is not None:
            (tmp_path / "data" / GATEWAY_NAME).write_text(kept)
        made = web(tmp_path, 'listen = "auto"')
        assert made.address == f"127.0.0.1:{ports[wanted]}"
        asyncio.run(made.close())
