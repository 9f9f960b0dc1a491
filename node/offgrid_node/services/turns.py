"""Long work that any member may ask for: each has so much of it here, waiting or running, and no more.

It counts until it ends, not until whoever asked for it goes away: to cancel a call and ask again brings nobody more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from offgrid_node.protocol.errors import Exhausted, Fault
from offgrid_node.services.flow import Step

T = TypeVar("T")
RETRY_MS = 5_000


class Turns:
    """`most` of one kind for each caller; `what` names it in the error."""

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most
        self._taken = Counter[str]()

    def take(self, caller: str, step: Step[T]) -> Step[T]:
        """The step, or its end with Exhausted (reason TooMuchAtOnce) where the caller has as many under way."""

        def start(done: Callable[[T | Fault], None]) -> None:
            if self._taken[caller] >= self._most:
                said = f"{self._taken[caller]} {self._what} of {caller} wait or run here; at most {self._most} may"
                done(Exhausted(said, reason="TooMuchAtOnce", retry_ms=RETRY_MS))
                return
            self._taken[caller] += 1

            def ended(outcome: T | Fault) -> None:
                self._taken[caller] -= 1
                if not self._taken[caller]:
                    del self._taken[caller]
                done(outcome)

            step(ended)

        return start
