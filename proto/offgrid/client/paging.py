"""Follows `next_page_token` (AIP-158), so that a list reads like one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

PAGE_SIZE = 200

T = TypeVar("T")


def pages(fetch: Callable[[int, str], tuple[Sequence[T], str]], limit: int | None) -> Iterator[T]:
    """Up to `limit` items (None: all). `fetch(page_size, page_token)` returns a page and the next token, "" at the end.

    Raises RuntimeError when a node gives the same token twice, which would never end.
    """
    left, token = limit, ""
    while left is None or left > 0:
        items, following = fetch(PAGE_SIZE if left is None else min(PAGE_SIZE, left), token)
        yield from items if left is None else items[:left]
        left = None if left is None else left - len(items)
        if not following:
            return
        if following == token:
            raise RuntimeError("the node gave the same page token twice")
        token = following
