"""Requests and responses come out as they went in, in one piece or in several, and garbage comes out as an error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.gathering import MESSAGE_BYTES_MAX
from offgrid_transports.messages import (
    BODY_BYTES_MAX,
    METHOD_MAX,
    TIMEOUTS_MS,
    Answered,
    Message,
    cut,
    read_request,
    read_response,
    request,
    response,
)
from offgrid_transports.records import FLAGS_MAX, RecordError


@given(st.integers(0, METHOD_MAX), st.sampled_from(TIMEOUTS_MS), st.binary(max_size=30), st.booleans(), st.booleans())
def test_a_request_is_read_as_it_was_written(
    method: int, timeout_ms: int, body: bytes, packed: bool, cuts: bool
) -> None:
    message = request(method, timeout_ms, body, packed=packed)
    assert read_request(cut(message.whole) if cuts else message) == (method, timeout_ms, packed, body)
    assert 0 <= message.flags <= FLAGS_MAX


@given(st.binary(max_size=30), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_a_response_is_read_as_it_was_written(
    body: bytes, error: bool, partial: bool, packed: bool, cuts: bool
) -> None:
    message = response(body, error=error, partial=partial, packed=packed)
    assert read_response(cut(message.whole) if cuts else message) == Answered(error, partial, packed, body)


@pytest.mark.parametrize(
    ("timeout_ms", "said_ms"),
    [(0, 250), (1, 250), (250, 250), (251, 500), (60_000, 60_000), (86_400_000, 86_400_000), (10**12, 86_400_000)],
)
def test_a_timeout_is_rounded_up_to_one_that_can_be_said(timeout_ms: int, said_ms: int) -> None:
    assert read_request(request(1, timeout_ms, b"")).timeout_ms == said_ms


def test_the_first_methods_of_each_domain_take_one_byte() -> None:
    for domain in range(16):
        assert [len(request(domain << 8 | place, 250, b"").rest) for place in (0, 7, 8, 255)] == [1, 1, 2, 2]


@pytest.mark.parametrize("method", [-1, METHOD_MAX + 1])
def test_other_methods_are_refused(method: int) -> None:
    with pytest.raises(ValueError, match="0 to 0xfff are allowed"):
        request(method, 250, b"")


def test_the_longest_body_fits_the_longest_message() -> None:
    assert len(request(METHOD_MAX, 250, bytes(BODY_BYTES_MAX)).whole) <= MESSAGE_BYTES_MAX
    assert len(response(bytes(BODY_BYTES_MAX)).whole) <= MESSAGE_BYTES_MAX


@pytest.mark.parametrize("rest", [b"", b"\x80", b"\x80\x00", b"\x80\x20", b"\xff\xff\xff\xff"])
def test_a_request_without_a_method_is_none(rest: bytes) -> None:
    with pytest.raises(RecordError):
        read_request(Message(0, rest))


@pytest.mark.parametrize("flags", [0x04, 0x08, 0x14, 0x1F])
def test_a_response_with_unknown_flags_is_none(flags: int) -> None:
    with pytest.raises(RecordError):
        read_response(Message(flags, b""))


@pytest.mark.parametrize("whole", [b"", b"\x20", b"\xffbody"])
def test_pieces_that_do_not_begin_with_flags_are_no_message(whole: bytes) -> None:
    with pytest.raises(RecordError):
        cut(whole)


@given(st.binary(max_size=8))
def test_any_bytes_are_a_message_or_an_error(whole: bytes) -> None:
    for read in (read_request, read_response):
        with contextlib.suppress(RecordError):
            read(cut(whole))
