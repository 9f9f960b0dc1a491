"""Owners that were removed from the mesh: what this host keeps for them nobody moves or deletes any more. Whom they
have shared it with still reads it.

A removal is final, unless the mesh's root gets another key and takes back what a thief of the last one had said. So
nothing of theirs goes by itself: the host's owner may have it dropped, once this host has known for a month that they
are gone. No fence stays; whoever is back all the same finds out by comparing, and brings it again.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, Fault
from offgrid_node.protocol.objects.expiry import TrustedClock
from offgrid_node.protocol.objects.inventory import Inventory, inventory_key, sum_key
from offgrid_node.protocol.objects.tables import (
    GONE,
    INVENTORY_SUMS,
    KEPT,
    KEPT_BYTES,
    REPLICAS,
    number_key,
    number_of,
)
from offgrid_node.protocol.sound import keys, sound

DAY_US = 86_400_000_000
GRACE_US = 30 * DAY_US
PAGE_REPLICAS = 256  # that go in one transaction
LOOK_ROWS = 4_096  # of all owners, looked at in one step

Drop = Callable[[str, str], None]
"""All that is kept of an object for an owner goes."""


class Gone:
    """Since when they are."""

    def __init__(self, draft: Draft, clock: TrustedClock, drop: Drop) -> None:
        self._draft, self._clock, self._drop = draft, clock, drop
        self._kept = Inventory(draft, KEPT)
        self._looked = dict[str, bytes]()  # for whom in REPLICAS, up to where

    def on_removed(self, owner: str, now: Now) -> None:
        self._clock.believed(now)  # whatever it says: from here on it is seen to leap
        if self._kept.knows(owner) and self._draft.get(GONE, owner.encode()) is None:
            self._draft.put_bytes(GONE, owner.encode(), number_key(now.utc_us))

    def on_member(self, owner: str) -> None:
        """It is one, or one again, up or down."""
        self._looked.pop(owner, None)
        if self._draft.get(GONE, owner.encode()) is not None:
            self._draft.delete(GONE, owner.encode())

    def on_drop(self, owner: str, now: Now) -> jobs_pb2.DropKeptResponse:
        """Drops a page of what is kept for it, in the end of what is known to be lost too, and says how far it is.
        Whoever was removed without this host's hearing of it, while it stood still, is gone from now on; so is whoever
        was by a clock that has been set back since. Raises FailedPrecondition (reasons OwnerMayReturn, ClockLeapt)."""
        self.on_removed(owner, now)
        since = self._draft.get(GONE, owner.encode())
        if since is None:
            return jobs_pb2.DropKeptResponse()
        self._check(owner, since, now)
        page = self._page(owner)
        dropped = sum(self._try(owner, object_id) for object_id in page)
        if page and (left := self._kept.count(owner)):  # else whatever is still counted no row names
            return jobs_pb2.DropKeptResponse(dropped=dropped, left=left)
        dropped += sum(self._try(owner, object_id) for object_id in self._lost(owner))
        if owner in self._looked:
            return jobs_pb2.DropKeptResponse(dropped=dropped, more=True)
        self._draft.delete(GONE, owner.encode())
        self._draft.delete(INVENTORY_SUMS, sum_key(KEPT, owner))
        self._draft.put_bytes(KEPT_BYTES, owner.encode(), number_key(0))
        return jobs_pb2.DropKeptResponse(dropped=dropped)

    def _check(self, owner: str, since: bytes, now: Now) -> None:
        if not self._clock.believed(now):
            text = "this host's clock has leapt ahead: it is believed once the node has run under it for a day"
            raise FailedPrecondition(f"{text}; try again then", reason="ClockLeapt")
        if (since_us := number_of(since)) > now.utc_us:
            since_us = now.utc_us
            self._draft.put_bytes(GONE, owner.encode(), number_key(since_us))
        if (left_us := since_us + GRACE_US - now.utc_us) > 0:
            text = f"{owner} is not gone for {GRACE_US // DAY_US} days yet: what is kept for it may be dropped in"
            days = -(-left_us // DAY_US)
            raise FailedPrecondition(f"{text} {days} {'day' if days == 1 else 'days'}", reason="OwnerMayReturn")

    def _page(self, owner: str) -> list[str]:
        prefix, ids = inventory_key(owner, ""), list[str]()
        for key in keys(self._draft.committed, KEPT, prefix=prefix):
            if self._is_there(KEPT, key):
                ids.append(key[len(prefix) :].decode(errors="replace"))
            if len(ids) == PAGE_REPLICAS:
                break
        return ids

    def _lost(self, owner: str) -> list[str]:
        """Of some rows further on those that are its own: the inventory names none of them any more."""
        found, begin = list[bytes](), self._looked.pop(owner, b"")
        rows = sound(self._draft.committed, REPLICAS, begin, on_damaged=found.append)
        for count, (key, _) in enumerate(rows):
            if count == LOOK_ROWS:
                self._looked[owner] = key
                break
            found.append(key)
        own = [key for key in found if key.endswith(f"/{owner}".encode()) and self._is_there(REPLICAS, key)]
        return [key.decode().partition("/")[0] for key in own]

    def _is_there(self, table: str, key: bytes) -> bool:
        """So is a row that is damaged."""
        try:
            return self._draft.get(table, key) is not None
        except Corrupt:
            return True

    def _try(self, owner: str, object_id: str) -> bool:
        try:
            self._drop(owner, object_id)
        except Fault:  # the others do not wait for it
            return False
        return True
