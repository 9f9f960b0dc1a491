"""This node's own sealed bytes of an object that is on its way: gone or damaged, they are fetched from the hosts that
have acked, and where those have too few it is said.
"""

from __future__ import annotations

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.entries import PENDING
from offgrid_node.protocol.objects.errands import Fetch
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.lacking import damage_of
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.parcels import Parcel
from offgrid_node.protocol.objects.slots import HERE, Slots
from offgrid_node.protocol.timers import Timers


class OwnCopy:
    """Of parcels that are in memory."""

    def __init__(self, hosts: Hosts, outbox: Outbox, draft: Draft, slots: Slots, timers: Timers[str]) -> None:
        """`timers`: when a parcel is looked at again."""
        self._hosts, self._outbox, self._draft, self._slots, self._timers = hosts, outbox, draft, slots, timers
        self._damaged: set[str] = set()  # open ones whose bytes are not to be had, as far as was found since the start

    @property
    def damaged(self) -> int:
        return len(self._damaged)

    def is_here(self, parcel: Parcel, now: Now) -> bool:
        """Or it is being fetched, from now on at the latest; False while that has to wait."""
        if parcel.local or parcel.fetching:
            return True
        if parcel.waits(HERE, now.mono_ms, self._hosts) is not None:
            return False
        if not self._slots.has(HERE):
            self._slots.wait(HERE, parcel.object_id)
            return True
        parcel.fetching = True
        self._slots.take(HERE)
        self._draft.send(Fetch(parcel.object_id, self._outbox.get(parcel.object_id).object.manifest))
        return True

    def on_fetched(self, parcel: Parcel, fault: Fault | None, now: Now) -> None:
        parcel.fetching = False
        self._slots.give_back(HERE)
        if fault is None:
            if not parcel.given_up:
                parcel.failed.pop(HERE, None)
                self._damaged.discard(parcel.object_id)
                self._outbox.fetched(parcel)
            return
        parcel.fails(HERE, now.mono_ms, self._hosts)
        if not parcel.durable and not parcel.given_up:
            trouble = f"this node's copy is damaged, and is to be made anew: {fault.message}"
            self._outbox.entries.note(parcel.number, PENDING, 0, trouble)

    def mend(self, parcel: Parcel, now: Now) -> None:
        """What is damaged here, and not durable, is brought to nobody before it is whole again."""
        if parcel.shards_held < parcel.shards_needed:
            self._damaged.add(parcel.object_id)
            self._outbox.damaged(parcel, damage_of(parcel))
        elif not self.is_here(parcel, now):
            self._timers.set(parcel.object_id, parcel.failed[HERE].due_ms)

    def on_end(self, object_id: str) -> None:
        """It is durable, or given up."""
        self._damaged.discard(object_id)
