"""The web page's files: what is sent, how much of it, and that both languages say all that the page says."""

from __future__ import annotations

import asyncio
import gzip
import re
from importlib import resources

import pytest
from starlette.applications import Starlette
from starlette.types import Message

from offgrid.event_types import EventType
from offgrid_node.gateway.page import DOCUMENT, JOINED, page_files, page_routes

COMPRESSED_BYTES_MAX = 80_000
GROUP, WORD = re.compile(r'^"?([a-z]*)"?: {$'), re.compile(r'^"?([\w.-]+)"?: "(.+)",$')


def ask(path: str, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request to the page alone."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        sent.append(message)

    app = Starlette(routes=page_routes())
    asyncio.run(app(scope | {"headers": fields, "root_path": "", "http_version": "1.1"}, receive, send))
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], head, b"".join(message.get("body", b"") for message in sent[1:])


def sources() -> dict[str, str]:
    """The page's own modules and what they say, as they are written."""
    folder = resources.files("offgrid_node.gateway").joinpath("page")
    return {
        f"{part}/{file.name}".removeprefix("./"): file.read_text()
        for part in (".", "lib", "views", "words")
        for file in folder.joinpath(part).iterdir()
        if file.name.endswith(".js")
    }


def words(language: str) -> dict[str, str]:
    """All of a language, by "group.word"."""
    book, group = {}, ""
    for line in map(str.strip, sources()[f"words/{language}.js"].splitlines()):
        if found := GROUP.match(line):
            group = f"{found[1]}." if found[1] else ""
        elif found := WORD.match(line):
            book[group + found[1]] = found[2]
    return book


def test_all_that_a_reader_of_every_view_loads_is_small() -> None:
    sizes = {name: len(file.zipped) for name, file in page_files()[1].items()}
    one_language = sum(sizes.values()) - min(sizes[f"words/{language}.js"] for language in ("de", "en"))
    assert one_language <= COMPRESSED_BYTES_MAX, sizes


def test_the_document_names_files_that_are_there() -> None:
    status, head, body = ask("/")
    assert (status, head["content-type"], head["cache-control"]) == (200, "text/html; charset=utf-8", "no-cache")
    paths = re.findall(r'(?:href|src)="([^"]+)"', body.decode())
    assert len(paths) == 4
    for path in paths:
        assert ask(path)[0] == 200, path


def test_files_are_kept_for_ever_and_answered_with_304_when_they_are_known() -> None:
    base, files = page_files()
    status, head, body = ask(f"{base}/{JOINED}", accept_encoding="br, gzip")
    assert status == 200
    assert "immutable" in head["cache-control"]
    assert head["content-encoding"] == "gzip"
    assert gzip.decompress(body) == files[JOINED].body
    assert ask(f"{base}/{JOINED}", if_none_match=f'W/"x", {head["etag"]}')[::2] == (304, b"")
    assert ask(f"{base}/{JOINED}", accept_encoding="gzip;q=0")[2] == files[JOINED].body


@pytest.mark.parametrize(
    "path",
    [
        "../page.py",
        "%2e%2e/page.py",
        "..\\page.py",
        "/etc/passwd",
        "vendor/README.md",
        "vendor",
        "",
        "app.js\0",
        "app.js",
        "lib/node.js",
    ],
)
def test_nothing_else_is_served(path: str) -> None:
    assert ask(f"{page_files()[0]}/{path}")[0] == 404


def test_a_page_of_another_version_mixes_no_files() -> None:
    assert ask("/page/0123456789abcdef/app.js")[0] == 404


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    """What the Content-Security-Policy forbids, and data as markup, which it could not."""
    document = page_files()[1][DOCUMENT].body.decode()
    assert "<style" not in document
    assert "style=" not in document
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", document))
    for name, source in sources().items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySet|document\.write|eval\(", source), (
            name
        )
        assert not re.search(r"https?://(?!www\.w3\.org)", source), name


def test_both_languages_have_the_same_words_with_the_same_values() -> None:
    english, german = words("en"), words("de")
    assert english.keys() == german.keys()
    assert len(english) > 300
    for key, text in english.items():
        assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", german[key])), key


def test_every_word_that_is_used_exists_and_none_is_left_over() -> None:
    book = words("en")
    said = "\n".join(source for name, source in sources().items() if not name.startswith("words/"))
    literal = {key for key in re.findall(r'"([a-z]+(?:\.[\w-]+)?)"', said) if "." in key}
    literal |= set(re.findall(r'\bt\("([\w.-]+)"', said))
    starts = tuple(re.findall(r"\bt\(`([a-z]+\.[a-z_]*)\$", said))
    known = {key.removesuffix(".one").removesuffix(".other") for key in book}
    asked = {key for key in literal if key.partition(".")[0] in {word.partition(".")[0] for word in known}}
    assert asked <= known, asked - known
    assert all(any(key.startswith(start) for key in known) for start in starts)
    assert {key for key in known if key not in said and not key.startswith(starts)} == set()


def test_every_type_of_event_is_in_one_group_of_the_journal() -> None:
    groups = re.search(r"const GROUPS = {(.+)};", sources()["views/events.js"])
    assert groups is not None
    numbers = [int(number) for number in re.findall(r"\d+", groups[1])]
    assert sorted(numbers) == sorted(EventType)


def test_vendored_files_are_named_with_their_licences() -> None:
    folder = resources.files("offgrid_node.gateway").joinpath("page/vendor")
    listed = folder.joinpath("README.md").read_text()
    for file in folder.iterdir():
        assert file.name == "README.md" or file.name in listed, file.name


def test_a_text_is_drawn_as_a_qr_code() -> None:
    status, head, body = ask("/page/qr", "POST", b"og1:abc")
    assert (status, head["content-type"], head["cache-control"]) == (200, "image/svg+xml", "no-store")
    assert b"<svg" in body
    assert ask("/page/qr", "POST", b"")[0] == 400
    assert ask("/page/qr", "POST", b"x" * 1_025)[0] == 400
    assert ask("/page/qr", "POST", b"\xff" * 1_024)[0] == 400
