"""Pieces: messages in two parts are protobuf's own, byte for byte as good, and what is none of them is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from offgrid.lanes import LARGE_BYTES, answer_parts, call_parts, read_answers, read_calls
from offgrid.pieces import BULK, FIELDS_MAX, Piece, as_a, cut, lone, parts_of, read, read_known
from offgrid.v1 import lane_pb2, objects_pb2

Write, Given = objects_pb2.WriteReplicaRequest, objects_pb2.ReadReplicaResponse
DATA = st.one_of(st.binary(max_size=200), st.integers(0, 3 * LARGE_BYTES).map(bytes))
HEADS = st.builds(
    Write, object_id=st.text(max_size=9), offset=st.integers(0, 2**64 - 1), shard=st.integers(0, 2**32 - 1)
)


@given(HEADS, DATA)
def test_protobuf_reads_what_a_piece_writes(head: Write, data: bytes) -> None:
    piece, whole = Piece(head, data), Write()
    whole.CopyFrom(head)
    whole.data = data
    assert Write.FromString(piece.SerializeToString()) == whole
    assert piece.ByteSize() == len(piece.SerializeToString())
    assert piece.offset == whole.offset


@given(HEADS, DATA)
def test_a_piece_is_read_from_what_protobuf_writes(head: Write, data: bytes) -> None:
    whole = Write()
    whole.CopyFrom(head)
    whole.data = data
    found = read(Write, memoryview(whole.SerializeToString()))
    assert isinstance(found, Piece)
    assert (found.head, bytes(found.data)) == (head, data)


@given(st.binary(max_size=60))
def test_junk_is_what_protobuf_says_it_is(junk: bytes) -> None:
    """Groups, which nothing of ours has, are the one thing that protobuf knows and this does not."""
    with suppress(DecodeError):
        whole, found = Write.FromString(junk), read(Write, junk)
        assert (found.object_id, found.offset, bytes(found.data)) == (whole.object_id, whole.offset, whole.data)


def test_what_its_type_does_not_have_is_gone_from_what_a_member_sent() -> None:
    more = b"\xfa\x3f\x04more"  # of field 1,023
    piece = read_known(Write, Write(offset=7, data=b"data").SerializeToString() + more)
    assert (piece.offset, bytes(piece.data), piece.ByteSize()) == (7, b"data", Write(offset=7, data=b"data").ByteSize())
    opened = objects_pb2.OpenReplicaRequest()
    opened.epoch.body = b"body"
    whole = opened.SerializeToString()
    opened.epoch.MergeFromString(more)
    assert len(opened.SerializeToString()) > len(whole)
    assert read_known(objects_pb2.OpenReplicaRequest, opened.SerializeToString()).SerializeToString() == whole


def test_the_last_of_several_counts() -> None:
    twice = Write(data=b"first").SerializeToString() + Write(data=b"last").SerializeToString()
    assert bytes(read(Write, twice).data) == b"last" == Write.FromString(twice).data


def test_a_message_of_very_many_fields_is_refused_before_it_costs_time() -> None:
    many = Write(offset=1).SerializeToString() * (FIELDS_MAX + 1)
    with pytest.raises(DecodeError, match="64 fields"):
        cut(many, BULK[Write])


@pytest.mark.parametrize(
    "raw",
    [b"\x1a", b"\x1a\x05abc", b"\x0b", b"\x80" * 11, b"\x15abc"],
    ids=["no length", "cut", "group", "endless", "4"],
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        cut(raw, 3)


def test_a_message_is_of_its_kind_in_parts_or_not() -> None:
    assert as_a(Given, Given()) is not None
    assert as_a(Given, Piece(Given(), b"x")) is not None
    assert as_a(Write, Piece(Given(), b"x")) is None
    assert as_a(Write, None) is None


def test_a_field_that_is_not_alone_is_not_taken_for_it() -> None:
    two = lane_pb2.CarryRequest(calls=[lane_pb2.LaneCall(number=1), lane_pb2.LaneCall(number=2)])
    assert lone(two.SerializeToString(), 1) is None
    assert lone(b"", 1) is None
    assert lone(b"\xff", 1) is None


class TestOnALane:
    @given(DATA)
    def test_a_call_is_the_same_message_however_it_is_written(self, data: bytes) -> None:
        request = Piece(Write(object_id="o-1", offset=5), data)
        parts = call_parts(lane_pb2.LaneCall(number=7, name="ObjectService/WriteReplica"), parts_of(request))
        _, calls = read_calls(memoryview(b"".join(parts)))
        ((call, raw),) = calls
        assert (call.number, call.name) == (7, "ObjectService/WriteReplica")
        found = read(Write, raw)
        assert (found.object_id, found.offset, bytes(found.data)) == ("o-1", 5, data)
        (other,) = lane_pb2.CarryRequest.FromString(b"".join(parts)).calls
        assert other.request == request.SerializeToString()

    @given(DATA)
    def test_an_answer_as_well(self, data: bytes) -> None:
        response = Piece(Given(size_bytes=9, path=[b"p"] * 30), data)
        parts = answer_parts(lane_pb2.LaneAnswer(number=7), parts_of(response))
        _, answers = read_answers(memoryview(b"".join(parts)))
        ((answer, raw),) = answers
        found = read(Given, raw)
        assert (answer.number, found.size_bytes, len(found.path), bytes(found.data)) == (7, 9, 30, data)

    def test_large_messages_of_several_are_read_by_protobuf(self) -> None:
        calls = [lane_pb2.LaneCall(number=n, request=bytes(LARGE_BYTES)) for n in (1, 2)]
        _, found = read_calls(lane_pb2.CarryRequest(calls=calls).SerializeToString())
        assert [(call.number, len(request)) for call, request in found] == [(1, LARGE_BYTES), (2, LARGE_BYTES)]

    def test_neither_side_copies_the_bytes(self) -> None:
        data = bytes(4 * LARGE_BYTES)
        parts = call_parts(lane_pb2.LaneCall(number=1, method=2), parts_of(Piece(Write(), data)))
        assert parts[1] is data
        raw = memoryview(bytearray(b"".join(parts)))
        _, ((_, request),) = read_calls(raw)
        found = read(Write, request).data
        assert isinstance(found, memoryview)
        assert found.obj is raw.obj
