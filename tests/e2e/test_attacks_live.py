"""What others may try at a node's gateway, over real sockets: each is refused, changes nothing, leaves it serving."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from typing import NamedTuple

import pytest
from live import GIVE_UP_S, log_of
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from offgrid_node.folder import Folder
from offgrid_node.keys import NodeKey
from offgrid_node.local_mesh import LocalMesh, LocalNode

TOKEN = "a-token-of-the-owner"
KEY_CHARS_MIN = 40  # in a key's file; a node's id in it is shorter
MISSION = '{"title": "mine"}'
EVIL = "Origin: http://evil.example"
HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


class Place(NamedTuple):
    """A node, and where its gateway is."""

    node: LocalNode
    port: int

    @property
    def own(self) -> str:
        return f"127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Place]]:
    """Without a token, and with one."""
    folder = tmp_path_factory.mktemp("attacks")
    nodes = {"open": ["core", "broker", "host"], "closed": ["core"]}
    with LocalMesh(folder, "t", nodes, gateway__listen="127.0.0.1:0", metrics__listen="127.0.0.1:0") as mesh:
        closed = mesh["closed"]
        closed.settings = {**closed.settings, "gateway.token": TOKEN}
        mesh.start()
        yield place_of(mesh["open"]), place_of(closed)
        stopped = mesh.stop()
        for node in mesh.nodes.values():
            log = log_of(node)
            assert not [secret for secret in secrets_of(node) if secret in log]
    assert set(stopped.values()) == {0}, stopped


@pytest.fixture
def site(places: tuple[Place, Place]) -> Place:
    return places[0]


@pytest.fixture
def closed(places: tuple[Place, Place]) -> Place:
    return places[1]


def secrets_of(node: LocalNode) -> Iterator[str]:
    """What is set, what is in its key files, its words, and the beginning of any invite."""
    keys = Folder(node.folder).keys_path
    yield from (TOKEN, "og1:", NodeKey.load(keys).recovery_words())
    found = [word for path in keys.glob("*.key") for word in path.read_text().split() if len(word) >= KEY_CHARS_MIN]
    assert found, "its own key at least"
    yield from found


def place_of(node: LocalNode) -> Place:
    with node.client() as client:
        return Place(node, int(client.mesh.status().gateway.rpartition(":")[2]))


def send(place: Place, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status (0: it was cut off), header fields, body of the first answer; the connection is then closed."""
    with socket.create_connection(("127.0.0.1", place.port), timeout=GIVE_UP_S) as connection:
        with suppress(ConnectionError):
            connection.sendall(raw)
        try:
            answer = HTTPResponse(connection, method=raw[:4].decode("latin-1").strip())
            answer.begin()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        except (ConnectionError, HTTPException):
            return 0, {}, b""


