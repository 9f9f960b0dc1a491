"""What an endpoint does when something comes due, and when a session is to be replaced: it is worn, or its peer has
been silent for so long that it may have begun anew."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from offgrid_transports.bound import Bound
from offgrid_transports.peers import Peers
from offgrid_transports.sessions import Sessions
from offgrid_transports.steering import Steering

SILENT_WAITS = 6  # in a row without any frame, after which a new session is sought beside the old one
ENDED_WAITS = 9  # after which one that was replaced ends: the later waits are long, and calls are lost with it
RENEW_MS = 60_000.0  # at most that often is a session replaced because it does not read what comes


class Deadlines:
    """`new_sid` gives a number for a session."""

    def __init__(self, peers: Peers, sessions: Sessions, steering: Steering, new_sid: Callable[[], int]) -> None:
        self._peers, self._sessions, self._steering, self._new_sid = peers, sessions, steering, new_sid

    def on_timer(self, now_ms: float, key: Hashable) -> None:
        """Does what that timer was set for."""
        assert isinstance(key, tuple)
        what, name = key
        if what == "session":
            bound = self._sessions.get(name)
            if bound is not None:
                bound.session.on_timer(now_ms)
                self._steering.on_silence(now_ms, bound)
                self._sessions.touch(bound)
                self._seek_anew(now_ms, bound)
        elif what in ("hello", "waiting"):
            self._peers.on_timer(now_ms, what, name)
        elif what == "roads":
            peer = self._peers.get(name)
            self._steering.on_timer(now_ms, name, peer.bound if peer is not None else None)
        elif what == "echo":
            self._steering.on_no_echo(now_ms, name)
        elif what == "unconfirmed":
            bound = self._sessions.get(name)
            if bound is not None:
                self._sessions.end(now_ms, bound, "nobody took it up")
        else:
            side, _, ours = what.partition(" ")
            bound = self._sessions.get(int(ours))
            if bound is not None:
                (bound.calls if side == "calls" else bound.answers).on_timer(now_ms, name)
                self._sessions.touch(bound)
                self._seek_anew(now_ms, bound)

    def renew(self, now_ms: float, bound: Bound) -> None:
        """A frame has come; whoever cannot read what comes seeks another session."""
        peer = self._peers.get(bound.session.peer)
        worn = bound.session.worn and peer is not None and peer.bound is bound
        if worn and peer is not None and peer.renewed_ms + RENEW_MS <= now_ms:
            peer.renewed_ms = now_ms
            self._peers.greet(now_ms, peer, self._new_sid)

    def _seek_anew(self, now_ms: float, bound: Bound) -> None:
        """A peer that is silent for long may have begun anew, and not know this session any more."""
        peer, silent = self._peers.get(bound.session.peer), bound.session.silent
        if peer is not None and peer.bound is bound:
            if silent >= SILENT_WAITS:
                self._peers.greet(now_ms, peer, self._new_sid)
        elif silent >= ENDED_WAITS:
            self._sessions.end(now_ms, bound, "the peer began anew")
