"""A host's leases on disk: rows of several leases that were kept in one step, so that a batch of short work is one row.

A row goes with the last of its leases; which of the others are settled by then, the fence says. Of leases whose work
goes on each has a row of its own, which is written again with its report.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.jobs.fence import Fence
from offgrid_node.protocol.jobs.leases import Lease
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.jobs.post import Post

LEASES = "host_leases"
PAGE_BYTES = 64 * 1024  # so much, and one lease more, is kept at most for the sake of one that stays
UNSETTLED_MS = 2_000  # after which reports that went with an answer are sent by themselves


class Page(msgspec.Struct, eq=False):
    """A row, and those of its leases that are not settled."""

    number: int
    open: dict[ClaimKey, Lease]
    due_ms: int = 0  # once a report of it has gone with an answer


class Pages:
    """Where each lease is kept, and when nobody has settled those of a page."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._number = 0
        self._awaited: deque[Page] = deque()  # whose reports went with an answer, in the order of time

    def load(self, rows: Rows, fence: Fence, now: Now) -> Iterator[Lease]:
        """Those that are not settled."""
        for key, value in rows.scan(LEASES):
            page = Page(int.from_bytes(key, "big"), {})
            self._number = page.number
            for row in jobs_pb2.HostLeases.FromString(value).leases:
                lease = Lease.of_row(row)
                core, job_id, attempt = lease.order.key
                if fence.highest(core, job_id) < attempt:
                    lease.page, page.open[lease.order.key] = page, lease
            if not page.open:  # pushed out by the fence's bound, or by a restart between two late writes
                self._post.delete_late(LEASES, key, now)
            yield from page.open.values()

    def deadline_ms(self) -> int | None:
        while self._awaited and not self._awaited[0].open:
            self._awaited.popleft()
        return self._awaited[0].due_ms if self._awaited else None

    def take_due(self, now: Now) -> list[ClaimKey]:
        """Leases of reports that went with an answer, which nobody has settled for a while."""
        keys: list[ClaimKey] = []
        while (due_ms := self.deadline_ms()) is not None and due_ms <= now.mono_ms:
            keys += self._awaited.popleft().open
        return keys

    def keep(self, lease: Lease) -> None:
        """In a row of its own, which is written again when it has one already."""
        assert lease.page is None or len(lease.page.open) == 1
        self._write(lease.page or self._page([lease]), [lease])

    def keep_ended(self, leases: Sequence[Lease]) -> None:
        """Their work is over: those that are not kept yet share rows."""
        shared: list[Lease] = []
        size_bytes = 0
        for lease in leases:
            if lease.page is not None:
                self.keep(lease)
                continue
            shared.append(lease)
            size_bytes += lease.size_bytes
            if size_bytes >= PAGE_BYTES:
                self._write(self._page(shared), shared)
                shared, size_bytes = [], 0
        if shared:
            self._write(self._page(shared), shared)

    def await_settling(self, lease: Lease, now: Now) -> None:
        """Its report goes with an answer, and nobody says that it has come until a later call does."""
        page = lease.page
        if page is not None and not page.due_ms:
            page.due_ms = now.mono_ms + UNSETTLED_MS
            self._awaited.append(page)

    def settle(self, lease: Lease, now: Now) -> None:
        """Written late, together with its fence."""
        page = lease.page
        if page is not None:
            del page.open[lease.order.key]
            if not page.open:
                self._post.delete_late(LEASES, _row_key(page), now)

    # ---- inside

    def _page(self, leases: Sequence[Lease]) -> Page:
        self._number += 1
        page = Page(self._number, {lease.order.key: lease for lease in leases})
        for lease in leases:
            lease.page = page
        return page

    def _write(self, page: Page, leases: Sequence[Lease]) -> None:
        row = jobs_pb2.HostLeases()
        for lease in leases:
            lease.write(row.leases.add())
        self._post.put(LEASES, _row_key(page), row)


def _row_key(page: Page) -> bytes:
    return page.number.to_bytes(8, "big")
