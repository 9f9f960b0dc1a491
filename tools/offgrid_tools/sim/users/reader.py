"""Who is let read what another keeps: reads all of it at his own node, and may be no reader any more then."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from offgrid.pieces import as_a
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_tools.sim.engine import Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.monitor.evidence import Violation
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import Person

if TYPE_CHECKING:
    from offgrid_tools.sim.users.objects import ObjectUser, Thing


class Reader(Person):
    """With `owner`, who lets him, and is told when he has read a thing and, if he is to be none any more, is none."""

    def __init__(self, engine: Engine, monitor: Monitor, process: Process, owner: ObjectUser) -> None:
        super().__init__(engine, monitor, process)
        self._owner = owner

    def let_read(self, thing: Thing, done: Callable[[Thing], None]) -> None:
        """`done` once all that is wanted of him was seen."""
        self._monitor.access.on_sharing(self._owner.node, self._place(thing), self.node)
        request = objects_pb2.ShareObjectRequest(object=thing.object_id, node=self.node)
        shared = partial(self._on_shared, thing, done)
        self._owner.call("ObjectService/ShareObject", request, shared, self._owner.gone(thing))

    def _place(self, thing: Thing) -> str:
        return self._monitor.resealing.place_of(self._owner.node, thing.object_id)

    def _on_shared(self, thing: Thing, done: Callable[[Thing], None], reply: Message) -> None:
        if not thing.leaving:
            self._monitor.access.on_shared(self._owner.node, self._place(thing), self.node)
        self._read(thing, done)

    def _read(self, thing: Thing, done: Callable[[Thing], None], got: bytes = b"") -> None:
        """As at the owner. Until he has heard of it, it is not found; nor by an id that it had before that."""
        asked = self._place(thing)
        request = objects_pb2.ReadObjectRequest(object=asked, offset=len(got))

        def refused(fault: Fault) -> bool:
            if thing.leaving:
                return True
            if moved := self._place(thing) != asked:
                self._owner.later(partial(self._read, thing, done, got))
            return moved

        self._call("ObjectService/ReadObject", request, partial(self._on_read, thing, done, got), refused)

    def _on_read(self, thing: Thing, done: Callable[[Thing], None], got: bytes, reply: Message) -> None:
        answer = as_a(objects_pb2.ReadObjectResponse, reply)
        assert answer is not None
        got += bytes(answer.data)
        if got != thing.data[: len(got)]:
            raise Violation(f"{thing.object_id} was read by who it is shared with, and is not what was put")
        if len(got) < len(thing.data):
            self._read(thing, done, got)
            return
        self._monitor.met.counts["objects read by others"] += 1
        if thing.unshares and not thing.leaving:
            self._stop(thing, done)
        else:
            done(thing)

    def _stop(self, thing: Thing, done: Callable[[Thing], None]) -> None:
        """He is let read it no more."""
        self._monitor.access.on_unsharing(self._owner.node, self._place(thing), self.node)
        request = objects_pb2.UnshareObjectRequest(object=thing.object_id, node=self.node)
        stopped = partial(self._on_stopped, thing, done)
        self._owner.call("ObjectService/UnshareObject", request, stopped, self._owner.gone(thing))

    def _on_stopped(self, thing: Thing, done: Callable[[Thing], None], reply: Message) -> None:
        if not thing.leaving:
            self._monitor.access.on_unshared(self._owner.node, self._place(thing), self.node)
            self._monitor.met.counts["readers that are none any more"] += 1
        done(thing)
