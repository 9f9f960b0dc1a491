"""Payloads that were at work whenever a host went down: after some times the host takes them no more, for a while.

A host that dies under a job cannot say what killed it; the core counts the hosts that it loses under one job and stops
(`AttemptsExhausted`). But the next job may have the same payload, and other cores may send it too: so the host counts
by the payload's digest, durably. Work that was merely there when something else went down is cleared by ending once,
and by a day. An orderly stop is nobody's fault.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.jobs.post import Post

SUSPECTS = "host_suspects"
SUSPECTS_MAX = 1_024  # payloads; the one blamed longest ago is forgotten first
RESTARTS_MAX = 3
QUARANTINE_US = 3_600 * 1_000_000  # after the last time
FORGIVEN_US = 24 * QUARANTINE_US  # times that lie further apart are no series


class Quarantine:
    """How often a host went down under each payload, and when last."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._suspects: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # by digest, times and UTC microseconds

    def load(self, rows: Rows) -> None:
        found = [(int.from_bytes(value[1:], "big"), key, value[0]) for key, value in rows.scan(SUSPECTS)]
        self._suspects = OrderedDict((digest, (times, last_us)) for last_us, digest, times in sorted(found))

    def refusal(self, payload_digest: bytes, now: Now) -> str:
        """Why such a payload is not taken now; empty when it is. A clock that was set back keeps nobody in for ever."""
        if payload_digest not in self._suspects:
            return ""
        times, last_us = self._suspects[payload_digest]
        left_us = QUARANTINE_US - abs(now.utc_us - last_us)
        if times < RESTARTS_MAX or left_us <= 0:
            return ""
        minutes = -(-left_us // 60_000_000)
        return f"quarantined: this host went down {times} times under this very payload; ask again in {minutes} min"

    def blame(self, payload_digests: Iterable[bytes], now: Now) -> None:
        """These were at work when the host went down."""
        for digest in sorted(set(payload_digests)):
            times, last_us = self._suspects.pop(digest, (0, 0))
            times = times + 1 if abs(now.utc_us - last_us) <= FORGIVEN_US else 1
            self._suspects[digest] = min(times, 255), now.utc_us
            self._post.put_bytes(SUSPECTS, digest, bytes([min(times, 255)]) + now.utc_us.to_bytes(8, "big"))
            if len(self._suspects) > SUSPECTS_MAX:
                self._post.delete(SUSPECTS, self._suspects.popitem(last=False)[0])

    def clear(self, payload_digest: bytes, now: Now) -> None:
        """It has come to its end here, however that was."""
        if self._suspects.pop(payload_digest, None) is not None:
            self._post.delete_late(SUSPECTS, payload_digest, now)
