"""state: the journal's events, listed and followed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from offgrid.client.calls import Calls
from offgrid.client.errors import OffgridError
from offgrid.client.paging import pages
from offgrid.v1 import state_pb2

# The names that Event.type carries. 10 to 30 are promised; 1 to 9 and 31 are the node's own.
EVENT_TYPES = {
    "NODE_STARTED": 1,
    "MEMBER_ADMITTED": 2,
    "MEMBER_REMOVED": 3,
    "INVITE_ISSUED": 4,
    "INVITE_USED": 5,
    "PEER_ALIVE": 6,
    "PEER_DEAD": 7,
    "HOST_CHANGED": 8,
    "BLOCK_ADDED": 9,
    "MISSION_CREATED": 10,
    "MISSION_UPDATED": 11,
    "TASK_CREATED": 12,
    "TASK_UPDATED": 13,
    "JOB_CREATED": 14,
    "JOB_DISPATCHED": 15,
    "JOB_QUEUED": 16,
    "JOB_AWARDED": 17,
    "JOB_EXECUTED": 18,
    "JOB_COMPLETED": 19,
    "JOB_FAILED": 20,
    "JOB_CANCELLED": 21,
    "QUORUM_CREATED": 22,
    "QUORUM_ACKED": 23,
    "OBJECT_STORED": 24,
    "OBJECT_REPAIRED": 25,
    "OBJECT_DELETED": 26,
    "TX_CREATED": 27,
    "TX_FINAL": 28,
    "SETTLED": 29,
    "SESSION_CHANGED": 30,
    "HEALTH_CHANGED": 31,
}


def etype_of(name: str | int) -> int:
    """The number of an event type given by name or number. Raises ValueError for one that there is not."""
    number = EVENT_TYPES.get(str(name).upper().replace("-", "_"))
    if number is not None:
        return number
    if str(name).isascii() and str(name).isdigit() and int(name) in EVENT_TYPES.values():
        return int(name)
    raise ValueError(f"{name!r} is no event type")


class Events:
    """StateService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def list(
        self,
        *,
        types: Iterable[str | int] = (),
        since_us: int = 0,
        until_us: int = 0,
        subject: str = "",
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[state_pb2.Event]:
        """Events that match, oldest first unless `newest_first`; both times are microseconds since 1970, inclusive."""
        etypes = [etype_of(name) for name in types]

        def fetch(size: int, token: str) -> tuple[list[state_pb2.Event], str]:
            request = state_pb2.ListEventsRequest(
                page_size=size,
                page_token=token,
                etypes=etypes,
                since_us=since_us,
                until_us=until_us,
                subject=subject,
                newest_first=newest_first,
            )
            page = self._calls.unary("StateService/ListEvents", request, state_pb2.ListEventsResponse)
            return [*page.events], page.next_page_token

        return pages(fetch, limit)

    def retention(self) -> state_pb2.GetRetentionResponse:
        """What the node may keep and what it does, and what has gone."""
        request = state_pb2.GetRetentionRequest()
        return self._calls.unary("StateService/GetRetention", request, state_pb2.GetRetentionResponse)

    def watch(self, *, after_seq: int = 0, types: Iterable[str | int] = ()) -> Iterator[state_pb2.Event]:
        """Each event as it becomes durable, from after `after_seq` on, none twice and none left out; without end.

        A lost connection, or a cut because this reader was too slow, is taken up where it ended; a node that stays
        away for the client's `reconnect_s` raises OffgridError WatchEnded.
        """
        etypes, silence = [etype_of(name) for name in types], self._calls.silence("what it does")
        while True:
            request = state_pb2.WatchEventsRequest(after_seq=after_seq, etypes=etypes)
            lost: OffgridError | None = None
            silence.opening()
            try:
                for answer in self._calls.stream("StateService/WatchEvents", request, state_pb2.WatchEventsResponse):
                    silence.heard()
                    after_seq = answer.event.seq
                    yield answer.event
            except OffgridError as error:
                if not error.outcome_unknown and error.reason != "SlowReader":
                    raise
                lost = error
            silence.wait(lost)
