"""What waits to be stepped: inputs in their order, bounded in number and in bytes, taken out a batch at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from offgrid_node.protocol.effects import Asked, Executed
from offgrid_node.protocol.errors import Exhausted

INBOX_MAX = 16_384  # asked and not yet stepped; beyond it a caller is told to come back
INBOX_BYTES_MAX = 256 * 1024 * 1024
BATCH_INPUTS_MAX = 1_024  # per transaction, so that one commit stays within milliseconds
BATCH_BYTES = 16 * 1024 * 1024  # what a batch makes of its inputs must stay far below the store's BATCH_BYTES_MAX
RETRY_MS = 200  # what a caller is told when the inbox is full

Input = tuple[str, object]


class Inbox:
    """Pairs of domain and input. `size_bytes` counts what is bulk in them, not what every input has."""

    def __init__(self, inputs_max: int = INBOX_MAX, bytes_max: int = INBOX_BYTES_MAX) -> None:
        self._inputs: deque[tuple[str, object, int]] = deque()
        self._inputs_max, self._bytes_max = inputs_max, bytes_max
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._inputs)

    def __iter__(self) -> Iterator[object]:
        return (event for _, event, _ in self._inputs)

    def check_room(self, size_bytes: int) -> None:
        """Raises Exhausted (InboxFull) when a request of this size must come again later."""
        if len(self._inputs) >= self._inputs_max:
            held = f"{self._inputs_max} requests"
        elif self._inputs and self.size_bytes + size_bytes > self._bytes_max:
            held = f"requests of {self.size_bytes} bytes"
        else:
            return
        raise Exhausted(f"the node's inbox holds {held} already", reason="InboxFull", retry_ms=RETRY_MS)

    def push(self, domain: str, event: object, size_bytes: int = 0) -> None:
        """Puts one in, whatever the bounds."""
        if isinstance(event, Executed):
            size_bytes += len(event.output) + len(event.log) + len(event.sealed)
        self._inputs.append((domain, event, size_bytes))
        self.size_bytes += size_bytes

    def take(self) -> list[Input]:
        """The oldest inputs, as many as one batch may have; at least one, however large, when there is any."""
        taken: list[Input] = []
        left = BATCH_BYTES
        while self._inputs and len(taken) < BATCH_INPUTS_MAX:
            domain, event, size_bytes = self._inputs[0]
            if taken and size_bytes > left:
                break
            self._inputs.popleft()
            self.size_bytes -= size_bytes
            left -= size_bytes
            taken.append((domain, event))
        return taken

    def drop_asked(self) -> None:
        """Forgets the requests of others; the ends of what this node itself began stay."""
        self._inputs = deque(entry for entry in self._inputs if not isinstance(entry[1], Asked))
        self.size_bytes = sum(size_bytes for _, _, size_bytes in self._inputs)
