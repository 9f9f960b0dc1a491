"""A session and what uses it: the calls of this side, and the answers to those of the other."""

from __future__ import annotations

from offgrid_transports.answers import Answers, Kept
from offgrid_transports.calls import Calls
from offgrid_transports.gathering import Gathering
from offgrid_transports.records import Whole
from offgrid_transports.session import Session
from offgrid_transports.timers import Timers


class Bound:
    def __init__(self, session: Session, gathering: Gathering, timers: Timers, kept: Kept, *, confirmed: bool) -> None:
        self.session = session
        self.calls, self.answers = Calls(session, gathering, timers), Answers(session, gathering, timers, kept)
        self.confirmed = confirmed
        """Its peer is there now: what it sends is no recording."""
        self.held: list[Whole] = []
        """What came with the hello, until it is."""

        self.used = False
        """A call of this side has gone over it since that was last asked."""

    @property
    def busy(self) -> bool:
        return bool(len(self.calls) or len(self.answers))
