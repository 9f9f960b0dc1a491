"""Handlers of MemoryService: what is remembered, asked and listed. Each page is worked out in a thread."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from google.protobuf.message import Message

from offgrid.event_types import type_name
from offgrid.kinds import KIND, KIND_CHARS_MAX, KIND_RULE, TIME_MAX_US
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.state.summaries.keyset import count
from offgrid_node.protocol.state.summaries.tables import JOURNAL, SUMMARIES
from offgrid_node.protocol.state.summaries.windows import window_id
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.memory.asking import Asking, Place
from offgrid_node.services.memory.opening import opened
from offgrid_node.services.memory.questions import CountQuestion, KeyQuestion
from offgrid_node.services.paging import decode_token, encode_token, take_page
from offgrid_node.services.sessions.vault import Vault

KEY_CHARS_MAX = 4_096
FILTER_BYTES = 4


class Sessions(Protocol):
    """What is asked of them."""

    def keys_of(self, kind: str) -> Sequence[str]: ...

    def readable(self, text: str) -> state_pb2.Session:
        """By its id or name. Raises NotFound, and FailedPrecondition for one that cannot be read."""
        ...

    def asked(self, caller: Caller, session: state_pb2.Session) -> Ticket | None:
        """The journal's word on it, where the owner wants that; of all sessions where it is none."""
        ...


class MemoryHandlers:
    """Reads committed rows; changes nothing."""

    def __init__(self, runtime: Runtime, vault: Vault, sessions: Sessions, bulk: Bulk) -> None:
        self._runtime, self._vault, self._sessions, self._bulk = runtime, vault, sessions, bulk
        self._asking = Asking(runtime.store, vault, sessions.keys_of)

    def ask_key(self, caller: Caller, request: state_pb2.AskKeyRequest) -> Ticket:
        if not 0 < len(request.key) <= KEY_CHARS_MAX:
            raise InvalidRequest.field("key", f"{len(request.key)} characters; 1 to {KEY_CHARS_MAX} are allowed")
        return self._ask(caller, KeyQuestion(request.key), request.scope, f"key {request.key}")

    def ask_count(self, caller: Caller, request: state_pb2.AskCountRequest) -> Ticket:
        if bool(request.etype) == bool(request.kind):
            raise InvalidRequest.field(
                "etype", "either a type of the journal's events is given, or a kind of sessions'"
            )
        if request.etype and request.scope.session:
            raise InvalidRequest.field(
                "scope.session", "a session has events of kinds, and none of the journal's types"
            )
        if request.kind and (len(request.kind) > KIND_CHARS_MAX or not KIND.match(request.kind)):
            raise InvalidRequest.field("kind", f"{request.kind!r} is no name of a kind: {KIND_RULE}")
        name = request.kind or type_name(request.etype)
        since_us, until_us = _times(request.scope)
        question = CountQuestion(name, since_us, until_us, journal=bool(request.etype))
        return self._ask(caller, question, request.scope, f"count {name}")

    def list_summaries(self, caller: Caller, request: state_pb2.ListSummariesRequest) -> Ticket:
        session = self._sessions.readable(request.session) if request.session else None
        scope = session.session_id if session is not None else JOURNAL
        prefix, start = scope.encode(), decode_token(request.page_token)
        if start and not start.startswith(prefix):
            raise InvalidRequest.field("page_token", "it belongs to a list of something else; begin again without it")

        def rows() -> Iterator[tuple[bytes, state_pb2.Summary]]:
            for key, value in self._runtime.store.scan(SUMMARIES, start, prefix=prefix):
                yield key, self._shown(scope, state_pb2.SummaryRow.FromString(value))

        def page() -> Message:
            summaries, token = take_page(rows(), request.page_size)
            return state_pb2.ListSummariesResponse(summaries=summaries, next_page_token=token)

        return ticket_of(self._away(page, self._sessions.asked(caller, session) if session is not None else None))

    # ---- inside

    def _ask(
        self, caller: Caller, question: KeyQuestion | CountQuestion, scope: state_pb2.AskScope, said: str
    ) -> Ticket:
        session = self._sessions.readable(scope.session) if scope.session else state_pb2.Session()
        session_id = session.session_id
        since_us, until_us = _times(scope)
        mark = hashlib.blake2b(
            repr((said, session_id, since_us, until_us)).encode(errors="replace"), digest_size=FILTER_BYTES
        ).digest()
        position = decode_token(scope.page_token)
        if position[:FILTER_BYTES] != mark and position:
            raise InvalidRequest.field("scope.page_token", "it belongs to another question; begin again without it")
        place = Place.decode(position[FILTER_BYTES:]) if position else None

        def page() -> Message:
            basis, following = self._asking.page(question, session_id, since_us, until_us, place)
            answer = question.done()
            answer.basis.CopyFrom(basis)
            answer.next_page_token = encode_token(mark + following.encode()) if following is not None else ""
            return answer

        return ticket_of(self._away(page, self._sessions.asked(caller, session) if question.sessions else None))

    def _away(self, page: Callable[[], Message], told: Ticket | None) -> Flow[Message]:
        if told is not None:
            yield asked(told)
        found: Message = yield self._bulk.run(page)
        return found

    def _shown(self, scope: str, row: state_pb2.SummaryRow) -> state_pb2.Summary:
        summary = opened(self._vault, scope, row)
        shown = state_pb2.Summary(
            window_id=window_id(row.start_us),
            start_us=row.start_us,
            end_us=row.end_us,
            first=row.first,
            last=row.last,
            count=row.count,
            oldest_us=row.oldest_us,
            newest_us=row.newest_us,
            types=summary.types,
            keys=count(summary.keys),
            key_bytes=len(summary.keys),
            hitters=summary.hitters.counts,
            hitters_error=summary.hitters.error,
            bytes=len(row.body),
        )
        for name, figure in summary.figures.items():
            shown.figures.add(name=name, count=figure.number, least=figure.least, most=figure.most, mean=figure.mean)
        for each in summary.sample:
            shown.sample.add(number=each.number, timestamp_us=each.timestamp_us, type=each.type, text=each.text)
        return shown


def _times(scope: state_pb2.AskScope) -> tuple[int, int]:
    if not 0 <= scope.since_us <= TIME_MAX_US:
        raise InvalidRequest.field("scope.since_us", f"{scope.since_us}; 0 to {TIME_MAX_US} is allowed")
    if scope.until_us and not scope.since_us <= scope.until_us <= TIME_MAX_US:
        text = f"{scope.until_us}; {scope.since_us} (since_us) to {TIME_MAX_US} is allowed, or 0"
        raise InvalidRequest.field("scope.until_us", text)
    return scope.since_us, scope.until_us or TIME_MAX_US
