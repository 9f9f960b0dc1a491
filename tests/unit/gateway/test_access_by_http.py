"""Which requests are let in: one row each, as browsers and programs send them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.gateway.access import Asked, Proof, admit, policy_of
from offgrid_node.gateway.faults import Refusal
from offgrid_node.gateway.sign_ins import SignIns
from offgrid_node.gateway.tries import TRIES_MAX

TOKEN = "correct-horse-battery"
HOST = "Host: 127.0.0.1:8001"
OWN = "Origin: http://127.0.0.1:8001"
LINK = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
BEARER = f"Authorization: Bearer {TOKEN}"


def asked(line: str, *fields: str, peer: str = "127.0.0.1") -> Asked:
    method, path = line.split(" ")
    pairs = (field.partition(": ") for field in fields)
    return Asked(method, path, [(name.lower().encode(), value.encode()) for name, _, value in pairs], peer)


def outcome(line: str, *fields: str, token: str = "", signed: bool = False, hosts: tuple[str, ...] = ()) -> str:
    """The proof's name, or the refusal's reason."""
    policy = policy_of(hosts, SignIns(token, "offgrid-x") if token else None, signed=signed)
    found = admit(asked(line, *fields), policy, 0)
    return found.reason if isinstance(found, Refusal) else found.name


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1:8001", "NONE"),
        ("[::1]:8001", "NONE"),
        ("LOCALHOST.", "NONE"),
        ("attic.local:1", "NONE"),
        ("0.0.0.0:8001", "NONE"),
        ("localhost..", "UnknownHost"),
        ("localhost\xa0", "UnknownHost"),
        ("[::1%25eth0]", "UnknownHost"),
        ("evil.example:8001", "UnknownHost"),
        ("127.0.0.1.evil.example", "UnknownHost"),
        ("evil.example@127.0.0.1", "UnknownHost"),
        ("127.0.0.1#evil.example", "UnknownHost"),
        ("127.0.0.1:8001:8001", "UnknownHost"),
        ("0x7f000001", "UnknownHost"),
        ("2130706433", "UnknownHost"),
        ("[::1", "UnknownHost"),
        ("[evil.example]", "UnknownHost"),
        ("::1", "UnknownHost"),
        ("", "UnknownHost"),
    ],
)
def test_a_request_has_to_mean_this_node(host: str, said: str) -> None:
    assert outcome("GET /v1/status", f"Host: {host}", hosts=("Attic.Local.",)) == said


@pytest.mark.parametrize(
    ("line", "uid", "said"),
    [
        ("POST /v1/backups", 1000, "NONE"),
        ("GET /v1/status", 0, "NONE"),
        ("GET /v1/status", 1001, "OtherUser"),
        ("POST /v1/backups", 1001, "OtherUser"),
        ("GET /v1/feed", None, "UnknownUser"),
        ("GET /metrics", 1001, "OtherUser"),
        ("GET /v1/about", 1001, "NONE"),
        ("GET /page/app.js", None, "NONE"),
        ("POST /v1/login", 1000, "NONE"),
        ("POST /v1/login", 1001, "OtherUser"),
        ("POST /run", 1001, "LATER"),
        ("GET /api/jobs", 1001, "OtherUser"),
    ],
)
def test_without_a_token_it_is_for_its_own_user_and_root(line: str, uid: int | None, said: str) -> None:
    policy = policy_of((), signed=True, uids=frozenset({0, 1000}))
    found = admit(msgspec.structs.replace(asked(line, HOST), uid=uid), policy, 0)
    assert (found.reason if isinstance(found, Refusal) else found.name) == said


def test_there_is_one_host() -> None:
    assert outcome("GET /v1/status") == "BadHost"
    assert outcome("GET /v1/status", HOST, HOST) == "BadHost"


@pytest.mark.parametrize(
    ("line", "fields", "said"),
    [
        # Programs say nothing of sites, the page's own requests that they are its own.
        ("POST /v1/missions", (), "NONE"),
        ("POST /v1/missions", (OWN, "Sec-Fetch-Site: same-origin"), "NONE"),
        ("GET /v1/status", ("Sec-Fetch-Site: same-origin",), "NONE"),
        ("GET /v1/status", ("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), "NONE"),
        # A form, fetch in mode no-cors, a script, an image, a frame, a WebSocket of another page.
        ("POST /v1/missions", ("Origin: http://evil.example", "Sec-Fetch-Site: cross-site"), "CrossSite"),
        ("POST /v1/missions", ("Origin: http://evil.example",), "CrossSite"),
        ("POST /v1/missions", ("Origin: null",), "CrossSite"),
        ("POST /v1/missions", ("Sec-Fetch-Site: cross-site",), "CrossSite"),
        ("GET /v1/status", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"), "CrossSite"),
        ("GET /v1/feed", ("Origin: http://evil.example",), "CrossSite"),
        ("OPTIONS /v1/missions", ("Origin: http://evil.example",), "CrossSite"),
        # Another port of this machine, another scheme's port, another name for it.
        ("POST /v1/missions", ("Origin: http://127.0.0.1:9999", "Sec-Fetch-Site: same-site"), "CrossSite"),
        ("GET /v1/status", ("Sec-Fetch-Site: same-site",), "CrossSite"),
        ("POST /v1/missions", ("Origin: http://127.0.0.1",), "CrossSite"),
        ("POST /v1/missions", ("Origin: http://localhost:8001",), "CrossSite"),
        ("POST /v1/missions", ("Origin: http://127.0.0.1:8001.evil.example",), "CrossSite"),
        ("POST /v1/missions", ("Origin: http://evil.example@127.0.0.1:8001",), "CrossSite"),
        ("POST /v1/missions", ("Origin: http://127.0.0.1:8001/x",), "CrossSite"),
        ("POST /v1/missions", ("Origin: ftp://127.0.0.1:8001",), "CrossSite"),
        ("POST /v1/missions", ("Origin: http://127.0.0.1:x",), "CrossSite"),
        ("POST /v1/missions", (OWN, "Origin: http://evil.example"), "CrossSite"),
        ("POST /v1/missions", (OWN, "Sec-Fetch-Site: cross-site"), "CrossSite"),
        ("POST /v1/missions", ("Sec-Fetch-Site: anything",), "CrossSite"),
        # A link elsewhere may lead to the page and the documents, not to data, and neither into a frame.
        ("GET /", LINK, "NONE"),
        ("GET /docs/x", LINK, "NONE"),
        ("GET /v1/status", LINK, "CrossSite"),
        ("POST /", LINK, "CrossSite"),
        ("GET /", (*LINK[:2], "Sec-Fetch-Dest: iframe"), "CrossSite"),
        ("GET /", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"), "CrossSite"),
    ],
)  # fmt: skip
def test_pages_of_others_ask_for_nothing(line: str, fields: tuple[str, ...], said: str) -> None:
    assert outcome(line, HOST, *fields) == said


@pytest.mark.parametrize("origin", ["https://attic.example", "http://attic.example", "https://attic.example:443"])
def test_behind_a_tunnel_that_speaks_tls_the_page_is_its_own(origin: str) -> None:
    said = outcome("POST /v1/missions", "Host: attic.example", f"Origin: {origin}", hosts=("attic.example",))
    assert said == "NONE"


@pytest.mark.parametrize(
    ("line", "fields", "said"),
    [
        ("GET /v1/status", (BEARER,), "TOKEN"),
        ("POST /v1/missions", (f"Authorization: bearer  {TOKEN}",), "TOKEN"),
        ("GET /v1/status", (), "TokenMissing"),
        ("GET /v1/feed", (), "TokenMissing"),
        ("GET /metrics", (), "TokenMissing"),
        ("OPTIONS /v1/missions", (), "TokenMissing"),
        ("GET /no/such/path", (), "TokenMissing"),
        ("GET /v1/status", ("Authorization: Bearer wrong",), "TokenWrong"),
        ("GET /v1/status", (f"Authorization: Basic {TOKEN}",), "TokenWrong"),
        ("GET /v1/status", (f"Authorization: {TOKEN}",), "TokenWrong"),
        ("GET /v1/status", ("Authorization: Bearer ",), "TokenWrong"),
        ("GET /v1/status", (BEARER, BEARER), "TokenWrong"),
        ("GET /v1/status", ("Cookie: offgrid-x=forged",), "TokenMissing"),
        ("GET /", ("Authorization: Bearer wrong",), "NONE"),
        ("GET /", (), "NONE"),
        ("HEAD /page/abc/app.js", (), "NONE"),
        ("POST /page/qr", (), "TokenMissing"),
        ("GET /docs/guide", (), "NONE"),
        ("GET /v1/about", (), "NONE"),
        ("GET /announce", (), "NONE"),
        ("POST /announce", (), "TokenMissing"),
        ("GET /openapi.json", (), "NONE"),
        ("POST /v1/login", (), "NONE"),
        ("GET /v1/login", (), "TokenMissing"),
        ("POST /run", (), "TokenMissing"),
    ],
)
def test_where_there_is_a_token_it_is_asked_for(line: str, fields: tuple[str, ...], said: str) -> None:
    assert outcome(line, HOST, *fields, token=TOKEN) == said


def test_what_is_open_to_all_is_so_to_those_who_guessed_too_often() -> None:
    policy = policy_of((), SignIns(TOKEN, "offgrid-x"))
    for _ in range(TRIES_MAX):
        admit(asked("GET /v1/status", HOST, "Authorization: Bearer wrong"), policy, 0)
    refused = admit(asked("GET /v1/status", HOST, BEARER), policy, 0)
    assert isinstance(refused, Refusal)
    assert refused.code == 429
    for fields in ((BEARER,), ("Authorization: Bearer wrong",), ()):
        assert admit(asked("GET /v1/about", HOST, *fields), policy, 0) is Proof.NONE


def test_a_signature_does_instead_on_the_paths_of_the_prototype_alone() -> None:
    for path in ("/run", "/auction", "/toggle", "/api/missions"):
        assert outcome(f"POST {path}", HOST, token=TOKEN, signed=True) == "LATER"
        assert outcome(f"GET {path}", HOST, token=TOKEN, signed=True) == "TokenMissing"
    assert outcome("POST /v1/missions", HOST, token=TOKEN, signed=True) == "TokenMissing"


def test_the_cookie_of_a_sign_in_does_until_it_ends_and_changes_nothing_without_an_origin() -> None:
    signs = SignIns(TOKEN, "offgrid-x")
    policy = policy_of((), signs)
    value = signs.sign_in(TOKEN, "127.0.0.1", 0)
    assert isinstance(value, str)
    cookie = f"Cookie: a=b; offgrid-x={value}; c=d"
    assert admit(asked("GET /v1/status", HOST, cookie), policy, 1) is Proof.TOKEN
    assert admit(asked("POST /v1/missions", HOST, OWN, cookie), policy, 1) is Proof.TOKEN
    assert admit(asked("POST /v1/missions", HOST, "Sec-Fetch-Site: same-origin", cookie), policy, 1) is Proof.TOKEN
    refused = admit(asked("POST /v1/missions", HOST, cookie), policy, 1)
    assert isinstance(refused, Refusal)
    assert refused.reason == "OriginMissing"
    signs.sign_out([value])
    refused = admit(asked("GET /v1/status", HOST, cookie), policy, 1)
    assert isinstance(refused, Refusal)
    assert refused.code == 401


def test_a_refusal_for_want_of_a_token_says_how_to_bring_it() -> None:
    refused = admit(asked("GET /v1/status", HOST), policy_of((), SignIns(TOKEN, "c")), 0)
    assert isinstance(refused, Refusal)
    assert refused.headers == (("WWW-Authenticate", 'Bearer realm="offgrid-node"'),)
    assert "Authorization: Bearer TOKEN" in refused.message
    assert TOKEN not in refused.message


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"host", b"origin", b"sec-fetch-site", b"authorization", b"cookie", b"x"]),
        st.binary(max_size=40)
        | st.sampled_from([b"127.0.0.1", b"http://127.0.0.1", b"same-origin", b"[", b"http://["]),
    ),
    max_size=6,
)


@given(st.sampled_from(["GET", "POST", "X"]), st.text(max_size=20), HEADERS)
def test_whatever_comes_is_let_in_or_refused_and_never_without_the_token(
    method: str, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    signs = SignIns(TOKEN, "offgrid-x")
    found = admit(Asked(method, f"/v1/missions{path}", headers, "192.0.2.1"), policy_of((), signs), 0)
    assert isinstance(found, Refusal)
    assert 400 <= found.code < 500
    assert found.body.endswith(b"\n")
