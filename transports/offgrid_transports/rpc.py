"""Calls over an unreliable packet link: pure, symmetric, exactly once in effect.

    on_frame, on_timer, call, respond     inputs
    take_frames, take_requests, take_replies     outputs; take them after every input
    deadline_ms     when it wants on_timer

A server executes each call at most once (`rpc_server.py`), a client repeats until it has the answer or its deadline
has passed (`rpc_client.py`): together exactly once, or the truth that the outcome is unknown. Peers are told apart by
the address that the link reports; nothing here proves who they are, and whoever reaches the link is answered: that
is for the session below, which will prove node keys before a frame gets here. Bodies and errors are opaque bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from offgrid_transports.fragment import MESSAGE_BYTES_MAX, MessageTooLarge, Reassembly
from offgrid_transports.framing import FRAGMENTS_MAX, FrameError, decode
from offgrid_transports.link import Link, LinkProfile
from offgrid_transports.messages import REQUEST_HEAD, Status
from offgrid_transports.rpc_client import CallRefused, Calls, End, Reply
from offgrid_transports.rpc_server import ANSWER_BYTES_MAX, Answers, CallKey, Request

__all__ = ["CallKey", "CallRefused", "End", "LinkProfile", "MessageTooLarge", "Reply", "Request", "RpcEndpoint"]

PEER_CHARS_MAX = 256


class RpcEndpoint:
    """One node's end of all its calls over one link. Times are milliseconds of one monotonic clock."""

    def __init__(
        self,
        profile: LinkProfile,
        rng: Random,
        *,
        reassembly: Reassembly | None = None,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> None:
        """`reassembly` brings its own bounds (None takes the defaults); `answer_bytes_max` bounds the answers that
        wait to be acknowledged."""
        self._link = Link(profile)
        gathered = Reassembly() if reassembly is None else reassembly
        self._calls = Calls(self._link, rng, gathered)
        self._answers = Answers(self._link, gathered, answer_bytes_max)
        self._reassembly = gathered

    # ---- inputs

    def on_frame(self, now_ms: int, peer: str, data: bytes) -> None:
        """A frame heard from `peer`. Whatever it holds, this never raises."""
        try:
            if len(peer) > PEER_CHARS_MAX:
                raise FrameError("the sender's address is too long")
            frame = decode(data)
        except FrameError:
            self._link.counts["malformed_frame"] += 1
            return
        half = self._answers if frame.kind.to_server else self._calls
        half.on_frame(now_ms, peer, frame)

    def on_timer(self, now_ms: int) -> None:
        """Does what is due by `now_ms`; an early call does nothing."""
        for key in self._link.timers.take_due(now_ms):
            if isinstance(key, CallKey):
                self._answers.on_timer(now_ms, key)
            elif isinstance(key, int):
                self._calls.on_timer(now_ms, key)

    def call(self, now_ms: int, peer: str, method: int, body: bytes, timeout_ms: int) -> int:
        """Starts a call of method 0 to 65,535 and returns its number, under which one Reply comes.

        Raises CallRefused when too much is in flight or `body` is longer than `body_bytes_max`.
        """
        return self._calls.call(now_ms, peer, method, body, timeout_ms)

    def respond(self, now_ms: int, key: CallKey, body: bytes, *, error: bool = False) -> bool:
        """Answers a request, with an answer or an error; once. False when it is too late or was done already.

        Raises MessageTooLarge when `body` is longer than `body_bytes_max`; the request is then still open.
        """
        return self._answers.respond(now_ms, key, Status.ERROR if error else Status.OK, body)

    def abandon(self, detail: str) -> None:
        """Ends this side's open calls as unknown: the link is closing."""
        self._calls.abandon(detail)

    # ---- outputs

    def take_frames(self, limit: int = 1 << 30) -> list[tuple[str, bytes]]:
        """At most `limit` frames to send now, each with its peer, in order."""
        return self._link.take_frames(limit)

    def take_requests(self) -> list[Request]:
        """Requests that have arrived whole; each is handed out once."""
        return self._answers.take_requests()

    def take_replies(self) -> list[Reply]:
        """Ends of this side's calls; one for each."""
        return self._calls.take_replies()

    # ---- questions

    @property
    def deadline_ms(self) -> int | None:
        """When `on_timer` has something to do, or None."""
        return self._link.timers.deadline_ms

    @property
    def body_bytes_max(self) -> int:
        """The longest body of a request or response that this link takes."""
        return min(MESSAGE_BYTES_MAX, FRAGMENTS_MAX * self._link.part_bytes) - REQUEST_HEAD.size

    @property
    def calls_open(self) -> int:
        return len(self._calls)

    @property
    def answers_open(self) -> int:
        return len(self._answers)

    @property
    def held_bytes(self) -> int:
        """Bytes of half-received messages, their overhead included."""
        return self._reassembly.held_bytes

    @property
    def counts(self) -> Mapping[str, int]:
        """What was dropped or refused so far, by reason."""
        return self._link.counts
