"""The sessions of an endpoint, by the numbers that this side has given them; bounded, with the ends they come to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator

from offgrid_transports.answers import Kept
from offgrid_transports.bound import Bound
from offgrid_transports.dispatch import Dispatch
from offgrid_transports.gathering import Gathering
from offgrid_transports.peers import Peers
from offgrid_transports.session import Session
from offgrid_transports.steering import Steering
from offgrid_transports.timers import Timers
from offgrid_transports.transport import Transport

SESSIONS_MAX = 1024
STRANGER = "stranger "  # begins the name of who has a session and is nobody that is known


class Sessions:
    def __init__(
        self,
        peers: Peers,
        steering: Steering,
        timers: Timers,
        dispatch: Dispatch,
        gathering: Gathering,
        kept: Kept,
        now_ms: Callable[[], float],
    ) -> None:
        self._peers, self._steering, self._timers, self._dispatch = peers, steering, timers, dispatch
        self._gathering, self._kept, self._now_ms = gathering, kept, now_ms
        gathering.on_evicted = self._on_evicted
        self._bounds: OrderedDict[int, Bound] = OrderedDict()  # the one used longest ago first

    def __iter__(self) -> Iterator[Bound]:
        return iter(list(self._bounds.values()))

    def __contains__(self, number: int) -> bool:
        return number in self._bounds

    def get(self, number: int) -> Bound | None:
        return self._bounds.get(number)

    def used(self, now_ms: float, bound: Bound) -> None:
        """A frame of it has come: on a shared medium those that it has just replaced leave that to it."""
        self._bounds.move_to_end(bound.session.ours)
        peer = self._peers.get(bound.session.peer) if bound.session.path.shared else None
        if peer is not None and peer.bound is bound:
            for each in self.others(bound):
                each.session.rest(now_ms)

    def touch(self, bound: Bound) -> None:
        """It may have something to send."""
        self._dispatch.add(bound.session)

    def others(self, bound: Bound) -> list[Bound]:
        """Of the same peer, the one used longest ago first."""
        peer = bound.session.peer
        return [each for each in self._bounds.values() if each.session.peer == peer and each is not bound]

    @property
    def busy_links(self) -> set[Transport]:
        """On which one of them has something under way."""
        now_ms, bounds = self._now_ms(), self._bounds.values()
        return {
            bound.session.path.transport
            for bound in bounds
            if bound.busy or not bound.confirmed or bound.session.urgency(now_ms) is not None
        }

    def number_for(self, is_peer: Callable[[bytes], bool], theirs: int) -> int | None:
        """Of the session to which the peer with such a public key has given that other number."""
        for number, bound in reversed(self._bounds.items()):
            peer = self._peers.get(bound.session.peer) if bound.session.theirs == theirs else None
            if peer is not None and is_peer(peer.public):
                return number
        return None

    @property
    def strangers(self) -> int:
        return sum(bound.session.peer.startswith(STRANGER) for bound in self._bounds.values())

    def add(self, now_ms: float, session: Session, *, confirmed: bool) -> Bound:
        """One too many ends the one whose end matters least."""
        bound = Bound(now_ms, session, self._gathering, self._timers, self._kept, confirmed=confirmed)
        self._bounds[session.ours] = bound
        if len(self._bounds) > SESSIONS_MAX:
            others = [each for each in self._bounds.values() if each is not bound]
            self.end(now_ms, least(others), "there are too many sessions")
        return bound

    def end(self, now_ms: float, bound: Bound, detail: str) -> None:
        """The outcome of its calls is unknown."""
        session = bound.session
        del self._bounds[session.ours]
        self._dispatch.drop(session)
        self._steering.forget_session(session)
        for what in ("session", "unconfirmed"):
            self._timers.set((what, session.ours), None)
        bound.calls.abandon(now_ms, detail)
        bound.answers.close_all(now_ms)
        peer = self._peers.get(session.peer)
        if peer is not None and peer.bound is bound:
            peer.bound, peer.path = None, session.path

    def _on_evicted(self, name: str, call: Hashable) -> None:
        side, _, ours = name.partition(" ")
        bound = self._bounds.get(int(ours))
        if bound is not None and side == "answers" and isinstance(call, int):
            bound.answers.on_evicted(self._now_ms(), call)
            self.touch(bound)


def least(bounds: list[Bound]) -> Bound:
    """Whose end matters least; of equals the one that was used longest ago, which stands first."""
    return min(bounds, key=lambda each: (each.confirmed, each.busy))
