"""Airtime that outlives the process: what was used, and what may have been used since that was written. Pure.

A window of an hour must hold whatever happens to the process, so airtime is noted before it is used: a stretch of it
at a time, so that the disk is written a few times an hour and not for every frame. After a restart the whole stretch
counts as used. How long the machine was off, no clock can be trusted to say (an off-grid machine starts with a wrong
one), so unless the same monotonic clock still runs, all that was noted counts as if it had been sent at the start.

Killed between any two lines: before the note is durable no frame of its stretch leaves; afterwards all of the stretch
counts. A note that cannot be read counts as a full window.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from offgrid_transports.lora.duty import NEVER, SHARED_WINDOW_US, Duty
from offgrid_transports.lora.regions import Limit
from offgrid_transports.transport import Priority

NOTED_MAX = 64  # merged into so many stretches
AHEAD_SHARE = 20  # so much less than what a window may hold is noted at once; of a dwell time all of it


class Airbook:
    """`Duty` with a note that is kept. The owner saves what `note` returns and then says `noted`."""

    def __init__(self, limits: Iterable[Limit], clock: str) -> None:
        """`clock` is another one for each run of the machine; empty when that cannot be told."""
        limits = tuple(limits)
        self.duty = Duty(limits)
        self.trouble = ""
        self._clock = clock
        self._full_us = max((limit.used_us for limit in limits), default=0)
        self._stretch_us = min(map(_stretch_us, limits), default=NEVER)
        self._ahead_us = 0 if limits else NEVER
        self._noting_us = 0

    def recall(self, note: bytes | None, now_us: int) -> None:
        """Takes over the note of an earlier run; what may have been used stays open until the modem is known to be
        empty."""
        if note is None:
            return
        try:
            found = json.loads(note)
            clock, ahead_us = str(found["clock"]), _whole(found["ahead_us"])
            sent = [(_whole(air_us), _whole(latest_us)) for air_us, latest_us in found["sent"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            self.trouble = "the note of the airtime that was used cannot be read: it counts as all of it"
            self.duty.recall([], self._full_us, now_us)
            return
        same = bool(clock) and clock == self._clock and all(latest_us <= now_us for _, latest_us in sent)
        self.duty.recall(((air_us, latest_us if same else now_us) for air_us, latest_us in sent), ahead_us, now_us)

    def covers(self, air_us: int) -> bool:
        """Whether a frame of `air_us` is within what is noted."""
        return air_us <= self._ahead_us

    def low(self, air_us: int) -> bool:
        """Whether it is time for the next note, with a frame of `air_us` ahead."""
        return not self._noting_us and self._ahead_us < max(self._stretch_us // 2, air_us)

    def note(self, air_us: int) -> bytes:
        """What is to be saved, and then `noted` with the outcome. It covers a frame of `air_us` at least."""
        self._noting_us = max(self._stretch_us, air_us)
        open_us = self.duty.open_us
        sent: list[list[int]] = []
        settled = self.duty.settled()
        each = -(-len(settled) // NOTED_MAX)
        for index in range(0, len(settled), each or 1):
            group = settled[index : index + each]
            sent.append([sum(air_us for air_us, _ in group), group[-1][1]])
        noted = {"clock": self._clock, "sent": sent, "ahead_us": open_us + self._ahead_us + self._noting_us}
        return json.dumps(noted, separators=(",", ":")).encode()

    def noted(self, ok: bool) -> None:
        """The note is durable, or could not be saved and gives nothing."""
        if ok:
            self._ahead_us += self._noting_us
        self._noting_us = 0

    def begin(self, now_us: int, air_us: int, priority: Priority, who: str) -> None:
        """A frame that `covers` and `duty.may_send` allow is handed over."""
        if self._ahead_us != NEVER:
            self._ahead_us -= air_us
        self.duty.begin(now_us, air_us, priority, who)


def _stretch_us(limit: Limit) -> int:
    return limit.used_us if limit.window_us < SHARED_WINDOW_US else limit.used_us // AHEAD_SHARE


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < NEVER:
        raise ValueError(f"{value!r}: a whole number is expected")
    return value
