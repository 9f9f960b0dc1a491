"""Who gives a node another key for which objects are wrapped for it, and waits until those of its own are; and maybe
has them sealed anew as well."""

from __future__ import annotations

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_tools.sim.engine import SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import Person

COME_US, POLL_US = (2 * SECOND, 18 * SECOND), SECOND


class KeyOwner(Person):
    """At an owner or a reader of objects; `reseals`: what was sealed before is sealed anew."""

    wants = "objects that are wrapped anew"

    def __init__(self, engine: Engine, monitor: Monitor, process: Process, *, reseals: bool = False) -> None:
        super().__init__(engine, monitor, process)
        self._done, self._reseals, self._asked = False, reseals, False

    @property
    def content(self) -> bool:
        return self._done

    def start(self) -> None:
        self._engine.after(self._engine.rng.randint(*COME_US), self._ask)

    def _ask(self) -> None:
        self._call("ObjectService/GetDataKeys", objects_pb2.GetDataKeysRequest(), self._on_number)

    def _on_number(self, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.GetDataKeysResponse)
        request = objects_pb2.RotateDataKeysRequest(number=reply.number)
        self._call("ObjectService/RotateDataKeys", request, lambda _: self._look())

    def _look(self) -> None:
        self._call("ObjectService/GetDataKeys", objects_pb2.GetDataKeysRequest(), self._on_round)

    def _on_round(self, reply: Message) -> None:
        assert isinstance(reply, objects_pb2.GetDataKeysResponse)
        if not reply.number:
            self._ask()  # its node goes on with a disk that knows nothing of it
        elif reply.under_way:
            self._engine.after(POLL_US, self._look)
        elif self._reseals and not (self._asked and reply.reencryption.before_us == reply.begun_us):
            self._asked = True  # and once more where its node goes on with a disk that knows nothing of that
            request = objects_pb2.ReencryptObjectsRequest()
            self._call("ObjectService/ReencryptObjects", request, lambda _: self._look())
        elif reply.reencryption.under_way:
            self._engine.after(POLL_US, self._look)
        else:
            self._monitor.met.counts["data keys rotated"] += 1
            if self._reseals:
                self._monitor.resealing.on_done(self.node, reply.reencryption)
            self._done = True
