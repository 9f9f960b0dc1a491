"""Acks for which nobody waits go to the machine with the next one that somebody waits for: they share its commit.

Of three copies of which two must ack, the first ack and the third make nothing durable. A commit for each would come
before, and into the way of, the one that does. An ack that is held here is lost with the process, as it might have been
on its way: its host gives the same again.
"""

from __future__ import annotations

from collections.abc import Collection

from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.errands import Shipped
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.parcels import Parcel
from offgrid_node.protocol.quorum.enough import enough
from offgrid_node.runtime import Runtime
from offgrid_node.services.flow import Later

HOLD_MS = 10  # at most: so long its host's slot is taken, too


class Patience:
    """Between the ends of Ships and the machine."""

    def __init__(self, runtime: Runtime, later: Later, hold_ms: int = HOLD_MS) -> None:
        """`hold_ms` 0: nothing is held."""
        self._runtime, self._later, self._hold_ms = runtime, later, hold_ms
        self._held: list[Shipped] = []

    def deliver(self, end: Shipped, others: Collection[str]) -> None:
        """`others`: hosts to which the same object is still under way."""
        if not self._may_wait(end, others):
            self._release()
            self._runtime.deliver("objects", end)
            return
        self._held.append(end)
        if len(self._held) == 1:
            self._later(self._hold_ms, self._release)

    def _release(self) -> None:
        held, self._held = self._held, []
        for end in held:
            self._runtime.deliver("objects", end)

    def _may_wait(self, end: Shipped, others: Collection[str]) -> bool:
        if not self._hold_ms or end.ack is None:
            return False
        try:
            parcel = self._runtime.machine("objects", ObjectsMachine).parcel(end.object_id)
        except Fault:
            return False
        return not parcel.given_up and (parcel.durable or self._is_awaited(parcel, end, others))

    def _is_awaited(self, parcel: Parcel, end: Shipped, others: Collection[str]) -> bool:
        """Whether this ack makes it durable only together with another that is under way."""
        if parcel.coded or not parcel.epoch:
            return False
        acked = {*parcel.held, end.node, *(held.node for held in self._held if held.object_id == end.object_id)}
        weights, required_milli = parcel.terms.weights, parcel.required_milli
        return not enough(acked, weights, required_milli) and enough({*acked, *others}, weights, required_milli)
