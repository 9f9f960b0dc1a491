"""Pages of list RPCs: their size and the opaque token that says where the next one begins (AIP-158)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from offgrid_node.protocol.errors import InvalidRequest

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000
PAGE_BYTES_MAX = 3 * 1024 * 1024  # of items in one page, so that the answer stays below gRPC's 4 MiB message
TOKEN_BYTES_MAX = 512  # a token carries a store key (at most 511 bytes)

PASSED_OVER_MAX = 10_000  # rows that a page does not take in: a list with few of the wanted ones holds nobody up

FRAME_BYTES = 8  # of tag and length around one item

M = TypeVar("M", bound=Message)


def take_page(rows: Iterable[tuple[bytes, M | None]], page_size: int) -> tuple[list[M], str]:
    """What one page takes of `rows` (position, item), and the token of the row that the next page begins with. No item
    stands for one that is passed over.

    A page is full at `page_size` items or at PAGE_BYTES_MAX; one item is always taken, so that every list comes to its
    end, and it ends with what it has after PASSED_OVER_MAX. Raises InvalidRequest for a negative size.
    """
    limit, room, over = page_bounds(page_size), PAGE_BYTES_MAX, PASSED_OVER_MAX
    found: list[M] = []
    for position, item in rows:
        if item is None:
            if not over:
                return found, encode_token(position)
            over -= 1
            continue
        room -= item.ByteSize() + FRAME_BYTES
        if found and (room < 0 or len(found) == limit):
            return found, encode_token(position)
        found.append(item)
    return found, ""


def page_bounds(page_size: int) -> int:
    """How many items a page may have: 0 means 100, and more than 1,000 means 1,000, as AIP-158 wants it.

    Raises InvalidRequest for a negative size.
    """
    if page_size < 0:
        raise InvalidRequest.field("page_size", f"{page_size} is negative; allowed: 0 (= 100) to {PAGE_SIZE_MAX}")
    return min(page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def encode_token(position: bytes) -> str:
    """A page token for a position; an empty position gives "", which means that there are no more pages."""
    return base64.urlsafe_b64encode(position).rstrip(b"=").decode("ascii")


def decode_token(token: str) -> bytes:
    """The position behind a token, b"" for the first page. Raises InvalidRequest for anything else."""
    try:
        position = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        position = b""
    if len(position) > TOKEN_BYTES_MAX or encode_token(position) != token:
        raise InvalidRequest.field("page_token", "not a token of this service; use next_page_token as it was given")
    return position
