"""Follows `next_page_token` (AIP-158), so that a list reads like one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

PAGE_SIZE = 200

T = TypeVar("T")


def pages(
    fetch: Callable[[int, str], tuple[Sequence[T], str]], limit: int | None, page_size: int = PAGE_SIZE
) -> Iterator[T]:
    """Up to `limit` items (None: all). `fetch(size, page_token)` returns a page of `page_size` items at most and the
    next token, "" at the end.

    Raises RuntimeError when a node gives the same token twice, which would never end.
    """
    left, token = limit, ""
    while left is None or left > 0:
        items, following = fetch(page_size if left is None else min(page_size, left), token)
        yield from items if left is None else items[:left]
        left = None if left is None else left - len(items)
        if not following:
            return
        if following == token:
            raise RuntimeError("the node gave the same page token twice")
        token = following
