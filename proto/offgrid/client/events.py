"""state: the journal's events, listed and followed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from offgrid.client.calls import Calls
from offgrid.client.errors import OffgridError
from offgrid.client.paging import pages
from offgrid.event_types import ETYPE_MAX, EventType
from offgrid.v1 import state_pb2


def etype_of(name: str | int) -> int:
    """The number of an event type given by name or number; that of a newer node's may be one that is not known here.
    Raises ValueError."""
    text = str(name)
    known = EventType.__members__.get(text.upper().replace("-", "_"))
    if known is not None:
        return int(known)
    if text.isascii() and text.isdigit() and 1 <= int(text[:11]) <= ETYPE_MAX:
        return int(text)
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
