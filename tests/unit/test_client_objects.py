"""`offgrid.client`'s objects: puts that can be cut off anywhere, gets that never spoil a file."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from small_objects import PIECE, ObjectNode

import offgrid
from offgrid.client import Client, OffgridError, putting
from offgrid.client import object_parts as parts_module
from offgrid.plaintext import checksum_of
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import NotFound, Unavailable

DATA = bytes(range(50))
ACCEPTED, DURABLE = objects_pb2.OBJECT_STATE_ACCEPTED, objects_pb2.OBJECT_STATE_DURABLE


@pytest.fixture
def node() -> Iterator[ObjectNode]:
    running = ObjectNode()
    yield running
    running.close()


@pytest.fixture
def client(node: ObjectNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(putting, "PAUSE_S", 0.001)
    with offgrid.connect(node.address) as connected:
        yield connected


class Pipe(io.RawIOBase):
    """Gives a byte or three at a time, and cannot go back."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._rest.read(min(3, size))


def test_what_another_shares_is_read_as_its_owners(client: Client, node: ObjectNode) -> None:
    """An id says nothing of whose object it is."""
    made = node._make(DATA, "theirs")
    made.required_milli = 0  # that of others' is not told
    node.held[f"{made.owner}/{made.object_id}"] = node.held.pop(made.object_id)
    read = io.BytesIO()
    assert client.objects.fetch("theirs", read) == len(DATA)
    assert read.getvalue() == client.objects.open("theirs").read() == DATA


