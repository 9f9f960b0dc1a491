"""How much longer a call may take than its caller would wait, because what it waits for is coming. Pure.

Time is earned by bytes that are new, so a peer that says one now and then, or the same ones again, holds nothing up for
long: who brings so many all the time goes on, who brings fewer falls behind.
"""

from __future__ import annotations


class Headway:
    def __init__(self, deadline_ms: float) -> None:
        self.deadline_ms = deadline_ms
        self.bytes = 0
        """That have come; of those that came again the most there were."""

    def on_bytes(self, now_ms: float, total: int, enough: int, wait_ms: float) -> bool:
        """So many have come in all, and whether any of them is new: `enough` of those earn `wait_ms`. That is also the
        most that is left at any time beyond what the caller has given."""
        new = total - self.bytes
        if new <= 0:
            return False
        self.bytes = total
        earned_ms = wait_ms * min(1.0, new / enough)
        self.deadline_ms = max(self.deadline_ms, min(self.deadline_ms + earned_ms, now_ms + wait_ms))
        return True
