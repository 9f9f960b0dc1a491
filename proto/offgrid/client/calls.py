"""Calls to one node: deadlines, repetition, errors, by the quickest carrier it has. The rooms call nothing else.

UNAVAILABLE and CANCELLED say that the outcome is unknown (a flooded or dying node answers so); the same request, with
the same request id, is then sent again after a growing pause (AIP-155, AIP-194).
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from offgrid.client.address import Address, is_url
from offgrid.client.errors import OffgridError
from offgrid.client.framed import CALL_BYTES_MAX, FramedCalls
from offgrid.client.silence import PAUSE_MS, PAUSE_MS_MAX, RECONNECT_S, Outages, Say, Silence
from offgrid.lanes import PIECE_CALL_BYTES_MAX
from offgrid.pieces import BULK, Buffer, Parts, Piece, parts_of, read

if TYPE_CHECKING:
    from offgrid.client.grpc_calls import GrpcCalls
    from offgrid.client.web_calls import WebCalls

REPEATS_MAX = 3
REQUEST_ID_BYTES = 16
SAID_CHARS_MAX = 200  # of gRPC's own words
TOO_LARGE = re.compile(r"larger than max \((\d+) vs\. (\d+)\)")

R = TypeVar("R", bound=Message)


def fresh_request_id() -> str:
    """A fresh request id: 128 random bits in hex."""
    return os.urandom(REQUEST_ID_BYTES).hex()


def pause_ms(repeats: int, error: OffgridError) -> int | None:
    """How long to wait before repetition number `repeats` (from 0); None when `error` is to be raised instead."""
    wished = error.retry_ms if error.retry_ms is not None else PAUSE_MS << repeats
    # A node that asks for a longer pause is asked by the caller, not by us.
    worth_it = error.outcome_unknown and repeats < REPEATS_MAX and wished <= PAUSE_MS_MAX
    return wished if worth_it else None


def _is_piece(request: Message, answer: type[Message]) -> bool:
    return isinstance(request, Piece) or answer in BULK


def _web_calls(address: Address) -> WebCalls:
    from offgrid.client.web_calls import WebCalls

    return WebCalls(address)


class Calls:
    """Carries messages to the node's services; thread-safe."""

    def __init__(
        self, address: Address, timeout_s: float, reconnect_s: float = RECONNECT_S, on_silence: Say | None = None
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.reconnect_s = reconnect_s
        self._outages = Outages(address.target, on_silence)
        self._framed, self._pieces = FramedCalls(address), FramedCalls(address)  # no small call waits behind a piece
        self._grpc: GrpcCalls | None = None
        self._web = _web_calls(address) if is_url(address.target) else None
        self._lock = threading.Lock()
        self._closed = False

    def silence(self, what: str) -> Silence:
        """For one who follows `what` over a stream."""
        return Silence(what, self._outages, self.timeout_s, self.reconnect_s)

    def unary(
        self, method: str, request: Message, answer: type[R], *, repeatable: bool = True, timeout_s: float = 0.0
    ) -> R:
        """One call to "Service/Method" within the client's `timeout_s`, repetitions included, or within the one given
        where that is longer. Raises OffgridError."""
        is_piece, parts = _is_piece(request, answer), parts_of(request)
        within_s, repeats = max(self.timeout_s, timeout_s), 0
        deadline = time.monotonic() + within_s
        while True:
            try:
                begun = self._begin(method, parts, max(0.0, deadline - time.monotonic()), is_piece=is_piece)
                return read(answer, begun())
            except OffgridError as error:
                wait = pause_ms(repeats, error) if repeatable else None
                if wait is None or time.monotonic() + wait / 1000 >= deadline:
                    raise self._explained(method, error, within_s) from None
            time.sleep(wait / 1000)
            repeats += 1

    def begin(self, method: str, request: Message, answer: type[R]) -> Callable[[], R]:
        """As `unary`, but that others may be made while it is under way: what is returned waits for its end."""
        try:
            begun = self._begin(method, parts_of(request), self.timeout_s, is_piece=_is_piece(request, answer))
        except OffgridError:
            return lambda: self.unary(method, request, answer)

        def end() -> R:
            try:
                return read(answer, begun())
            except OffgridError as error:
                if pause_ms(0, error) is None:
                    raise self._explained(method, error, self.timeout_s) from None
                return self.unary(method, request, answer)

        return end

    def stream(
        self,
        method: str,
        request: Message,
        answer: type[R],
        *,
        timeout_s: float | None = None,
        on_start: Callable[[Callable[[], object]], None] = lambda cancel: None,
    ) -> Iterator[R]:
        """The messages of a server stream, for `timeout_s` or without end; closing the iterator ends the call, and so
        does the function that `on_start` is given, from any thread."""
        data = request.SerializeToString()
        try:
            framed = self._web is None and len(data) <= CALL_BYTES_MAX
            messages = self._framed.stream(method, data, timeout_s, on_start) if framed else None
            if self._web is not None:
                messages = self._web.stream(method, data, timeout_s, on_start)
            elif messages is None:
                messages = self._over_grpc().stream(method, data, timeout_s, on_start)
            for message in messages:
                yield answer.FromString(message)
        except OffgridError as error:
            raise self._explained(method, error, timeout_s) from None

    def _begin(self, method: str, request: Parts, timeout_s: float, *, is_piece: bool) -> Callable[[], Buffer]:
        if (web := self._web) is not None:
            return lambda: web.unary(method, b"".join(request), timeout_s)
        calls, most = (self._pieces, PIECE_CALL_BYTES_MAX) if is_piece else (self._framed, CALL_BYTES_MAX)
        wire = calls.wire() if sum(map(len, request)) <= most else None
        if wire is not None:
            return calls.begin(wire, method, request, timeout_s)
        return lambda: self._over_grpc().unary(method, b"".join(request), timeout_s)

    def _over_grpc(self) -> GrpcCalls:
        """Its library takes a tenth of a second to load, and few need it."""
        with self._lock:
            if self._closed:
                raise OffgridError("CANCELLED", "ClientClosed", "the client was closed")
            if self._grpc is None:
                from offgrid.client.grpc_calls import GrpcCalls

                self._grpc = GrpcCalls(self.address)
            return self._grpc

    def _explained(self, method: str, error: OffgridError, timeout_s: float | None) -> OffgridError:
        """gRPC's own words, where no node has spoken, as a reason and a sentence."""
        if not error.reason:
            if error.code == "UNAVAILABLE" and "Permission denied" in error.message:
                error.code = "PERMISSION_DENIED"
            error.reason, error.message = self._sentence(method, error, timeout_s)
            error.args = (error.message,)
        return error

    def _sentence(self, method: str, error: OffgridError, timeout_s: float | None) -> tuple[str, str]:
        target, said = self.address.target, " ".join(error.message.split())[:SAID_CHARS_MAX]
        match error.code:
            case "UNAVAILABLE":
                return "NoAnswer", f"no node answers at {target}"
            case "PERMISSION_DENIED" if "Permission denied" in said:
                return "SocketDenied", f"{target} belongs to another user; only the node's owner may call it"
            case "DEADLINE_EXCEEDED":
                return "DeadlineExceeded", f"the node gave no answer within {timeout_s or self.timeout_s:g} s"
            case "RESOURCE_EXHAUSTED" if sizes := TOO_LARGE.search(said):
                text = f"{sizes[1]} bytes; at most {sizes[2]} are allowed"
                return "MessageTooLarge", f"the message is too large for one call: {text}"
            case "CANCELLED" | "UNKNOWN" | "INTERNAL" | "RESOURCE_EXHAUSTED":  # what gRPC says of a broken connection
                return "ConnectionLost", f"the call to {target} broke off before it was answered ({said})"
            case "UNIMPLEMENTED":
                return "UnknownMethod", f"what answers at {target} does not know {method}"
        return "NotANode", f"what answers at {target} is no offgrid node ({error.code}: {said})"

    def close(self) -> None:
        """Ends what is under way."""
        self._framed.close()
        self._pieces.close()
        if self._web is not None:
            self._web.close()
        with self._lock:
            self._closed, grpc = True, self._grpc
        if grpc is not None:
            grpc.close()
