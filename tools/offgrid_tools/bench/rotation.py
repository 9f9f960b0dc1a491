"""Rotation of data keys: an owner and one reader have new keys, and every object is wrapped anew for both, by the real
machine, service and keys over a store in memory.

Bytes are those of lanes on the framed carrier, as in audits.py; what would move an object is counted apart.
"""

from __future__ import annotations

import time
from random import Random

from google.protobuf.message import Message

from offgrid.frames import frame
from offgrid.v1 import common_pb2, lane_pb2, objects_pb2
from offgrid_node.keys import NodeKey
from offgrid_node.keys.wraps import ENTROPY_BYTES, KeyWraps
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.events import CORE, PeerUp
from offgrid_node.protocol.mesh.wrapping import WrappingKey
from offgrid_node.protocol.objects.errands import Rewrap
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.manifest import COPY, STRIPE_BYTES, Manifest
from offgrid_node.protocol.objects.outbox import described
from offgrid_node.protocol.objects.settings import ObjectsSettings
from offgrid_node.protocol.objects.tables import META, NOTICES, OBJECTS, REWRAPPING, WRAP_LABELS
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.objects.rewrapping import Rewrapping
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.bench.audits import TLS_RECORD_BYTES
from offgrid_tools.bench.figures import Figure

OBJECTS_MADE, OBJECTS_QUICK = 10_000, 1_000
SALT = b"rotation-bench-16"[:16]
TICK_MS = 50
METHOD = METHOD_NUMBERS["offgrid.v1.ObjectService/DeliverNotices"]


def measure_rotation(objects: int) -> list[Figure]:
    """Raises RuntimeError if anything is left wrapped for a key of before."""
    house = House(objects)
    began = time.process_time()
    house.rotate()
    took_s = time.process_time() - began
    if not house.done():
        raise RuntimeError("some object is wrapped for a key of before")
    return [
        Figure("rotation_bytes_per_object", house.wire_bytes / objects, note=f"one reader of {objects} objects"),
        Figure("rotation_moves", house.moves, note="of objects or shards"),
        Figure("rotation_cpu_ms_per_object", 1_000 * took_s / objects, note="two wraps each, at the owner"),
    ]


class House:
    """The owner, whose outlet this is, with its clock and with what it knows of members."""

    def __init__(self, objects: int) -> None:
        self.owner, self.reader = NodeKey(b"o" * 32), NodeKey(b"r" * 32)
        self.number, self.now_ms, self.wire_bytes, self.moves = 0, 1_000, 0, 0
        self.store, rng = MemoryStore(), Random(1)  # noqa: S311 - the same every time
        self._fill(objects, rng)
        settings = ObjectsSettings(self.owner, SALT)
        self.runtime = Runtime(lambda: {"objects": ObjectsMachine(settings)}, self.store, self, rng, self)  # type: ignore[arg-type]
        bulk = Bulk(inline)
        node_id, wraps = self.owner.node_id, KeyWraps(self.owner)
        self.rewrapping = Rewrapping(self.runtime, node_id, lambda: self, wraps, rng, bulk)

    def _fill(self, objects: int, rng: Random) -> None:
        wraps, rows = KeyWraps(self.owner), dict[tuple[str, bytes], bytes | None]()
        for number in range(objects):
            body = Manifest(
                self.owner.node_id, rng.randbytes(16), 1_000, STRIPE_BYTES, 1, COPY, (rng.randbytes(32),), 7
            )
            manifest = objects_pb2.Manifest(signed=common_pb2.Signed(body=body.encode(), signature=bytes(64)))
            for key in (self.owner, self.reader):
                secret = [(rng.randbytes(32), body.object_id.encode())]
                (sealed,) = wraps.wrap(key.wrapping_key(0), secret, rng.randbytes(ENTROPY_BYTES))
                manifest.wraps.add(node_id=key.node_id, sealed_key=sealed)
            made = described(manifest, body, f"notes-{number}")
            made.state = objects_pb2.OBJECT_STATE_DURABLE
            row = objects_pb2.ObjectRow(object=made, outbox_id=number + 1)
            rows[OBJECTS, body.object_id.encode()] = row.SerializeToString()
        for key in (self.owner, self.reader):
            rows[WRAP_LABELS, key.node_id.encode()] = key.wrapping_key(0).label
        self.store.commit(Batch(writes=rows))

    def rotate(self) -> None:
        """Until all is wrapped anew and the reader has heard of it."""
        self.number += 1
        for key in (self.owner, self.reader):
            label = key.wrapping_key(self.number).label
            self.runtime.deliver("objects", PeerUp(key.node_id, "", frozenset({CORE}), 1_000, "", label))
        self._turn()
        while self._under_way():
            self.now_ms += TICK_MS
            self._turn()

    def done(self) -> bool:
        labels = {key.wrapping_key(self.number).label for key in (self.owner, self.reader)}
        rows = (objects_pb2.ObjectRow.FromString(value) for _, value in self.store.scan(OBJECTS))
        return all(wrap.sealed_key[:6] in labels for row in rows for wrap in row.object.manifest.wraps)

    def _turn(self) -> None:
        self.runtime.wake()
        self.runtime.turn()
        while self.runtime.inbox_depth:
            self.runtime.turn()

    def _under_way(self) -> bool:
        row = objects_pb2.RewrapRow.FromString(self.store.get(META, REWRAPPING) or b"")
        return row.under_way or any(True for _ in self.store.scan(NOTICES))

    # ---- what a machine and a service ask

    def now(self) -> Now:
        return Now(self.now_ms, 1_700_000_000_000_000 + self.now_ms * 1_000)

    def wrapping_key(self, node_id: str) -> WrappingKey | None:
        key = next((key for key in (self.owner, self.reader) if key.node_id == node_id), None)
        return key.wrapping_key(self.number) if key is not None else None

    # ---- Outlet

    def call(self, call: Call) -> None:
        """The reader answers at once."""
        number, answer = 1 << 20, objects_pb2.DeliverNoticesResponse()
        asked = lane_pb2.LaneCall(number=number, method=METHOD, request=call.request.SerializeToString())
        told = lane_pb2.LaneAnswer(number=number, response=answer.SerializeToString())
        messages = lane_pb2.CarryRequest(calls=[asked]), lane_pb2.CarryResponse(answers=[told])
        self.wire_bytes += sum(map(_on_the_wire, messages))
        self.runtime.deliver(call.domain, Answered(call.tag, call.node, answer, None))

    def rewrap(self, work: Rewrap) -> None:
        self.rewrapping.rewrap(work)

    def __getattr__(self, name: str) -> object:
        """Ship, Fetch and whatever else would move something."""

        def moved(work: object) -> None:
            self.moves += 1

        return moved


def _on_the_wire(message: Message) -> int:
    return len(frame(message.SerializeToString())) + TLS_RECORD_BYTES
