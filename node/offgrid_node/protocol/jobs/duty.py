"""Whether a host takes work, as its owner says: on, off, or draining. Durable, and what runs goes on in any case.

A drained host holds no lease and no report that its core has not settled. What it keeps of objects their owners bring
to others; whoever describes the host (services/jobs/host_service.py) waits for that as well.
"""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.post import Post

META, DUTY_KEY, STOPPED_KEY = "meta", b"host_duty", b"host_stopped"
ON, OFF, DRAIN = "on", "off", "drain"
STATES = (ON, OFF, DRAIN)
REFUSALS = {OFF: "paused: its owner has switched this host off", DRAIN: "draining: its owner empties this host"}
DETAILS = {
    "on": "takes work by its rules",
    "off": "takes no new work; what runs goes on",
    "draining": "takes no new work and no new copies, and waits until what runs has ended and is settled",
    "drained": "holds no work, and keeps nothing that is not kept by others as well: it may stop",
}


class Duty:
    """The state that the owner asked for, and whether a drain has come to its end."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self.asked = ON
        self._said_drained = False
        self.stopped_well = False
        self._marked = False

    def load(self, rows: Rows) -> None:
        self.asked = (rows.get(META, DUTY_KEY) or ON.encode()).decode()
        self.stopped_well = self._marked = rows.get(META, STOPPED_KEY) is not None

    @property
    def takes_work(self) -> bool:
        return self.asked == ON

    @property
    def refusal(self) -> str:
        return REFUSALS.get(self.asked, "")

    def state(self, *, idle: bool) -> str:
        """For people: "on", "off", "draining" or "drained"."""
        if self.asked != DRAIN:
            return self.asked
        return "drained" if idle else "draining"

    def ask(self, state: str) -> None:
        """Raises InvalidRequest for a state that there is not."""
        if state not in STATES:
            raise InvalidRequest.field("state", f"{state[:40]!r} is no state; allowed: {', '.join(STATES)}")
        if state != self.asked:
            self.asked, self._said_drained = state, False
            self._post.put_bytes(META, DUTY_KEY, state.encode())
            self._post.record(EventType.HOST_CHANGED, state)

    def stop(self) -> None:
        """The process is about to stop in order: what it breaks off is nobody's fault."""
        self._marked = False  # this life's mark is for the next one to read: it stays, however long the stop takes
        self._post.put_bytes(META, STOPPED_KEY, b"1")

    def begin(self, now: Now) -> None:
        """A new life has begun; the mark of the last one's end has been read."""
        if self._marked:
            self._marked = False
            self._post.delete_late(META, STOPPED_KEY, now)

    def close_step(self, *, idle: bool) -> None:
        """Says once that a drain has come to its end."""
        if self.asked == DRAIN and idle and not self._said_drained:
            self._said_drained = True
            self._post.record(EventType.HOST_CHANGED, "drained")


def describe(duty: Duty, busy: int, unsettled: int, *, idle: bool) -> jobs_pb2.HostState:
    """A host as its owner sees it; what it is and offers is the caller's business."""
    state = duty.state(idle=idle)
    return jobs_pb2.HostState(state=state, detail=DETAILS[state], slots_busy=busy, unsettled=unsettled)
