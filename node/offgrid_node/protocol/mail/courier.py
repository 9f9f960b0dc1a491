"""Who is up, and what is to be said to each: one call at a time to a peer, the others wait in line.

A peer that does not answer is left alone for a while, doubling; a parcel that was refused likewise. Both begin afresh
when the peer comes up anew. Nothing is kept for peers that are down: whoever has something for one that comes says so.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from enum import IntEnum
from typing import NamedTuple

import msgspec
from google.protobuf.message import Message

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Call
from offgrid_node.protocol.errors import Fault, OutcomeUnknown, Unavailable
from offgrid_node.protocol.timers import Timers

PAUSE_MS, PAUSE_MS_MAX = 2_000, 60_000  # a peer that does not answer
AGAIN_MS, AGAIN_MS_MAX = 10_000, 3_600_000  # what a peer refuses
TIMEOUT_MS, TIMEOUT_MS_PER_KIB, TIMEOUT_MS_MAX = 15_000, 10_000, 600_000  # a slow link takes seconds for a KiB


class Kind(IntEnum):
    """What is to be done."""

    DELIVER = 1  # an own parcel to its destination
    DEPOSIT = 2  # an own parcel to a mailbox
    HAND_OVER = 3  # another's parcel to its destination
    DROP = 4  # tell a mailbox that its custody has ended


class Errand(NamedTuple):
    """The parcel is `source`'s; "" is this node itself."""

    kind: Kind
    node: str
    number: int
    source: str = ""


class Said(NamedTuple):
    method: str
    request: Message


class _Line(msgspec.Struct):
    """Of a peer that is up. `asked` is on its way, and whatever its end is, frees the line."""

    ready: dict[Errand, None] = msgspec.field(default_factory=dict)
    asked: Errand | None = None
    paused_ms: int = 0
    failures: int = 0


class Courier:
    """Lines of errands, by peer."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._lines: dict[str, _Line] = {}
        self._refused: dict[Errand, int] = {}  # how often in a row
        self._again = Timers[Errand]()

    @property
    def up(self) -> Set[str]:
        return self._lines.keys()

    def on_up(self, node: str) -> None:
        """Begins afresh with it; a call that is under way still ends the old line."""
        self._forget(node)
        self._lines[node] = _Line()

    def on_down(self, node: str) -> None:
        self._forget(node)
        self._lines.pop(node, None)

    def want(self, errand: Errand) -> None:
        """Has it done, if its peer is up and it does not wait already."""
        line = self._lines.get(errand.node)
        if line is not None and line.asked != errand and self._again.due_ms(errand) is None:
            line.ready[errand] = None

    def on_end(self, errand: Errand, fault: Fault | None, now: Now, *, again: bool) -> None:
        """Its call has ended. `again`: it is still to be done."""
        line = self._lines.get(errand.node)
        if line is None or line.asked != errand:
            return
        line.asked = None
        if isinstance(fault, Unavailable | OutcomeUnknown):
            line.failures += 1
            line.paused_ms = now.mono_ms + _doubled(PAUSE_MS, line.failures, PAUSE_MS_MAX)
            if again:
                line.ready[errand] = None
            return
        line.failures = line.paused_ms = 0
        if fault is not None and again:
            refused = self._refused[errand] = self._refused.get(errand, 0) + 1
            pause_ms = max(fault.retry_ms or 0, _doubled(AGAIN_MS, refused, AGAIN_MS_MAX))
            self._again.set(errand, now.mono_ms + pause_ms)
        else:
            self._refused.pop(errand, None)
            if again:
                line.ready[errand] = None

    def send(self, say: Callable[[Errand], Said | None], now: Now) -> None:
        """Lets out what may leave now; `say` has the words, None for what has come to nothing meanwhile."""
        for errand in self._again.take_due(now.mono_ms):
            if (line := self._lines.get(errand.node)) is not None:
                line.ready[errand] = None
        for node, line in self._lines.items():
            while line.ready and line.asked is None and line.paused_ms <= now.mono_ms:
                errand = next(iter(line.ready))
                del line.ready[errand]
                said = say(errand)
                if said is None:
                    self._refused.pop(errand, None)
                    continue
                line.asked = errand
                self._draft.send(Call("mail", node, said.method, said.request, errand, _timeout_ms(said.request)))

    def deadline_ms(self) -> int | None:
        dues = [line.paused_ms for line in self._lines.values() if line.ready and line.asked is None]
        if (again_ms := self._again.next_ms()) is not None:
            dues.append(again_ms)
        return min(dues, default=None)

    def _forget(self, node: str) -> None:
        for errand in [errand for errand in self._refused if errand.node == node]:
            del self._refused[errand]
            self._again.cancel(errand)


def _doubled(base_ms: int, times: int, most_ms: int) -> int:
    return min(base_ms << min(times - 1, 16), most_ms)


def _timeout_ms(request: Message) -> int:
    return min(TIMEOUT_MS + TIMEOUT_MS_PER_KIB * request.ByteSize() // 1024, TIMEOUT_MS_MAX)
