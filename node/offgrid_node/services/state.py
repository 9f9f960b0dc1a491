"""Handlers of StateService: the journal as people and programs read it. Its rows are the node's own event store."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence

from google.protobuf.message import Message

from offgrid.event_types import ETYPE_MAX
from offgrid.v1 import state_pb2
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, Fault, InvalidRequest
from offgrid_node.runtime import Runtime
from offgrid_node.services.caller import Caller
from offgrid_node.services.paging import PAGE_BYTES_MAX, decode_token, encode_token, page_bounds
from offgrid_node.services.retention import Retention
from offgrid_node.services.stream import Stream
from offgrid_node.storage.store import Store

SCAN_EVENTS_MAX = 4_096  # looked at for one page, so that a rare filter never holds the node up (some 25 ms)
SCAN_BYTES_MAX = 16 * 1024 * 1024
WINDOW_EVENTS = 64  # read forwards at a time when a page goes backwards
CATCH_UP_EVENTS = 64  # handed to a watcher at a time from the journal
CATCH_UP_SCAN = 512  # looked at for that
CATCH_UP_BYTES = 1024 * 1024
BACKLOG_BYTES_MAX = 8 * 1024 * 1024  # of live events that wait for one slow reader
ETYPES_MAX = 256  # that one asks for
_FILTER_BYTES = 4
_SEQ_BYTES = 8


class StateHandlers:
    """Reads committed events; changes nothing."""

    def __init__(self, runtime: Runtime, retention: Retention) -> None:
        self._runtime = runtime
        self.get_retention = retention.get_retention

    def list_events(self, caller: Caller, request: state_pb2.ListEventsRequest) -> state_pb2.ListEventsResponse:
        """One page. A page may be short, even empty, and still name a next one: how much is looked at is bounded."""
        limit = page_bounds(request.page_size)
        etypes = _wanted_etypes(request.etypes)
        at = _position(request, self._runtime.store.journal_seq)
        page = state_pb2.ListEventsResponse()
        scanned, scanned_bytes, page_bytes = 0, 0, 0
        for seq, raw in _walk(self._runtime.store, at, newest_first=request.newest_first):
            if scanned >= SCAN_EVENTS_MAX or scanned_bytes >= SCAN_BYTES_MAX or len(page.events) >= limit:
                break
            event = _event(seq, raw)
            if _wanted(event, etypes, request):
                if page.events and page_bytes + len(raw) > PAGE_BYTES_MAX:
                    break
                page.events.append(event)
                page_bytes += len(raw)
            at, scanned, scanned_bytes = seq, scanned + 1, scanned_bytes + len(raw)
        else:
            return page
        page.next_page_token = encode_token(at.to_bytes(_SEQ_BYTES, "big") + _filter_of(request))
        return page

    def watch_events(self, caller: Caller, request: state_pb2.WatchEventsRequest) -> Stream:
        """Each event after `after_seq` once: from the journal first, then as it becomes durable. After 0: after what
        is kept no more."""
        newest = self._runtime.store.journal_seq
        if request.after_seq > newest:
            raise FailedPrecondition(
                f"after_seq: {request.after_seq} has not happened yet, the newest event is {newest}",
                reason="JournalBehind",
                metadata={"journal_seq": str(newest)},
            )
        etypes, floor = _wanted_etypes(request.etypes), self._runtime.store.journal_floor
        if 0 < request.after_seq < floor:
            raise _gone(request.after_seq, floor)
        return JournalStream(self._runtime, request.after_seq or floor, etypes)


class JournalStream(Stream):
    """Read from the journal as fast as the reader takes it; once that is at its end, each event is pushed.

    Nothing is missed or sent twice in between: what the journal did not have when its end was read is announced later,
    and what is announced although it was read already is known by its number. `take` says that there is more by
    calling back, so the callback must not take from within itself.
    """

    def __init__(self, runtime: Runtime, after_seq: int, etypes: Collection[int]) -> None:
        super().__init__()
        self._store = runtime.store
        self._seq = after_seq
        self._etypes = etypes
        self._live = False
        self._waiting_bytes = 0
        self.when_closed(runtime.watch(self._on_events))

    def when_ready(self, callback: Callable[[], None]) -> None:
        super().when_ready(callback)
        if not self._live and not self.ended:
            callback()

    def take(self) -> list[Message]:
        if self._live or self.ended:
            self._waiting_bytes = 0
            return super().take()
        try:
            if self._seq < (floor := self._store.journal_floor):
                raise _gone(self._seq, floor)
            found = self._read_on()
        except Fault as fault:
            self.end(fault)
            return []
        if not self._live:
            self._on_ready()
        return found

    def _read_on(self) -> list[Message]:
        found: list[Message] = []
        size_bytes = 0
        for scanned, (seq, raw) in enumerate(self._store.events(self._seq)):
            if len(found) >= CATCH_UP_EVENTS or scanned >= CATCH_UP_SCAN or size_bytes >= CATCH_UP_BYTES:
                return found
            event = _event(seq, raw)
            if not self._etypes or event.etype in self._etypes:
                found.append(state_pb2.WatchEventsResponse(event=event))
            self._seq = seq
            size_bytes += len(raw)
        self._live = True
        return found

    def _on_events(self, events: Sequence[Record]) -> None:
        if not self._live:
            return
        for event in events:
            if event.seq > self._seq:
                self._seq = event.seq
                if not self._etypes or event.etype in self._etypes:
                    self._push_live(event.event)

    def _push_live(self, event: state_pb2.Event) -> None:
        response = state_pb2.WatchEventsResponse(event=event)
        self._waiting_bytes += response.ByteSize()
        if self._waiting_bytes > BACKLOG_BYTES_MAX:
            self.end(Exhausted(f"the reader is {self._waiting_bytes} bytes behind", reason="SlowReader"))
        self.push(response)


def _gone(after_seq: int, floor: int) -> FailedPrecondition:
    return FailedPrecondition(
        f"after_seq: {after_seq}: the journal begins after event {floor}, what came before is gone: begin there, or "
        "with 0",
        reason="EventsGone",
        metadata={"journal_floor": str(floor)},
    )


def _walk(store: Store, at: int, *, newest_first: bool) -> Iterator[tuple[int, bytes]]:
    """Events after `at`, or those before it in descending order."""
    if not newest_first:
        yield from store.events(at)
        return
    while at > (first := store.journal_floor + 1):
        start = max(at - WINDOW_EVENTS, first)
        # As many as fit between, and fewer where some are gone.
        window = [row for row in itertools.islice(store.events(start - 1), at - start) if row[0] < at]
        yield from reversed(window)
        at = start


def _event(seq: int, raw: bytes) -> state_pb2.Event:
    event = state_pb2.Event.FromString(raw)
    event.seq = seq
    return event


def _wanted(event: state_pb2.Event, etypes: Collection[int], request: state_pb2.ListEventsRequest) -> bool:
    return (
        (not etypes or event.etype in etypes)
        and event.timestamp_us >= request.since_us
        and (not request.until_us or event.timestamp_us <= request.until_us)
        and (not request.subject or event.subject == request.subject)
    )


def _wanted_etypes(etypes: Sequence[int]) -> frozenset[int]:
    """By number, whether this node knows them or a newer one writes them."""
    if len(etypes) > ETYPES_MAX:
        raise InvalidRequest.field("etypes", f"{len(etypes)} of them; at most {ETYPES_MAX} are allowed")
    if 0 in etypes:
        index = [*etypes].index(0)
        raise InvalidRequest.field(f"etypes[{index}]", f"0 is no event type; 1 to {ETYPE_MAX} are allowed")
    return frozenset(etypes)


def _position(request: state_pb2.ListEventsRequest, newest_seq: int) -> int:
    """Where the page begins: after this number, or before it when going backwards."""
    position = decode_token(request.page_token)
    if not position:
        return newest_seq + 1 if request.newest_first else 0
    if position[_SEQ_BYTES:] != _filter_of(request):
        raise InvalidRequest.field("page_token", "it belongs to a list with other filters; begin again without it")
    return int.from_bytes(position[:_SEQ_BYTES], "big")


def _filter_of(request: state_pb2.ListEventsRequest) -> bytes:
    said = (sorted(request.etypes), request.since_us, request.until_us, request.subject, request.newest_first)
    return hashlib.blake2b(repr(said).encode(), digest_size=_FILTER_BYTES).digest()
