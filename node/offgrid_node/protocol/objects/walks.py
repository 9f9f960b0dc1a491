"""Walks over rows of objects that may need something, a page at a time: those short of copies or shards once a host
comes up, the nearest to loss first, and before that those that a lost host held, which are short from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.objects.inventory import inventory_key
from offgrid_node.protocol.objects.tables import GIVEN, SPREADING

WALK_ROWS = 256  # rows read in one step
WALK_PAUSE_MS, WALK_AGAIN_MS = 20, 60_000


class Walks:
    """One over SPREADING, at `_walk_ms` on from `_walk`; and one over what each lost host held."""

    def __init__(self, mark_short: Callable[[str], None], draft: Draft) -> None:
        self._mark_short, self._draft = mark_short, draft
        self._walk: bytes | None = None
        self._walk_ms = 0
        self._twice = False  # what it passed may be worth another try later
        self._lost: dict[str, bytes] = {}  # host → where its walk goes on

    def deadline_ms(self) -> int | None:
        return self._walk_ms if self._walk is not None or self._lost else None

    def begin(self, now_ms: int) -> None:
        """From the first row, at once."""
        self._walk, self._walk_ms = b"", now_ms

    def begin_later(self, now_ms: int) -> None:
        if self._walk is None:
            self._walk = b""
            self._walk_ms = now_ms + (WALK_AGAIN_MS if not self._lost else WALK_PAUSE_MS)
        else:
            self._twice = True

    def on_lost(self, hosts: Iterable[str], now_ms: int) -> None:
        self._lost.update((node_id, inventory_key(node_id, "")) for node_id in hosts)
        self._walk_ms = now_ms

    def take(self, now_ms: int, *, room: bool) -> list[str]:
        """The next objects to look at, if memory has `room` for them."""
        if self.deadline_ms() is None or self._walk_ms > now_ms:
            return []
        self._walk_ms = now_ms + WALK_PAUSE_MS
        if self._lost:
            self._mark(next(iter(self._lost)))
            return []
        return self._page(now_ms) if room else []

    def _mark(self, node_id: str) -> None:
        """What it held is short of that from now on."""
        prefix = inventory_key(node_id, "")
        for count, (key, _) in enumerate(self._draft.committed(GIVEN, self._lost.pop(node_id))):
            if not key.startswith(prefix):
                break
            if count == WALK_ROWS:
                self._lost[node_id] = key
                return
            self._mark_short(key[len(prefix) :].decode())
        self._walk = b""

    def _page(self, now_ms: int) -> list[str]:
        start, self._walk = self._walk or b"", None
        found: list[str] = []
        for count, (key, value) in enumerate(self._draft.committed(SPREADING, start)):
            if count == WALK_ROWS:
                self._walk = key
                return found
            if self._draft.get(SPREADING, key) is not None:
                found.append(value.decode())
        if self._twice:
            self._twice = False
            self.begin_later(now_ms)
        return found
