"""Clients that keep things: small and middling objects put, as copies or under a code, or enqueued, one after the
other; meanwhile those that are kept are read, shared and deleted. What is not deleted is to be read back.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from offgrid.client import Client
from offgrid_node.protocol.etypes import EventType
from offgrid_tools.soak.clients import Writer

SIZES = (0, 1, 1_000, 70_000, 300_000)
USES = ("read", "read", "share", "delete", "")
PAUSE_S = 0.2
REQUIRED_MILLI = 2_000
CODES = (None, (2, 3), (2, 5))  # three hosts at least lose two of them before such an object is lost


class Kept(msgspec.Struct):
    """What the node has acknowledged: from then on it must not get lost."""

    object_id: str
    data: bytes
    reader: str = ""  # the name of a node that may read it


class Keeping(Writer):
    """One client at one node. `readers` are other nodes, by name; `deleted` are the ids of what the node has said to be
    so."""

    readers: tuple[str, ...] = ()
    kept: list[Kept] = msgspec.field(default_factory=list)
    deleted: list[str] = msgspec.field(default_factory=list)
    used: Counter[str] = msgspec.field(default_factory=Counter)

    def step(self, client: Client, number: int) -> None:
        data, request_id = self.rng.randbytes(self.rng.choice(SIZES)), f"{self.name}-{number}"
        if number % 2:
            object_id = self.insist(lambda: self._enqueue(client, data, request_id))
        else:
            code = self.rng.choice(CODES)
            object_id = self.insist(lambda: self._put(client, data, code, request_id))
        if object_id is not None:
            self.kept.append(Kept(object_id, data))
        if self.kept:
            self._use(client, self.rng.choice(self.kept))
        self._stop.wait(PAUSE_S)

    def _use(self, client: Client, thing: Kept) -> None:
        """What was asked for and not answered may be so or not: nothing is demanded of that."""
        match self.rng.choice(USES):
            case "read":
                data = self.insist(lambda: client.objects.read(thing.object_id))
                self.used["reads"] += data is not None
                if data not in (None, thing.data):
                    self.violations.append(f"{self.name}: {thing.object_id} was read as something else")
            case "share":
                reader, thing.reader = self.rng.choice(self.readers), ""
                if self.insist(lambda: client.objects.share(thing.object_id, reader)) is not None:
                    self.used["shares"] += 1
                    thing.reader = reader
            case "delete":
                self.kept.remove(thing)
                if self.insist(lambda: client.objects.delete(thing.object_id)) is not None:
                    self.deleted.append(thing.object_id)

    def _put(self, client: Client, data: bytes, code: tuple[int, int] | None, request_id: str) -> str:
        return client.objects.put(
            data, name=request_id, required_milli=REQUIRED_MILLI, code=code, request_id=request_id
        ).object_id

    def _enqueue(self, client: Client, data: bytes, request_id: str) -> str:
        etype = EventType.OBJECT_STORED
        return client.objects.enqueue(request_id, data, etype, REQUIRED_MILLI, request_id=request_id).object_id