class TestAPutInPieces:
    """Of more than one call takes; here that is little."""

    @pytest.fixture(autouse=True)
    def little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(putting, "PUT_BYTES_MAX", 2 * PIECE)

    def test_takes_a_path_bytes_and_streams(self, client: Client, node: ObjectNode, tmp_path: Path) -> None:
        path = tmp_path / "data.bin"
        path.write_bytes(DATA)
        for source in (path, str(path), DATA, io.BytesIO(DATA), Pipe(DATA)):
            made = client.objects.put(source)  # type: ignore[arg-type]
            assert node.held[made.object_id] == DATA
        assert {len(call.data) for call in node.calls["WriteUpload"]} == {PIECE, len(DATA) % PIECE}

    def test_begins_where_a_stream_stands(self, client: Client, node: ObjectNode) -> None:
        stream = io.BytesIO(DATA)
        stream.seek(10)
        assert node.held[client.objects.put(stream).object_id] == DATA[10:]

    def test_asks_for_a_code_or_for_copies_and_else_for_neither(self, client: Client, node: ObjectNode) -> None:
        client.objects.put(DATA)
        client.objects.put(DATA, code=(12, 20))
        client.objects.put(DATA, copies=5)
        plain, coded, copied = node.calls["OpenUpload"]
        assert (plain.HasField("code"), plain.copies) == (False, 0)
        assert (coded.code.needed, coded.code.total, coded.copies) == (12, 20, 0)
        assert (copied.HasField("code"), copied.copies) == (False, 5)

    @pytest.mark.parametrize("data", [b"x", DATA])
    def test_pads_as_asked_and_else_as_the_config_says(self, data: bytes, client: Client, node: ObjectNode) -> None:
        for padded in (None, True, False):
            client.objects.put(data, padded=padded)
        calls = [*node.calls["PutObject"], *node.calls["OpenUpload"]]
        assert [call.padded if call.HasField("padded") else None for call in calls] == [None, True, False]

    def test_tells_how_far_it_is(self, client: Client) -> None:
        seen: list[tuple[int, int]] = []
        client.objects.put(DATA, on_progress=lambda done, total: seen.append((done, total)))
        assert seen[0] == (PIECE, len(DATA))
        assert seen[-1] == (len(DATA), len(DATA))

    @pytest.mark.parametrize("method", ["OpenUpload", "WriteUpload", "CommitUpload"])
    def test_repeats_a_call_whose_answer_was_lost(self, client: Client, node: ObjectNode, method: str) -> None:
        node.stumble(method, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        made = client.objects.put(DATA)
        assert node.held == {made.object_id: DATA}

    def test_goes_on_where_an_earlier_call_with_the_same_request_id_stopped(
        self, client: Client, node: ObjectNode
    ) -> None:
        node.uploads["u-again"] = bytearray(DATA[:20])
        node.names["u-again"] = "n"
        client.objects.put(DATA, name="n", request_id="again")
        assert node.calls["WriteUpload"][0].offset == 20

    def test_of_what_is_committed_already_sends_nothing_again(self, client: Client, node: ObjectNode) -> None:
        first = client.objects.put(DATA, request_id="again")
        sent = len(node.calls["WriteUpload"])
        assert client.objects.put(DATA, request_id="again").object_id == first.object_id
        assert len(node.calls["WriteUpload"]) == sent

    def test_says_which_bytes_and_how_many_so_that_others_are_refused(self, client: Client, node: ObjectNode) -> None:
        for source in (DATA, Pipe(DATA)):
            client.objects.put(source)  # type: ignore[arg-type]
        assert [call.size_bytes for call in node.calls["OpenUpload"]] == [len(DATA), 0]
        assert [call.HasField("size_bytes") for call in node.calls["OpenUpload"]] == [True, False]
        assert {call.checksum for call in node.calls["CommitUpload"]} == {checksum_of(DATA)}

    def test_begins_again_when_the_node_has_lost_it(self, client: Client, node: ObjectNode) -> None:
        lost = NotFound("open it again", reason="UploadNotFound")
        node.stumble("WriteUpload", lost)
        node.stumble("CommitUpload", lost)
        assert node.held[client.objects.put(DATA).object_id] == DATA
        assert len({call.request_id for call in node.calls["OpenUpload"]}) == 1
        assert len(node.calls["OpenUpload"]) == 3

    def test_of_a_pipe_cannot_begin_again(self, client: Client, node: ObjectNode) -> None:
        node.stumble("WriteUpload", NotFound("open it again", reason="UploadNotFound"))
        with pytest.raises(OffgridError) as caught:
            client.objects.put(Pipe(DATA))  # type: ignore[arg-type]
        assert caught.value.reason == "UploadNotFound"
        assert node.held == {}

    def test_gives_up_in_the_end(self, client: Client, node: ObjectNode) -> None:
        node.stumble("WriteUpload", *[NotFound("open it again", reason="UploadNotFound")] * 20)
        with pytest.raises(OffgridError):
            client.objects.put(DATA)
        assert len(node.calls["OpenUpload"]) == putting.BEGINNINGS_MAX

    @pytest.mark.parametrize("request_id", ["", "again"])
    @pytest.mark.parametrize("source", [io.BytesIO, Pipe])
    def test_that_is_interrupted_is_given_up_unless_its_request_id_is_known(
        self, client: Client, node: ObjectNode, source: type[io.BytesIO] | type[Pipe], request_id: str
    ) -> None:
        def interrupt(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            client.objects.put(source(DATA), request_id=request_id, on_progress=interrupt)  # type: ignore[arg-type]
        assert list(node.uploads) == (["u-again"] if request_id else [])

    def test_does_not_repeat_what_is_refused(self, client: Client, node: ObjectNode) -> None:
        node.stumble("OpenUpload", NotFound("no", reason="Whatever"))
        with pytest.raises(OffgridError):
            client.objects.put(DATA)
        assert len(node.calls["OpenUpload"]) == 1


class TestAPutInOneCall:
    def test_takes_a_path_bytes_and_streams(self, client: Client, node: ObjectNode, tmp_path: Path) -> None:
        path = tmp_path / "data.bin"
        path.write_bytes(DATA)
        for source in (path, DATA, io.BytesIO(DATA), Pipe(DATA), b""):
            made = client.objects.put(source, name="n")  # type: ignore[arg-type]
            assert node.held[made.object_id] == (DATA if source != b"" else b"")
        assert {call.checksum for call in node.calls["PutObject"]} == {checksum_of(DATA), checksum_of(b"")}
        assert not node.calls["OpenUpload"]

    def test_says_all_that_is_asked_for(self, client: Client, node: ObjectNode) -> None:
        client.objects.put(DATA, name="n", required_milli=2_000, code=(4, 7), expires_after_ms=5, request_id="r")
        client.objects.put(DATA, copies=5, wait_s=1.5)
        coded, copied = node.calls["PutObject"]
        assert (coded.name, coded.required_milli, coded.expires_after_ms, coded.request_id) == ("n", 2_000, 5, "r")
        assert (coded.code.needed, coded.code.total, coded.wait_ms) == (4, 7, 0)
        assert (copied.HasField("code"), copied.copies, copied.wait_ms) == (False, 5, 1_500)

    def test_may_wait_until_it_is_durable(self, client: Client) -> None:
        assert client.objects.put(DATA).state == ACCEPTED
        assert client.objects.put(DATA, wait_s=5).state == DURABLE

    def test_tells_that_it_is_done(self, client: Client) -> None:
        seen: list[tuple[int, int]] = []
        client.objects.put(DATA, on_progress=lambda done, total: seen.append((done, total)))
        assert seen == [(len(DATA), len(DATA))]

    @pytest.mark.parametrize("source", [DATA, Pipe(DATA)], ids=["bytes", "pipe"])
    def test_is_sent_again_while_the_node_restarts(self, client: Client, node: ObjectNode, source: bytes) -> None:
        node.stumble("PutObject", *[grpc.StatusCode.UNAVAILABLE] * 6)
        made = client.objects.put(source)
        assert node.held == {made.object_id: DATA}
        assert len({call.request_id for call in node.calls["PutObject"]}) == 1


class TestFetch:
    def test_writes_all_of_it_in_order_with_reads_ahead(
        self, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(parts_module, "RANGE_BYTES", 7)  # ranges and stripes do not meet
        made = client.objects.put(DATA, name="n")
        seen: list[int] = []
        assert client.objects.fetch("n", tmp_path / "out", on_progress=lambda done, total: seen.append(done)) == 50
        assert (tmp_path / "out").read_bytes() == DATA
        assert client.objects.read(made.object_id) == DATA
        assert seen == sorted(seen)
        assert seen[-1] == 50

    def test_asks_again_for_what_no_host_gives_and_says_why(
        self, client: Client, node: ObjectNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parts_module, "ASK_AGAIN_S", 0.2)
        monkeypatch.setattr(parts_module, "SILENT_S", 0.05)
        made, said, out = client.objects.put(DATA), [], io.BytesIO()
        away = Unavailable("barn is not alive", reason="NoReplica", retry_ms=5_000)
        node.stumble("ReadObject", away, away)
        client.objects.fetch(made.object_id, out, on_wait=said.append)
        assert out.getvalue() == DATA
        assert set(said[said.index("barn is not alive") :]) == {"barn is not alive"}

    def test_does_not_ask_again_what_is_refused(self, client: Client, node: ObjectNode) -> None:
        made = client.objects.put(DATA)
        node.stumble("ReadObject", *[NotFound("no", reason="Whatever")] * 10)
        with pytest.raises(OffgridError) as caught:
            client.objects.read(made.object_id)
        assert caught.value.reason == "Whatever"

    def test_gives_up_when_its_time_is_over(
        self, client: Client, node: ObjectNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parts_module, "ASK_AGAIN_S", 0.1)
        monkeypatch.setattr(parts_module, "SILENT_S", 0.05)
        made = client.objects.put(DATA)
        node.stumble("ReadObject", *[Unavailable("barn is not alive", reason="NoReplica", retry_ms=5_000)] * 1_000)
        with pytest.raises(OffgridError, match="barn is not alive") as caught:
            client.objects.fetch(made.object_id, io.BytesIO(), timeout_s=2)
        assert caught.value.reason == "NoReplica"
        assert 2 <= len(node.calls["ReadObject"]) <= 24

    def test_says_that_nothing_comes_while_the_node_is_asking(
        self, client: Client, node: ObjectNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parts_module, "SILENT_S", 0.05)
        made, said, on_read, waits_s = client.objects.put(DATA), [], node.on_ReadObject, iter([0.5])
        monkeypatch.setattr(node, "on_ReadObject", lambda request: time.sleep(next(waits_s, 0)) or on_read(request))
        client.objects.fetch(made.object_id, io.BytesIO(), on_wait=said.append)
        assert set(said) == {parts_module.NOTHING_COMES}

    def test_of_an_empty_object_makes_an_empty_file(self, client: Client, tmp_path: Path) -> None:
        client.objects.put(b"", name="empty")
        assert client.objects.fetch("empty", tmp_path / "out") == 0
        assert (tmp_path / "out").read_bytes() == b""

    def test_that_fails_in_the_middle_leaves_the_file_that_was_there(
        self, client: Client, node: ObjectNode, tmp_path: Path
    ) -> None:
        (tmp_path / "out").write_text("mine")
        made = client.objects.put(DATA)
        node.held[made.object_id] = DATA[:20]  # the rest is gone
        with pytest.raises(OffgridError) as caught:
            client.objects.fetch(made.object_id, tmp_path / "out")
        assert caught.value.reason == "WrongRead"
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "mine")]

    def test_repeats_a_read_whose_answer_was_lost(self, client: Client, node: ObjectNode) -> None:
        made = client.objects.put(DATA)
        node.stumble("ReadObject", Unavailable("busy", reason="Busy"), grpc.StatusCode.UNAVAILABLE)
        assert client.objects.read(made.object_id) == DATA


def test_waiting_for_durability_tells_of_each_change_and_ends(client: Client) -> None:
    made = client.objects.put(DATA)
    seen = []
    durable = client.objects.wait_durable(made.object_id, timeout_s=10, on_change=lambda o: seen.append(o.acked_milli))
    assert (seen, durable.acked_milli) == ([0, 2_000], 2_000)


def test_waiting_tells_of_trouble_that_comes_and_goes(client: Client, node: ObjectNode) -> None:
    made = client.objects.put(DATA)
    node.troubles, seen = ["", "away", "away", "slow", ""], []
    client.objects.wait_durable(made.object_id, timeout_s=10, on_change=lambda o: seen.append(o.trouble))
    assert seen == ["", "away", "slow", "", ""], "the last for its acks"


def test_watching_goes_on_after_a_broken_connection(client: Client, node: ObjectNode) -> None:
    made = client.objects.put(DATA)
    node.cuts = 1
    seen = [each.state for each in client.objects.watch(made.object_id)]
    assert seen == [ACCEPTED, DURABLE]
    assert len(node.calls["WatchObject"]) == 2


def test_waiting_ends_in_time(client: Client, node: ObjectNode) -> None:
    node.acking = False
    made = client.objects.put(DATA)
    with pytest.raises(TimeoutError, match="0 of 2"):
        client.objects.wait_durable(made.object_id, timeout_s=0.05)


def test_lists_come_whole(client: Client) -> None:
    for index in range(5):
        client.objects.enqueue(f"k{index}", b"x", 12, 2_000)
    assert [entry.key for entry in client.objects.outbox()] == [f"k{index}" for index in range(5)]
    assert len(list(client.objects.list())) == 5
    assert len(list(client.objects.list(limit=3))) == 3


class TestParts:
    """A range, and a file to read in: the same plaintext by other doors."""

    DATA = bytes(range(256)) * 3

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parts_module, "RANGE_BYTES", 12)  # two of the small node's stripes

    @pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 1), (5, 7), (11, 2), (12, 12), (700, None), (768, 0)])
    def test_a_range_is_just_that(self, client: Client, node: ObjectNode, offset: int, length: int | None) -> None:
        node._make(self.DATA, "x")
        end = None if length is None else offset + length
        assert client.objects.read("x", offset=offset, length=length) == self.DATA[offset:end]

    @pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 769), (769, None), (768, 1), (0, -1)])
    def test_a_range_that_is_not_there_is_refused(
        self, client: Client, node: ObjectNode, offset: int, length: int | None
    ) -> None:
        node._make(self.DATA, "x")
        with pytest.raises(ValueError, match="not within"):
            client.objects.read("x", offset=offset, length=length)

    def test_a_reader_reads_on_seeks_and_reads_on(self, client: Client, node: ObjectNode) -> None:
        node._make(self.DATA, "x")
        with client.objects.open("x") as file:
            assert file.read(100) == self.DATA[:100]
            assert file.read(1) == self.DATA[100:101]
            file.seek(-10, 2)
            assert file.read() == self.DATA[-10:]
            file.seek(3)
            assert file.read(5) == self.DATA[3:8]
            file.seek(1_000)
            assert file.read() == b""
            with pytest.raises(ValueError, match="before the beginning"):
                file.seek(-1)

    def test_a_reader_asks_ahead_and_no_further(self, client: Client, node: ObjectNode) -> None:
        node._make(self.DATA * 100, "x")
        with client.objects.open("x") as file:
            file.read(1)
        assert len(node.calls["ReadObject"]) < 2 * 8_192 / 6 + 100, "a buffer, and some parts ahead: never all of it"
