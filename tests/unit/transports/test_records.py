"""What a frame holds: whatever is read would be written again so, and nothing is read that is out of bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_tools.fuzz.frames import write_record
from offgrid_transports.records import (
    ACK_BITS_MAX,
    CALL_MAX,
    FLAGS_MAX,
    OFFSET_MAX,
    Ack,
    Echo,
    Part,
    Poll,
    Record,
    RecordError,
    Said,
    Signal,
    Whole,
    ages,
    parse,
    read_varint,
    varint,
    write_ack,
)

CALLS, FLAGS = st.integers(0, CALL_MAX), st.integers(0, FLAGS_MAX)


@st.composite
def acks(draw: st.DrawFn) -> Ack:
    span = draw(st.integers(0, ACK_BITS_MAX))
    missing = draw(st.lists(st.integers(1, max(span, 1)), unique=True, max_size=span).map(sorted))
    return Ack(draw(st.integers(0, 0xFFFF)), draw(st.integers(0, 255)), span, tuple(missing))


SHORT: st.SearchStrategy[Record] = st.one_of(
    acks(),
    st.builds(Poll, FLAGS, st.integers(0, ACK_BITS_MAX)),
    st.builds(Said, st.sampled_from(Signal), CALLS),
    st.builds(Echo, st.booleans(), CALLS),
)
LAST: st.SearchStrategy[Record] = st.one_of(
    st.builds(Whole, st.booleans(), CALLS, FLAGS, st.binary(max_size=40)),
    st.builds(
        Part, st.booleans(), CALLS, st.integers(0, OFFSET_MAX), st.booleans(), st.binary(min_size=1, max_size=40)
    ),
)


def once(records: list[Record]) -> list[Record]:
    """One acknowledgement and one poll at most."""
    kept: dict[object, Record] = {}
    for at, record in enumerate(records):
        kept.setdefault(type(record) if isinstance(record, Ack | Poll) else at, record)
    return list(kept.values())


FRAMES = st.tuples(st.lists(SHORT, max_size=5).map(once), st.lists(LAST, max_size=1)).map(
    lambda pair: pair[0] + pair[1]
)


@given(FRAMES)
def test_what_is_written_is_read(records: list[Record]) -> None:
    assert parse(b"".join(map(write_record, records))) == records


@given(st.one_of(st.binary(max_size=60), FRAMES.map(lambda records: b"".join(map(write_record, records)))), st.data())
def test_any_bytes_are_refused_or_are_exactly_what_would_be_written(data: bytes, draw: st.DataObject) -> None:
    if data and draw.draw(st.booleans()):
        at = draw.draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw.draw(st.binary(max_size=2)) + data[at + 1 :]
    try:
        records = parse(data)
    except RecordError:
        return
    assert b"".join(map(write_record, records)) == data


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"", []),
        (b"\x00\x12\x34\x05\x00", [Ack(0x1234, 5, 0, ())]),
        (b"\x02\x12\x34\x05\x09\x01\x01", [Ack(0x1234, 5, 9, (1, 9))]),
        (b"\x21\x02", [Poll(1, 2)]),
        (b"\x45\x05", [Said(Signal.MALFORMED, 5)]),
        (b"\x60\x05", [Echo(False, 5)]),
        (b"\x61\x80\x01", [Echo(True, 128)]),
        (b"\x95\x80\x01body", [Whole(True, 128, 21, b"body")]),
        (b"\xa1\x01", [Whole(False, 1, 1, b"")]),
        (b"\xc0\x01\x80\x02x", [Part(True, 1, 256, False, b"x")]),
        (b"\xe1\x01\x00x", [Part(False, 1, 0, True, b"x")]),
        (b"\x21\x02\x40\x01\x81\x07", [Poll(1, 2), Said(Signal.HELD, 1), Whole(True, 7, 1, b"")]),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else None,
)
def test_the_bytes_are_these(data: bytes, records: list[Record]) -> None:
    assert parse(data) == records
    assert b"".join(map(write_record, records)) == data


@pytest.mark.parametrize(
    "data",
    {
        "an acknowledgement without bits": b"\x01\x00\x00\x00\x08",
        "an acknowledgement cut off": b"\x00\x00\x00\x00",
        "bits that say nothing": b"\x01\x00\x00\x00\x08\x00",
        "bits beyond the span": b"\x01\x00\x00\x00\x03\x08",
        "a span without bits for it": b"\x00\x00\x00\x00\xf9",
        "a poll cut off": b"\x20",
        "two acknowledgements": b"\x00\x00\x00\x00\x00" * 2,
        "two polls": b"\x20\x02" * 2,
        "a poll for too many": b"\x20\xf9",
        "an unknown signal": b"\x46\x01",
        "a signal cut off": b"\x40",
        "a call longer than it need be": b"\x40\x80\x00",
        "a call above the highest": b"\x40\x80\x80\x80\x80\x10",
        "a call without end": b"\x40\x80\x80\x80\x80\x80\x80\x80",
        "an echo with unknown flags": b"\x62\x01",
        "an echo cut off": b"\x60",
        "a request without a call": b"\x80",
        "a piece without an offset": b"\xc0\x01",
        "a piece without bytes": b"\xc0\x01\x00",
        "a piece with unknown flags": b"\xc2\x01\x00x",
        "an offset above the highest": b"\xc0\x01\x80\x80\x80\x80\x01x",
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_out_of_bounds_is_refused(data: tuple[str, bytes]) -> None:
    with pytest.raises(RecordError):
        parse(data[1])


@given(st.integers(0, CALL_MAX), st.binary(max_size=3))
def test_a_number_ends_where_it_says(number: int, after: bytes) -> None:
    written = varint(number)
    assert read_varint(b"x" + written + after, 1, CALL_MAX) == (number, 1 + len(written))
    assert len(written) == max(1, -(-number.bit_length() // 7))
    if number:
        with pytest.raises(RecordError):
            read_varint(written, 0, number - 1)


@given(st.sets(st.integers(1, ACK_BITS_MAX)))
def test_ages_are_the_places_of_the_bits(found: set[int]) -> None:
    assert ages(sum(1 << age - 1 for age in found)) == tuple(sorted(found))


def test_an_acknowledgement_is_no_longer_than_what_is_missing_takes() -> None:
    assert len(write_ack(7, 0, ACK_BITS_MAX, 0)) == 5
    assert len(write_ack(7, 0, ACK_BITS_MAX, 1 << 8)) == 7
    assert len(write_ack(7, 0, ACK_BITS_MAX, -1)) == 5 + FLAGS_MAX
    assert parse(write_ack(7, 10_000, 4, -1)) == [Ack(7, 255, 4, (1, 2, 3, 4))]
