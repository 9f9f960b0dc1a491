"""A session and what uses it: the calls of this side, and the answers to those of the other."""

from __future__ import annotations

from offgrid_transports.answers import Answers, Kept, Request
from offgrid_transports.calls import Calls
from offgrid_transports.gathering import Gathering
from offgrid_transports.records import Echo, Said, Signal, Whole
from offgrid_transports.session import Content, Session
from offgrid_transports.timers import Timers

UNPROVED_MS = 60_000.0  # longer than anybody goes on saying hello


class Bound:
    def __init__(
        self, now_ms: float, session: Session, gathering: Gathering, timers: Timers, kept: Kept, *, confirmed: bool
    ) -> None:
        self.session, self._born_ms = session, now_ms
        self.calls, self.answers = Calls(session, gathering, timers), Answers(session, gathering, timers, kept)
        self.confirmed = confirmed
        """Its peer is there now: what it sends is no recording."""
        self.held: list[Whole] = []
        """What came with the hello, until it is."""

        self.used = False
        """A call of this side has gone over it since that was last asked."""

    def carries(self, now_ms: float) -> bool:
        """This side may make calls there. Its peer, which has begun it, may never have had the welcome; while it still
        says hello it gets that, and after that it may not know the session."""
        return self.confirmed or now_ms < self._born_ms + UNPROVED_MS

    def take(self, now_ms: float, content: Content) -> Request | None:
        """What a frame has brought. A request that is whole is handed back. Raises NoRoom: it counts as not received
        then."""
        match content:
            case Echo():
                pass
            case Said(signal=Signal.PROBE):
                self.answers.on_probe(now_ms, content)
            case Said():
                self.calls.on_signal(now_ms, content)
            case _ if content.request:
                return self.answers.on_request(now_ms, content)
            case _:
                self.calls.on_response(now_ms, content)
        return None

    def on_arrived(self, now_ms: float) -> None:
        """The peer may have acknowledged all of some messages."""
        for outgoing in self.session.take_done():
            if outgoing.request:
                self.calls.on_arrived(now_ms, outgoing)
            else:
                self.answers.on_arrived(now_ms, outgoing)

    @property
    def busy(self) -> bool:
        return bool(len(self.calls) or len(self.answers))