def ask(place: Place, line: str, *fields: str, host: str | None = None, body: str | bytes = "") -> bytes:
    """A request's bytes. `host` None: the right one; "": none."""
    raw = body.encode() if isinstance(body, str) else body
    host_fields = [] if host == "" else [f"Host: {host or place.own}"]
    length = [f"Content-Length: {len(raw)}"] if raw else []
    lines = [
        f"{line} HTTP/1.1",
        *host_fields,
        *length,
        *fields,
        *([] if fields[:1] == HANDSHAKE[:1] else ["Connection: close"]),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + raw


def missions(place: Place) -> int:
    with place.node.client() as client:
        return sum(1 for _ in client.missions.list())


def reason(body: bytes) -> str:
    return str(json.loads(body)["error"]["details"][0]["reason"])


# ---- pages of other sites

PAGES = {
    "a form": ("POST /v1/missions", (EVIL, "Content-Type: application/x-www-form-urlencoded"), "title=x"),
    "fetch in mode no-cors": ("POST /v1/missions", (EVIL, "Content-Type: text/plain"), MISSION),
    "fetch with JSON": ("POST /v1/missions", (EVIL, "Content-Type: application/json"), MISSION),
    "a sandboxed frame": ("POST /v1/missions", ("Origin: null",), MISSION),
    "another port of this machine": ("POST /v1/missions", ("Origin: http://127.0.0.1:1",), MISSION),
    "a site that shares the address": ("POST /v1/missions", ("Sec-Fetch-Site: same-site",), MISSION),
    "no Origin but the browser's word": ("POST /v1/missions", ("Sec-Fetch-Site: cross-site",), MISSION),
    "a beacon to the prototype's path": ("POST /run", (EVIL, "Content-Type: text/plain"), "{}"),
    "a preflight": ("OPTIONS /v1/missions", (EVIL, "Access-Control-Request-Method: DELETE"), ""),
    "a script": ("GET /v1/status", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: script"), ""),
    "an image": ("GET /v1/status", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"), ""),
    "a frame": ("GET /", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"), ""),
    "a link to data": (
        "GET /v1/jobs",
        ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
        "",
    ),
    "a WebSocket": ("GET /v1/feed", (*HANDSHAKE, EVIL), ""),
    "a WebSocket of no origin": ("GET /v1/feed", (*HANDSHAKE, "Origin: null"), ""),
    "an override of the method": ("GET /v1/missions", (EVIL, "X-HTTP-Method-Override: POST"), ""),
}


@pytest.mark.parametrize("which", PAGES)
def test_no_page_of_another_site_reads_or_changes_anything(site: Place, which: str) -> None:
    line, fields, body = PAGES[which]
    status, headers, said = send(site, ask(site, line, *fields, body=body))
    assert (status, reason(said)) == (403, "CrossSite")
    assert "access-control-allow-origin" not in headers
    assert missions(site) == 0


# ---- names that are made to point here

NAMES = {
    "a name": ("evil.example", ()),
    "with the port": ("evil.example:{port}", ("Origin: http://evil.example:{port}", "Sec-Fetch-Site: same-origin")),
    "with a dot at its end": ("evil.example.", ()),
    "that begins like an address": ("127.0.0.1.evil.example", ()),
    "that ends like localhost": ("evil.localhost.example", ()),
    "with somebody before it": ("127.0.0.1@evil.example", ()),
    "none": ("", ()),
    "in a WebSocket": ("evil.example", HANDSHAKE),
}


@pytest.mark.parametrize("which", NAMES)
def test_no_name_that_is_made_to_point_here_is_answered(site: Place, which: str) -> None:
    host, fields = NAMES[which]
    shown = [field.format(port=site.port) for field in fields]
    status, _, said = send(site, ask(site, "GET /v1/status", *shown, host=host.format(port=site.port)))
    assert status in (400, 403)
    assert b"node_id" not in said


# ---- what is no proper request

TARGETS = (
    "/page/../../../../etc/passwd",
    "/page/%2e%2e/%2e%2e/etc/passwd",
    "/page/%252e%252e/%252e%252e/etc/passwd",
    "/page/..%5c..%5cetc",
    "/docs/..%2f..%2fetc/passwd",
    "/docs/%c0%ae%c0%ae/x",
    "/docs/%00",
    "/page/x%00.js",
    "/page//etc/passwd",
    "//etc/passwd",
    "/v1/objects/..%2f..%2fkeys",
    "/v1/jobs/%0d%0aSet-Cookie:%20a=b",
)


@pytest.mark.parametrize("target", TARGETS)
def test_no_path_leads_to_a_file_of_this_machine(site: Place, target: str) -> None:
    status, headers, said = send(site, ask(site, f"GET {target}"))
    assert status in (400, 404)
    assert b"root:" not in said
    assert "set-cookie" not in headers


def http(line: str, *fields: str, body: bytes = b"", host: bool = True) -> bytes:
    """As it stands; HERE is where the node is."""
    lines = [line, *(["Host: HERE"] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode() + body


POST, GET, CHUNKED = "POST /v1/missions HTTP/1.1", "GET /v1/status HTTP/1.1", "Transfer-Encoding: chunked"
MEBIBYTE = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
BOMB = gzip.compress(bytes(10_000_000))
HTTP = {
    "two lengths of one body": http(POST, "Content-Length: 4", "Content-Length: 60", body=b"xxxx"),
    "a length and chunks": http(POST, "Content-Length: 6", CHUNKED, body=b"0\r\n\r\n" + http(GET)),
    "chunks in a disguise": http(POST, "Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunks and more": http(POST, "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "a length below nothing": http(POST, "Content-Length: -1"),
    "a length with a sign": http(POST, "Content-Length: +4", body=b"xxxx"),
    "a chunk of no size": http(POST, CHUNKED, body=b"zz\r\n"),
    "a chunk of every size": http(POST, CHUNKED, body=b"f" * 40 + b"\r\nx"),
    "two hosts": http(GET, "Host: evil.example"),
    "another's address": http("GET http://evil.example/v1/status HTTP/1.1"),
    "a proxy's request": http("GET http://HERE/v1/status HTTP/1.1"),
    "a tunnel": http("CONNECT evil.example:443 HTTP/1.1"),
    "no target": http("OPTIONS * HTTP/1.1"),
    "a folded line": http(GET, "X: a", " b\0"),
    "a folded field that all would take": http(GET, "X: a", "\tb"),
    "a folded host": http(GET, "Host:", " HERE", host=False),
    "chunks behind a fold": http(POST, "Transfer-Encoding:", " chunked", body=b"0\r\n\r\n"),
    "a blank before the colon": http(GET, "Host : evil.example"),
    "a NUL in a field": http(GET, "X: a\0b"),
    "HTTP/2 at once": http("PRI * HTTP/2.0", host=False, body=b"SM\r\n\r\n"),
    "another version": http("GET /v1/status HTTP/3.1"),
    "HTTP/0.9": http("GET /v1/status", host=False),
    "HTTP/1.0 without a host": http("GET /v1/status HTTP/1.0", host=False),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "an unknown method": http("PROPFIND /v1/missions HTTP/1.1"),
    "TRACE": http("TRACE /v1/missions HTTP/1.1", "Cookie: secret=1"),
    "HEAD of what changes": http("HEAD /v1/pageLinks HTTP/1.1"),
    "a head without an end": http(GET, "X: ")[:-4] + b"x" * 300_000,
    "a large head": http(GET, f"X: {'x' * 20_000}"),
    "a thousand fields": http(GET, *["X: 1234567890"] * 2_000),
    "a body that is too large": http(POST, "Content-Length: 99999999999", body=b"{"),
    "chunks that are too large": http(
        POST, CHUNKED, body=(b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 7 + b"0\r\n\r\n"
    ),
    "a bomb of gzip": http(POST, "Content-Encoding: gzip", f"Content-Length: {len(BOMB)}", body=BOMB),
    "a bomb of brackets": http(POST, "Content-Length: 200000", body=b"[" * 200_000),
    "a WebSocket of another version": http("GET /v1/feed HTTP/1.1", *HANDSHAKE[:2], "Sec-WebSocket-Version: 7"),
    "a WebSocket without a key": http("GET /v1/feed HTTP/1.1", *HANDSHAKE[:3]),
    "a WebSocket elsewhere": http(GET, *HANDSHAKE),
    "a WebSocket by POST": http("POST /v1/feed HTTP/1.1", *HANDSHAKE),
    "a WebSocket with a body": http("GET /v1/feed HTTP/1.1", *HANDSHAKE, "Content-Length: 2", body=b"{}"),
    "a WebSocket in chunks": http("GET /v1/feed HTTP/1.1", *HANDSHAKE, CHUNKED, body=b"0\r\n\r\n"),
    "a WebSocket of many fields": http("GET /v1/feed HTTP/1.1", *HANDSHAKE, *["X: y"] * 200),
    "a WebSocket of a long path": http(f"GET /v1/feed?after={'1' * 9_000} HTTP/1.1", *HANDSHAKE),
    "chunks of long names": http(POST, CHUNKED, body=b"1;" + b"a" * 100_000 + b"\r\n{\r\n0\r\n\r\n"),
    "h2c of what is not there": http("GET /nothing HTTP/1.1", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "a WebSocket in HTTP/1.0": http("GET /v1/feed HTTP/1.0", *HANDSHAKE),
    "chunks in HTTP/1.0": http(
        "POST /v1/missions HTTP/1.0", CHUNKED, body=b"11\r\n" + MISSION.encode() + b"\r\n0\r\n\r\n"
    ),
    "half a surrogate pair as a key": http(POST, "Content-Length: 15", body=b'{"\\ud800": "x"}'),
    "a number of many digits": http(POST, "Content-Length: 5012", body=b'{"title": ' + b"9" * 5_001 + b"}"),
    "a slash that is encoded": http("GET /v1%2fstatus/x HTTP/1.1"),
}


@pytest.mark.parametrize("which", HTTP)
def test_what_is_no_proper_request_is_refused_and_the_next_one_served(site: Place, which: str) -> None:
    status, headers, said = send(site, HTTP[which].replace(b"HERE", site.own.encode()))
    assert 400 <= status < 500 or status in (501, 505), (status, said[:200])
    if not HTTP[which].startswith(b"HEAD"):
        assert reason(said)
        assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert b"Traceback" not in said
    assert b"node_id" not in said
    assert missions(site) == 0
    assert send(site, ask(site, "GET /v1/about"))[0] == 200


# ---- who has no token

CLOSED = {
    "nothing": ("GET /v1/status", (), "TokenMissing"),
    "a token in the URL": (f"GET /v1/status?token={TOKEN}&access_token={TOKEN}", (), "TokenMissing"),
    "a wrong one": ("GET /v1/status", ("Authorization: Bearer a-token-of-the-other",), "TokenWrong"),
    "another scheme": ("GET /v1/status", ("Authorization: Basic YTpi",), "TokenWrong"),
    "a forged cookie": ("GET /v1/status", (f"Cookie: offgrid={TOKEN}",), "TokenMissing"),
    "the metrics": ("GET /metrics", (), "TokenMissing"),
    "the prototype's paths": ("POST /api/missions", (), "TokenMissing"),
    "a file": ("PUT /v1/objects/x", (), "TokenMissing"),
    "a WebSocket": ("GET /v1/feed", HANDSHAKE, "TokenMissing"),
    "an address that a proxy says": ("GET /v1/status", ("X-Forwarded-For: 127.0.0.1",), "TokenMissing"),
}


@pytest.mark.parametrize("which", CLOSED)
def test_without_the_token_there_is_nothing(closed: Place, which: str) -> None:
    line, fields, why = CLOSED[which]
    status, headers, said = send(closed, ask(closed, line, *fields))
    assert (status, reason(said)) == (401, why)
    assert headers["www-authenticate"].startswith('Bearer realm="offgrid-node"')
    assert TOKEN.encode() not in said


def test_a_cookie_signs_in_until_it_signs_out(closed: Place) -> None:
    own = f"Origin: http://{closed.own}"
    assert send(closed, ask(closed, "POST /v1/login", EVIL, body=json.dumps({"token": TOKEN})))[0] == 403
    status, headers, _ = send(closed, ask(closed, "POST /v1/login", own, body=json.dumps({"token": TOKEN})))
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert status == 204
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert TOKEN not in cookie
    signed = f"Cookie: {cookie}"
    assert send(closed, ask(closed, "GET /v1/status", signed))[0] == 200
    assert send(closed, ask(closed, "POST /v1/missions", signed, body=MISSION))[0] == 403  # no browser says no Origin
    assert send(closed, ask(closed, "POST /v1/missions", signed, EVIL, body=MISSION))[0] == 403
    assert missions(closed) == 0
    assert send(closed, ask(closed, "POST /v1/logout", signed, own))[0] == 204
    assert send(closed, ask(closed, "GET /v1/status", signed))[0] == 401


def test_the_feed_is_for_who_shows_the_token_or_the_cookie(closed: Place) -> None:
    _, headers, _ = send(closed, ask(closed, "POST /v1/login", body=json.dumps({"token": TOKEN})))
    cookie = headers["set-cookie"].partition(";")[0]
    for shown in ({"Authorization": f"Bearer {TOKEN}"}, {"Cookie": cookie, "Origin": f"http://{closed.own}"}):
        with connect(f"ws://{closed.own}/v1/feed", additional_headers=shown, max_size=2**24) as feed:
            assert json.loads(feed.recv())["type"] == "state.sync"
    elsewhere = {"Cookie": cookie, "Origin": "http://evil.example"}
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://{closed.own}/v1/feed", additional_headers=elsewhere):
        pass
    assert refused.value.response.status_code == 403


def test_a_link_to_the_page_signs_in_once(closed: Place) -> None:
    with closed.node.client() as client:
        code = client.mesh.page_link().url.partition("#code=")[2]
    body = json.dumps({"code": code})
    assert send(closed, ask(closed, "POST /v1/login", body=body))[0] == 204
    assert send(closed, ask(closed, "POST /v1/login", body=body))[0] == 401


def test_guessing_is_made_to_wait_and_those_who_are_signed_in_are_not(closed: Place) -> None:
    _, headers, _ = send(closed, ask(closed, "POST /v1/login", body=json.dumps({"token": TOKEN})))
    cookie = f"Cookie: {headers['set-cookie'].partition(';')[0]}"
    codes = [send(closed, ask(closed, "GET /v1/status", f"Authorization: Bearer {n}"))[0] for n in range(12)]
    assert codes[0] == 401
    assert codes[-1] == 429
    status, headers, _ = send(closed, ask(closed, "GET /v1/status", f"Authorization: Bearer {TOKEN}"))
    assert (status, 1 <= int(headers["retry-after"]) <= 6) == (429, True)
    assert send(closed, ask(closed, "GET /v1/status", cookie))[0] == 200


def test_what_monitoring_is_shown_is_all_that_it_is_shown(closed: Place) -> None:
    port = int((closed.node.folder / "data" / "metrics.address").read_text().rpartition(":")[2])
    monitoring = Place(closed.node, port)
    assert send(monitoring, ask(monitoring, "GET /metrics"))[0] == 200
    assert send(monitoring, ask(monitoring, "GET /v1/about"))[0] == 200
    for path in ("/", "/v1/status", "/status", "/api/missions", "/v1/feed", "/openapi.json", "/docs"):
        assert send(monitoring, ask(monitoring, f"GET {path}"))[0] == 404, path


def test_every_answer_tells_browsers_what_they_may_do_with_it(site: Place) -> None:
    for line, host in (
        ("GET /v1/about", None),
        ("GET /nothing", None),
        ("GET /", None),
        ("GET /v1/status", "evil.example"),
    ):
        _, headers, _ = send(site, ask(site, line, host=host))
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == headers["cross-origin-opener-policy"] == "same-origin"
        assert "server" not in headers
