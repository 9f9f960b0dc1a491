"""The journal's word on who took what out of sessions: on exports always, on readings where the owner audits them.

It is durable before anything leaves. A list that goes on over many pages is announced ahead, for twice as many events
each time: a handful of events of the journal for a million that are read, and never fewer said than read.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.state.sessions.commands import TellOf
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller

LISTS_MAX = 1_024  # under way; one that was forgotten is told of as if it began anew


class _List(msgspec.Struct, frozen=True):
    """How many events were given, and how many the journal has said so far."""

    given: int = 0
    told: int = 0


class Auditing:
    """`readings`: they are told of as well."""

    def __init__(self, runtime: Runtime, *, readings: bool) -> None:
        self._runtime, self._readings = runtime, readings
        self._lists: OrderedDict[str, _List] = OrderedDict()  # by the token of the page that comes next

    def tell(self, caller: Caller, session: state_pb2.Session, outcome: str, events: int) -> Ticket:
        command = TellOf(session.session_id, session.name, outcome, events)
        return self._runtime.ask("sessions", str(caller), command)

    def shown(
        self, caller: Caller, session: state_pb2.Session, answer: state_pb2.ShowStateResponse
    ) -> state_pb2.ShowStateResponse | Ticket:
        if not self._readings:
            return answer
        return self._after(self.tell(caller, session, "shown", answer.number), answer)

    def watched(self, caller: Caller, session: state_pb2.Session) -> Ticket | None:
        """All that comes from now on may be read; None where readings are not told of."""
        return self.tell(caller, session, "watched", 0) if self._readings else None

    def listed(
        self, caller: Caller, session: state_pb2.Session, token: str, page: state_pb2.ListRecordsResponse
    ) -> state_pb2.ListRecordsResponse | Ticket:
        """`token`: by which this page was asked for."""
        if not self._readings:
            return page
        before = self._lists.pop(token, _List()) if token else _List()
        given, more = before.given + len(page.records), bool(page.next_page_token)
        told = before.told
        if given > told:
            told = max(given, 2 * told) if more else given
        if more:
            self._lists[page.next_page_token] = _List(given, told)
            while len(self._lists) > LISTS_MAX:
                self._lists.popitem(last=False)
        if told == before.told:
            return page
        return self._after(self.tell(caller, session, "read", told - before.told), page)

    def asked(self, caller: Caller, session: state_pb2.Session) -> Ticket | None:
        """Of what is remembered of it; of all sessions where it is none. None: nobody is to be told."""
        return self.tell(caller, session, "asked", session.recorded) if self._readings else None

    def _after(self, told: Ticket, answer: Message) -> Ticket:
        answered = Ticket()
        told.when_done(lambda outcome: answered.resolve(outcome if isinstance(outcome, Fault) else answer))
        return answered
