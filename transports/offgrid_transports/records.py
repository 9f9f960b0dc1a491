"""What stands in a frame of a session, once it is opened: a few short records, and at the end at most one with a body.

Each begins with a byte KKKFFFFF, kind and flags; numbers are varints (LEB128) unless it says otherwise.

    ACK            newest 2 | delay 1 | span 1   what has come of the counter whose low half is `newest`, and of the
                   | F bytes                     `span` below it: a bit for each of these, the highest first, set where
                                                 that one has NOT come; what no bit stands for has
    POLL           span 1                        "acknowledge", with so many counters below this frame's; F more frames
                                                 follow that ask the same
    SIGNAL         call                          F says what (Signal)
    ECHO           number                        F is 0: "say this number there where this came from"; 1: it is said
    REQUEST        call | rest of the message    F are the flags of the message (messages.py)
    RESPONSE       call | rest of the message    likewise
    REQUEST_PART   call | offset | bytes         a piece of the message, its flags being its first byte; F is 1 for the
                                                 last piece
    RESPONSE_PART  call | offset | bytes         likewise

Only these bytes come from a stranger unread by anything else, so nothing here trusts a length.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

FLAGS_MAX = 31
ACK_BITS_MAX = FLAGS_MAX * 8
CALL_MAX = (1 << 32) - 1
OFFSET_MAX = (1 << 28) - 1
DELAY_MS_MAX = 255


class Kind(IntEnum):
    ACK = 0
    POLL = 1
    SIGNAL = 2
    ECHO = 3
    REQUEST = 4
    RESPONSE = 5
    REQUEST_PART = 6
    RESPONSE_PART = 7


class Signal(IntEnum):
    """Short words about one call."""

    HELD = 0  # the request is here, and worked at
    PROBE = 1  # is it? And where is the answer?
    GONE = 2  # it may have been carried out; its answer is not kept (any more)
    REFUSED = 3  # it was not and will not be carried out: no room
    TOO_LARGE = 4  # it was not and will not be carried out: longer than is taken
    MALFORMED = 5  # it was not and will not be carried out: no request


class Ack(NamedTuple):
    """`newest` is the low half of a counter; `missing` are the ages, from 1 to `span`, of those that have not come."""

    newest: int
    delay_ms: int
    span: int
    missing: tuple[int, ...]


class Poll(NamedTuple):
    more: int
    span: int


class Said(NamedTuple):
    signal: Signal
    call: int


class Echo(NamedTuple):
    """Tells how long a path takes, and that it leads there."""

    answers: bool
    number: int


class Whole(NamedTuple):
    """A message that is short enough for one frame. `flags` are its first five bits, `rest` is the rest."""

    request: bool
    call: int
    flags: int
    rest: bytes


class Part(NamedTuple):
    request: bool
    call: int
    offset: int
    last: bool
    data: bytes


Record = Ack | Poll | Said | Echo | Whole | Part


class RecordError(ValueError):
    """These bytes are no records; the frame is dropped and counted."""


def write_ack(newest: int, delay_ms: int, span: int, missing: int) -> bytes:
    """`span` is ACK_BITS_MAX at most. `missing`: bit 0 stands for the counter right below `newest`, and so on."""
    missing &= (1 << span) - 1
    length = (missing.bit_length() + 7) // 8
    head = bytes((Kind.ACK << 5 | length, newest >> 8 & 0xFF, newest & 0xFF, min(delay_ms, DELAY_MS_MAX), span))
    return head + missing.to_bytes(length, "little")


def write_poll(more: int, span: int) -> bytes:
    """`span` as in `write_ack`."""
    return bytes((Kind.POLL << 5 | more, span))


def write_signal(signal: Signal, call: int) -> bytes:
    return bytes((Kind.SIGNAL << 5 | signal,)) + varint(call)


def write_echo(*, answers: bool, number: int) -> bytes:
    return bytes((Kind.ECHO << 5 | answers,)) + varint(number)


def whole_head(*, request: bool, call: int, flags: int) -> bytes:
    """What stands before the rest of the message."""
    return bytes(((Kind.REQUEST if request else Kind.RESPONSE) << 5 | flags,)) + varint(call)


def part_head(*, request: bool, call: int, offset: int, last: bool) -> bytes:
    """What stands before the piece."""
    kind = Kind.REQUEST_PART if request else Kind.RESPONSE_PART
    return bytes((kind << 5 | last,)) + varint(call) + varint(offset)


def parse(data: bytes) -> list[Record]:
    """What a frame holds; an empty one holds nothing. Raises RecordError for anything that would not have been
    written so."""
    records: list[Record] = []
    at, end = 0, len(data)
    acks = polls = 0
    while at < end:
        kind, flags = data[at] >> 5, data[at] & FLAGS_MAX
        at += 1
        acks, polls = acks + (kind == Kind.ACK), polls + (kind == Kind.POLL)
        if acks > 1 or polls > 1:
            raise RecordError("two acknowledgements or two polls in a frame")
        if kind == Kind.ACK:
            stop = at + 4 + flags
            if stop > end:
                raise RecordError("an acknowledgement is cut off")
            span, bits = data[at + 3], int.from_bytes(data[at + 4 : stop], "little")
            if (bits.bit_length() + 7) // 8 != flags or bits >> span or span > ACK_BITS_MAX:
                raise RecordError("an acknowledgement is longer than it need be, or speaks of too many")
            records.append(Ack(data[at] << 8 | data[at + 1], data[at + 2], span, ages(bits)))
            at = stop
        elif kind == Kind.POLL:
            if at == end or data[at] > ACK_BITS_MAX:
                raise RecordError("a poll is cut off, or asks for too many")
            records.append(Poll(flags, data[at]))
            at += 1
        elif kind == Kind.SIGNAL:
            if flags > Signal.MALFORMED:
                raise RecordError(f"signal {flags}")
            call, at = read_varint(data, at, CALL_MAX)
            records.append(Said(Signal(flags), call))
        elif kind == Kind.ECHO:
            if flags > 1:
                raise RecordError(f"an echo with the flags {flags:#x}")
            number, at = read_varint(data, at, CALL_MAX)
            records.append(Echo(bool(flags), number))
        else:
            records.append(_bodied(Kind(kind), flags, data, at))
            break
    return records


def _bodied(kind: Kind, flags: int, data: bytes, at: int) -> Record:
    call, at = read_varint(data, at, CALL_MAX)
    if kind in (Kind.REQUEST, Kind.RESPONSE):
        return Whole(kind is Kind.REQUEST, call, flags, data[at:])
    offset, at = read_varint(data, at, OFFSET_MAX)
    if flags > 1 or at == len(data):
        raise RecordError("a piece of a message with unknown flags, or without bytes")
    return Part(kind is Kind.REQUEST_PART, call, offset, bool(flags), data[at:])


def ages(bits: int) -> tuple[int, ...]:
    """Of the bits that are set, from 1 on for the lowest one."""
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length())
        bits ^= lowest
    return tuple(found)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, at: int, most: int) -> tuple[int, int]:
    """The number, and where it ends. Raises RecordError for one that is cut off, longer than it need be, or above
    `most`."""
    number = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if number > most:
            raise RecordError(f"a number above {most}")
        if byte < 0x80:
            if not byte and shift:
                raise RecordError("a number is longer than it need be")
            return number, at
        shift += 7
        if shift > 35:
            break
    raise RecordError("a number is cut off")
