"""A server stream as the handlers see it: pushed into here, drained by whatever carrier brought the request."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from google.protobuf.message import Message

from offgrid_node.protocol.errors import Exhausted, Fault

STREAM_BACKLOG_MAX = 1024  # messages waiting for a slow reader; beyond it the stream ends


class Stream:
    """Messages for one watcher, bounded; whoever reads too slowly is cut off with Exhausted(SlowReader)."""

    def __init__(self, backlog_max: int = STREAM_BACKLOG_MAX) -> None:
        self._messages: deque[Message] = deque()
        self._backlog_max = backlog_max
        self._on_ready: Callable[[], None] = lambda: None
        self._on_close: list[Callable[[], None]] = []
        self.ended = False
        self.fault: Fault | None = None

    def push(self, message: Message) -> None:
        if self.ended:
            return
        if len(self._messages) >= self._backlog_max:
            self.end(Exhausted(f"the reader is {self._backlog_max} messages behind", reason="SlowReader"))
            return
        self._messages.append(message)
        self._on_ready()

    def end(self, fault: Fault | None = None) -> None:
        """No more will come; what waits is still delivered unless `fault` says otherwise."""
        if self.ended:
            return
        self.ended, self.fault = True, fault
        self._closed()
        self._on_ready()

    @property
    def waiting(self) -> int:
        """How many messages wait to be taken."""
        return len(self._messages)

    def take(self) -> list[Message]:
        """What waits now."""
        messages = list(self._messages)
        self._messages.clear()
        return messages

    def when_ready(self, callback: Callable[[], None]) -> None:
        """`callback` runs whenever there is something to take or the stream has ended; at once if so already."""
        self._on_ready = callback
        if self._messages or self.ended:
            callback()

    def when_closed(self, callback: Callable[[], None]) -> None:
        """`callback` runs once, when either side has finished."""
        self._on_close.append(callback)

    def cancel(self) -> None:
        """The reader has gone."""
        self.ended = True
        self._messages.clear()
        self._closed()

    def _closed(self) -> None:
        callbacks, self._on_close = self._on_close, []
        for callback in callbacks:
            callback()
