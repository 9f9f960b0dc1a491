"""Objects as they are, up and down, over handlers that keep them in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from fake_handlers import router_of
from google.protobuf.message import Message
from serving_app import app_of, ask, request, serving

from offgrid.plaintext import checksum_of
from offgrid.v1 import objects_pb2
from offgrid_node.gateway.object_bytes import ObjectBytes, Span, span_of
from offgrid_node.gateway.transcoding import transcoded_routes
from offgrid_node.protocol.errors import Corrupt, Exhausted, NotFound
from offgrid_node.services.objects.puts import PUT_BYTES_MAX

STRIPE = 1_000_000
LARGE = bytes(range(256)) * 10_000


class Shelf:
    """Objects by name, and what was asked of them."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.upload = bytearray()
        self.opened = objects_pb2.OpenUploadRequest()
        self.had = 0  # of a repeated upload, how much is here
        self.asked: list[str] = []
        self.damaged_from = 2**60
        self.answers = {
            f"ObjectService/{name}": handler
            for name, handler in (
                ("PutObject", self.put), ("OpenUpload", self.open), ("WriteUpload", self.write),
                ("CommitUpload", self.commit), ("AbortUpload", self.abort), ("GetObject", self.get),
                ("ReadObject", self.read),
            )
        }  # fmt: skip

    def put(self, asked: objects_pb2.PutObjectRequest) -> Message:
        assert checksum_of(asked.data) == asked.checksum
        self.asked.append(f"put {asked.copies}")
        self.objects[asked.name] = asked.data
        return objects_pb2.PutObjectResponse(object=self.known(asked.name))

    def open(self, asked: objects_pb2.OpenUploadRequest) -> Message:
        self.opened = asked
        return objects_pb2.OpenUploadResponse(upload_id="u", offset=self.had, piece_bytes_max=PUT_BYTES_MAX)

    def write(self, asked: objects_pb2.WriteUploadRequest) -> Message:
        if self.opened.name == "full":
            raise Exhausted("the disk is full", reason="DiskFull")
        if asked.upload_id != "u":
            raise NotFound(f"there is no upload {asked.upload_id}")
        self.asked.append(f"write {asked.offset}")
        if asked.offset + len(asked.data) > len(self.upload):
            self.upload[asked.offset :] = asked.data
        return objects_pb2.WriteUploadResponse(offset=len(self.upload))

    def abort(self, asked: objects_pb2.AbortUploadRequest) -> Message:
        self.asked.append(f"abort {asked.upload_id}")
        return objects_pb2.AbortUploadResponse()

    def commit(self, asked: objects_pb2.CommitUploadRequest) -> Message:
        self.objects[self.opened.name] = LARGE[: self.had] + bytes(self.upload[self.had :])
        assert checksum_of(self.objects[self.opened.name]) == asked.checksum
        return objects_pb2.CommitUploadResponse(object=self.known(self.opened.name))

    def known(self, name: str) -> objects_pb2.Object:
        return objects_pb2.Object(object_id=f"o-{name}", name=name, size_bytes=len(self.objects[name]))

    def get(self, asked: objects_pb2.GetObjectRequest) -> Message:
        if asked.object not in self.objects:
            raise NotFound(f"there is no object {asked.object}")
        return objects_pb2.GetObjectResponse(object=self.known(asked.object))

    def read(self, asked: objects_pb2.ReadObjectRequest) -> Message:
        if asked.offset >= self.damaged_from:
            raise Corrupt("no shard of it is whole")
        data = self.objects[asked.object.removeprefix("o-")]
        end = min(asked.offset + asked.length, (asked.offset // STRIPE + 1) * STRIPE)
        return objects_pb2.ReadObjectResponse(data=data[asked.offset : end], size_bytes=len(data))


def play(scenario: Callable[[Shelf, int], Awaitable[None]]) -> None:
    shelf = Shelf()
    router = router_of(shelf.answers)  # type: ignore[arg-type]

    async def talk(port: int) -> None:
        await scenario(shelf, port)

    serving(app_of(transcoded_routes(router, asyncio.Event(), ObjectBytes(router).rows)), talk)


async def asked_last(shelf: Shelf, said: str) -> None:
    for _ in range(5_000):
        if shelf.asked[-1:] == [said]:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{said!r} did not come: {shelf.asked}")


def put(name: str, data: bytes, query: str = "") -> bytes:
    return request(f"PUT /v1/objects/{name}{query} HTTP/1.1", f"Content-Length: {len(data)}", body=data)


def chunked(name: str, data: bytes) -> bytes:
    parts = [data[at : at + 9_999] for at in range(0, len(data), 9_999)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return request(f"PUT /v1/objects/{name} HTTP/1.1", "Transfer-Encoding: chunked", body=body + b"0\r\n\r\n")


@pytest.mark.parametrize("size", [0, 1, PUT_BYTES_MAX, PUT_BYTES_MAX + 1, len(LARGE)])
@pytest.mark.parametrize("sent", [put, chunked])
def test_what_is_put_comes_back(size: int, sent: Callable[[str, bytes], bytes]) -> None:
    async def scenario(shelf: Shelf, port: int) -> None:
        status, _, _ = await ask(port, sent("barn/a%20b", LARGE[:size]))
        assert (status, shelf.objects) == (201, {"barn/a b": LARGE[:size]})
        status, fields, body = await ask(port, request("GET /v1/objects/barn/a%20b:bytes HTTP/1.1"))
        assert (status, body == LARGE[:size]) == (200, True)
        assert fields["content-disposition"] == "attachment; filename*=UTF-8''a%20b"

    play(scenario)


def test_small_bytes_go_in_one_call_and_many_in_pieces_that_are_known_already_or_not() -> None:
    async def scenario(shelf: Shelf, port: int) -> None:
        await ask(port, put("small", b"x", "?copies=2"))
        shelf.had = PUT_BYTES_MAX
        await ask(port, put("large", LARGE, "?copies=3&request_id=r-1"))
        assert shelf.asked == ["put 2", f"write {PUT_BYTES_MAX}", f"write {2 * PUT_BYTES_MAX}"]
        opened = {"name": "large", "size_bytes": len(LARGE), "copies": 3, "request_id": "r-1"}
        assert shelf.opened == objects_pb2.OpenUploadRequest(**opened)  # type: ignore[arg-type]

    play(scenario)


def test_what_cannot_be_kept_is_refused_in_words() -> None:
    async def scenario(shelf: Shelf, port: int) -> None:
        whole = LARGE[: PUT_BYTES_MAX + 1]  # all is read before it is refused: what is not may take the answer back
        status, _, body = await ask(port, put("full", whole))
        assert (status, b"DiskFull" in body) == (429, True)
        status, _, body = await ask(port, put("a", b"", "?copy=2"))
        assert (status, b"did you mean copies" in body) == (400, True)
        assert (await ask(port, request("GET /v1/objects/nothing:bytes HTTP/1.1")))[0] == 404

    play(scenario)


@pytest.mark.parametrize(("query", "last"), [("", "abort u"), ("?request_id=r-1", f"write {2 * PUT_BYTES_MAX}")])
def test_what_breaks_off_is_given_up_unless_a_request_id_can_go_on_with_it(query: str, last: str) -> None:
    async def scenario(shelf: Shelf, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(put("cut", LARGE, query)[:-1])
        await asked_last(shelf, f"write {PUT_BYTES_MAX}")
        writer.transport.abort()
        await asked_last(shelf, last)
        await asyncio.sleep(0.05)
        assert (shelf.asked[-1], shelf.objects) == (last, {})

    play(scenario)


def test_what_is_refused_in_the_middle_is_given_up() -> None:
    async def scenario(shelf: Shelf, port: int) -> None:
        status, _, _ = await ask(port, put("full", LARGE[: PUT_BYTES_MAX + 1]))
        assert (status, shelf.asked) == (429, ["abort u"])

    play(scenario)


def test_an_upload_goes_on_where_it_broke_off_and_tells_how_much_is_here() -> None:
    async def scenario(shelf: Shelf, port: int) -> None:
        def part(query: str, data: bytes = b"", upload: str = "u") -> bytes:
            return request(f"PUT /v1/uploads/{upload}{query} HTTP/1.1", f"Content-Length: {len(data)}", body=data)

        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(part("?offset=0", LARGE)[: -len(LARGE) // 2])
        await asked_last(shelf, "write 0")
        writer.transport.abort()
        await asked_last(shelf, f"write {PUT_BYTES_MAX}")
        here = len(shelf.upload)
        assert PUT_BYTES_MAX < here < len(LARGE)
        status, _, body = await ask(port, part(""))
        assert (status, json.loads(body)) == (200, {"offset": here})
        status, _, body = await ask(port, part(f"?offset={here}", LARGE[here:]))
        assert (status, json.loads(body)) == (200, {"offset": len(LARGE)})
        assert bytes(shelf.upload) == LARGE

        assert (await ask(port, part("?offset=0", b"x", "another")))[0] == 404
        status, _, body = await ask(port, part("?data=eA"))
        assert (status, b"is the body" in body) == (400, True)

    play(scenario)


def test_a_part_of_an_object_is_not_taken_for_all_of_it() -> None:
    async def scenario(shelf: Shelf, port: int) -> None:
        fields = ("Content-Range: bytes 0-1/9", "Content-Length: 2")
        status, _, body = await ask(port, request("PUT /v1/objects/a HTTP/1.1", *fields, body=b"ab"))
        assert (status, b"/v1/uploads/" in body, shelf.objects) == (400, True, {})

    play(scenario)


def test_a_part_is_had_by_range() -> None:
    async def scenario(shelf: Shelf, port: int) -> None:
        shelf.objects["a"] = LARGE
        line = "GET /v1/objects/a:bytes HTTP/1.1"
        status, fields, body = await ask(port, request(line, "Range: bytes=999998-1000003"))
        assert (status, body) == (206, LARGE[999_998:1_000_004])
        assert fields["content-range"] == f"bytes 999998-1000003/{len(LARGE)}"
        status, fields, _ = await ask(port, request(line, "Range: bytes=99999999-"))
        assert (status, fields["content-range"]) == (416, f"bytes */{len(LARGE)}")
        status, fields, body = await ask(port, request("HEAD /v1/objects/a:bytes HTTP/1.1"))
        assert (status, fields["content-length"], body) == (200, str(len(LARGE)), b"")

    play(scenario)


def test_a_damaged_object_has_a_status_of_its_own_or_ends_too_early() -> None:
    async def scenario(shelf: Shelf, port: int) -> None:
        shelf.objects["a"] = LARGE
        shelf.damaged_from = STRIPE
        status, fields, body = await ask(port, request("GET /v1/objects/a:bytes HTTP/1.1"))
        assert (status, fields["content-length"]) == (200, str(len(LARGE)))
        assert body == LARGE[:STRIPE]
        shelf.damaged_from = 0
        status, _, body = await ask(port, request("GET /v1/objects/a:bytes HTTP/1.1"))
        assert (status, b"DATA_LOSS" in body) == (500, True)

    play(scenario)


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("", Span(0, 100)),
        ("bytes=0-", Span(0, 100)),
        ("bytes=10-19", Span(10, 20)),
        ("bytes=90-500", Span(90, 100)),
        ("bytes=-7", Span(93, 100)),
        ("bytes=-500", Span(0, 100)),
        ("bytes=100-", None),
        ("bytes=-0", None),
        ("bytes=20-10", Span(0, 100)),
        ("bytes=-", Span(0, 100)),
        ("bytes=0-1,3-4", Span(0, 100)),
        ("lines=0-1", Span(0, 100)),
    ],
)
def test_a_range(asked: str, span: Span | None) -> None:
    assert span_of({"range": asked}, 100, '"o"') == span
    assert span_of({"range": asked, "if-range": '"other"'}, 100, '"o"') == Span(0, 100)
