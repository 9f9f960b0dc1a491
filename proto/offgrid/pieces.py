"""Messages with many bytes in one field, written and read without copying those.

On every carrier they are plain protobuf: a field's bytes stand in a message as they are, so what is before them may be
written by itself, and they may be read where they lie. Only protobuf's own classes copy them, twice on either side.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar, cast

from google.protobuf.message import DecodeError, Message

from offgrid.v1 import objects_pb2

Buffer: TypeAlias = "bytes | bytearray | memoryview"
Parts: TypeAlias = "tuple[bytes, Buffer]"
"""A message in two parts, of which the second may be large; it is never changed."""

M = TypeVar("M", bound=Message)

BULK: dict[type[Message], int] = {
    kind: kind.DESCRIPTOR.fields_by_name["data"].number
    for kind in (
        objects_pb2.WriteReplicaRequest,
        objects_pb2.ReadReplicaResponse,
        objects_pb2.CombineRowsResponse,
        objects_pb2.WriteUploadRequest,
        objects_pb2.ReadObjectResponse,
    )
}
"""Which messages, and the number of the field."""

FIELDS_MAX = 64  # beside it, in a message: a proof's path is the longest of what is repeated there
VARINT_BYTES_MAX = 10
_BYTES = 2  # of the wire types: a length, and so many bytes


class Piece(Message):
    """A message of BULK, read and carried as the message itself is: `data` is its bulk, `head` all the rest."""

    __slots__ = ("DESCRIPTOR", "data", "head")

    def __init__(self, head: Message, data: Buffer) -> None:
        """`head` has no bulk, and neither changes any more."""
        self.head, self.data, self.DESCRIPTOR = head, data, head.DESCRIPTOR

    def __getattr__(self, name: str) -> Any:
        return getattr(self.head, name)

    @property
    def parts(self) -> Parts:
        """On the wire."""
        return before(self.head.SerializeToString(), BULK[type(self.head)], len(self.data)), self.data

    def SerializeToString(self, **kwargs: Any) -> bytes:  # noqa: N802 - as messages have it
        return b"".join(self.parts)

    def ByteSize(self) -> int:  # noqa: N802
        head, data = self.parts
        return len(head) + len(data)

    def HasField(self, field_name: str) -> bool:  # noqa: N802
        return self.head.HasField(field_name)


def as_a(kind: type[M], message: object) -> M | None:
    """The message where it is of this kind, be it in parts or not."""
    return cast("M", message) if isinstance(message.head if isinstance(message, Piece) else message, kind) else None


def parts_of(message: Message) -> Parts:
    return message.parts if isinstance(message, Piece) else (message.SerializeToString(), b"")


def read(kind: type[M], raw: Buffer) -> M:
    """The message, a Piece when it is one of BULK. Raises DecodeError."""
    number = BULK.get(kind)
    if number is None:
        return kind.FromString(bytes(raw))
    head, data = cut(raw, number)
    return cast("M", Piece(kind.FromString(head), data))


def read_known(kind: type[M], raw: Buffer) -> M:
    """As `read`, without fields that its type does not have: members sign no message as it travels and keep many whole,
    so nobody is to make another keep what he did not ask for. Raises DecodeError."""
    message = read(kind, raw)
    (message.head if isinstance(message, Piece) else message).DiscardUnknownFields()
    return message


# ---- protobuf's wire format, as far as it takes


def before(head: bytes, number: int, size_bytes: int) -> bytes:
    """A message up to its last field, which has so many bytes."""
    return head + _encoded(number << 3 | _BYTES) + _encoded(size_bytes)


def cut(raw: Buffer, number: int) -> tuple[bytes, memoryview]:
    """The message without a field, and that field's bytes; the last of them counts. Raises DecodeError."""
    view, head, at = memoryview(raw), bytearray(), 0
    found = view[:0]
    for _ in range(FIELDS_MAX + 1):
        if at == len(view):
            return bytes(head), found
        begin = at
        tag, at = _decoded(view, at)
        size, at = _size(view, at, tag & 7)
        if at + size > len(view):
            raise DecodeError("the message is cut off")
        if tag == number << 3 | _BYTES:
            found = view[at : at + size]
        else:
            head += view[begin : at + size]
        at += size
    raise DecodeError(f"more than {FIELDS_MAX} fields")


def lone(raw: Buffer, number: int) -> memoryview | None:
    """The field's bytes, when the message is nothing but that one."""
    view = memoryview(raw)
    try:
        tag, at = _decoded(view, 0)
        size, at = _decoded(view, at)
    except DecodeError:
        return None
    return view[at:] if tag == number << 3 | _BYTES and at + size == len(view) else None


def _size(view: memoryview, at: int, kind: int) -> tuple[int, int]:
    """Of a field's value, and where it begins."""
    match kind:
        case 0:
            return _decoded(view, at)[1] - at, at
        case 1:
            return 8, at
        case 2:
            return _decoded(view, at)
        case 5:
            return 4, at
    raise DecodeError(f"a field of wire type {kind}")


def _encoded(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _decoded(view: memoryview, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    number = 0
    for index, byte in enumerate(view[at : at + VARINT_BYTES_MAX]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, at + index + 1
    raise DecodeError("a number that does not end")
