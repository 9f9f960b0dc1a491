"""Clients that keep things: small and middling objects put, as copies or under a code, or enqueued, one after the
other; each is to be read back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from offgrid.client import Client
from offgrid_node.protocol.etypes import EventType
from offgrid_tools.soak.clients import Writer

SIZES = (0, 1, 1_000, 70_000, 300_000)
PAUSE_S = 0.2
REQUIRED_MILLI = 2_000
CODES = (None, (2, 3), (2, 5))  # three hosts at least lose two of them before such an object is lost


@dataclass(slots=True)
class Kept:
    """What the node has acknowledged: from then on it must not get lost."""

    object_id: str
    data: bytes


@dataclass(slots=True)
class Keeping(Writer):
    """One client at one node."""

    kept: list[Kept] = field(default_factory=list)

    def step(self, client: Client, number: int) -> None:
        data, request_id = self.rng.randbytes(self.rng.choice(SIZES)), f"{self.name}-{number}"
        if number % 2:
            object_id = self.insist(lambda: self._enqueue(client, data, request_id))
        else:
            code = self.rng.choice(CODES)
            object_id = self.insist(lambda: self._put(client, data, code, request_id))
        if object_id is not None:
            self.kept.append(Kept(object_id, data))
        self._stop.wait(PAUSE_S)

    def _put(self, client: Client, data: bytes, code: tuple[int, int] | None, request_id: str) -> str:
        return client.objects.put(
            data, name=request_id, required_milli=REQUIRED_MILLI, code=code, request_id=request_id
        ).object_id

    def _enqueue(self, client: Client, data: bytes, request_id: str) -> str:
        etype = EventType.OBJECT_STORED
        return client.objects.enqueue(request_id, data, etype, REQUIRED_MILLI, request_id=request_id).object_id
