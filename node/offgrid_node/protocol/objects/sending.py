"""How a host gets what it is to hold of an object: brought from this node's own copy, or made there from what others
keep. Each takes a slot.
"""

from __future__ import annotations

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.objects.entries import DELIVERING
from offgrid_node.protocol.objects.errands import Rebuild, Ship
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.looks import NextEpoch
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.parcels import SPOILT_MAX, Parcel
from offgrid_node.protocol.objects.sharing import for_host
from offgrid_node.protocol.objects.slots import Slots
from offgrid_node.protocol.objects.sources import Sources, suspected
from offgrid_node.protocol.objects.urgency import Urgent


class Sending:
    """Of parcels that are in memory. A parcel for which there is no slot waits for one: at the host, or in `ready`."""

    def __init__(self, hosts: Hosts, outbox: Outbox, draft: Draft, slots: Slots, ready: Urgent) -> None:
        self._outbox, self._draft, self._slots, self._ready = outbox, draft, slots, ready
        self._sources = Sources(hosts)

    def may_lay(self, parcel: Parcel, wanted: NextEpoch, now: Now) -> bool:
        """The next epoch forgets who holds what it moves, and that may be all there is: then this node has the bytes
        first."""
        if parcel.local or not (parcel.coded and parcel.durable):
            return True
        return parcel.spoilt < SPOILT_MAX and self._sources.suffice(parcel, wanted.layout, now.mono_ms)

    def ship(self, parcel: Parcel, node_id: str) -> bool:
        """Whether it leaves now, not once the host has a slot."""
        row = self._take_slot(parcel, node_id)
        if row is None:
            return False
        self._draft.send(Ship(parcel.object_id, node_id, for_host(row.object.manifest, row.object.owner), row.epoch))
        if not parcel.durable:
            self._outbox.entries.note(parcel.number, DELIVERING, 1, "")
        return True

    def rebuild(self, parcel: Parcel, node_id: str, now: Now) -> bool:
        """Whether the host makes it from what others keep, now or once it has a slot; or this node fetches it."""
        if parcel.fetching:
            return True
        sums = self._sources.sums(parcel, node_id, now.mono_ms) if parcel.spoilt < SPOILT_MAX else None
        if sums is None:
            return False
        row = self._take_slot(parcel, node_id)
        if row is not None:
            parcel.rebuilding[node_id] = suspected(sums)
            manifest = for_host(row.object.manifest, row.object.owner)
            self._draft.send(Rebuild(parcel.object_id, node_id, manifest, row.epoch, sums))
        return True

    def _take_slot(self, parcel: Parcel, node_id: str) -> objects_pb2.ObjectRow | None:
        """The object's row, which says that the host was asked; None while nothing may leave for it."""
        if not self._slots.has(node_id):
            self._slots.wait(node_id, parcel.object_id)
            return None
        if self._slots.full:
            self._ready.add(parcel.object_id)
            return None
        parcel.flights[node_id] = parcel.epoch
        self._slots.take(node_id)
        return self._outbox.ask(parcel.object_id, node_id)
