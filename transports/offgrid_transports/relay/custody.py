"""Frames that this node has handed on, kept until it is known that the next hop has them (RFC 3366, section 8).

On a shared medium nobody says so on purpose: that the next hop hands a frame on is heard, by its end, which stays the
same on all hops. Else it is sent again. A frame that asks tells of those before it as well: whoever takes it first
wants what is missing (arrivals.py).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import Enum, auto

import msgspec

from offgrid_transports.session import MORE

HELD_MAX = 128
TRIES_MAX = 8
MARK_BYTES = 2
ANSWER_SHARE = 0.75  # of the wait for word, before which nothing answers what goes on for more hops


class Held(msgspec.Struct):
    """`left_ms`: when it has left; `wait_ms`: how long word may take from then on, infinite where none is expected;
    `due_ms`: when there should have been some."""

    frame: bytes
    asks: bool
    left_ms: float
    wait_ms: float
    due_ms: float
    tries: int = 1
    passed: bool = False  # a later one was handed on: so was this one, or it is lost

    @property
    def more(self) -> bool:
        """One that asks follows: whoever takes that wants this one again, if need be."""
        return bool(self.frame[0] & MORE)


class Turn(Enum):
    """What a deadline came to, where no frame is to be sent again."""

    NOTHING = auto()
    GIVEN_UP = auto()
    """One was sent often enough, and nothing came from there meanwhile."""


class Custody:
    """Of one direction of one circuit. `mark`: bytes 3 and 4 of a frame, by which all speak of it."""

    def __init__(self) -> None:
        self._held: OrderedDict[bytes, Held] = OrderedDict()  # in the order they were handed on
        self._word_ms = -math.inf  # when the next hop last showed that it is there

    @property
    def due_ms(self) -> float:
        """When to look whether something has to be sent again; infinite for never."""
        return min((held.due_ms for held in self._held.values()), default=math.inf)

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, now_ms: float, frame: bytes, *, asks: bool, sent_ms: float, wait_ms: float) -> None:
        """It will have left in `sent_ms`; from then on word of it may take `wait_ms`, infinite where none comes."""
        mark = mark_of(frame)
        self._held.pop(mark, None)
        left_ms = now_ms + sent_ms
        self._held[mark] = Held(frame, asks, left_ms, wait_ms, math.inf)
        self._expect(mark, left_ms + wait_ms)
        if len(self._held) > HELD_MAX:
            self._held.popitem(last=False)

    @property
    def backlog(self) -> list[bytes]:
        """Frames that the next hop may have yet to hand on."""
        return [held.frame for held in self._held.values() if not held.passed]

    def has(self, frame: bytes) -> bool:
        held = self._held.get(mark_of(frame))
        return held is not None and held.frame[3:] == frame[3:]

    def on_forwarded(self, now_ms: float, frame: bytes) -> bool:
        """The next hop hands it on: it is there, and what was before one that asks. False for one not held."""
        if not self.has(frame):
            return False
        self._word_ms = now_ms
        self._pass(mark_of(frame))
        self._release(mark_of(frame))
        return True

    def on_heard(self, now_ms: float, mark: bytes, missing: tuple[bytes, ...]) -> list[bytes]:
        """It has come; frames to be sent again are handed back, and held on."""
        self._word_ms = now_ms
        wanted = [self._held[each] for each in missing if each in self._held]
        if mark in self._held:
            self._pass(mark)
            self._release(mark, but=frozenset(missing))
        for held in wanted:
            held.tries += 1
        return [held.frame for held in wanted if held.tries <= TRIES_MAX]

    def last(self, count: int) -> list[bytes]:
        """The frames handed on last, and not known to be there; to be sent again, as often as others."""
        last = [held for held in list(self._held.values())[-count:] if held.tries < TRIES_MAX]
        for held in last:
            held.tries += 1
        return [held.frame for held in last]

    def on_word(self, now_ms: float, *, last: bool) -> None:
        """Something new comes back: what had left by then has come, if the next hop is the end; else what asked so long
        ago that this may answer it."""
        self._word_ms = now_ms
        for mark, held in list(self._held.items()):
            answered = held.asks and held.left_ms + ANSWER_SHARE * held.wait_ms <= now_ms
            if answered or (last and held.left_ms <= now_ms):
                del self._held[mark]

    def clear(self) -> None:
        self._held.clear()

    def defer(self, ms: float) -> None:
        """The medium was taken so long."""
        for held in self._held.values():
            held.due_ms += ms

    def on_time(self, now_ms: float) -> bytes | Turn:
        """The frame to be sent again: of those that are due the last one, for word of it tells of all."""
        due = [(mark, held) for mark, held in self._held.items() if held.due_ms <= now_ms]
        if due and due[-1][1].more:
            self._pass(due[-1][0])
            for _, held in due:
                held.due_ms = math.inf if held.more else held.due_ms
        again = [(mark, held) for mark, held in due if not held.more]
        if not again:
            return Turn.NOTHING
        mark, held = again[-1]
        if held.tries >= TRIES_MAX:
            del self._held[mark]
            for _, other in due:
                other.due_ms = max(other.due_ms, now_ms + other.wait_ms)
            return Turn.GIVEN_UP if self._word_ms < held.left_ms else Turn.NOTHING
        held.tries += 1
        self.again(now_ms, held.frame, 0.0)
        return held.frame

    def again(self, now_ms: float, frame: bytes, sent_ms: float) -> None:
        """It is on its way once more. What is waited for grows, as others may be in the same case."""
        held = self._held.get(mark_of(frame))
        if held is not None:
            self._expect(mark_of(frame), now_ms + sent_ms + held.wait_ms * (1 + 0.25 * held.tries))

    # ---- inside

    def _expect(self, mark: bytes, due_ms: float) -> None:
        """Word of it, by then; and until then none of those before it, for the next hop is listening."""
        if due_ms == math.inf:
            return
        for other, held in self._held.items():
            if other == mark:
                held.due_ms = due_ms
                break
            if held.due_ms < due_ms:
                held.due_ms = due_ms

    def _pass(self, mark: bytes) -> None:
        for other, held in self._held.items():
            held.passed = True
            if other == mark:
                break

    def _release(self, mark: bytes, but: frozenset[bytes] = frozenset()) -> None:
        if self._held[mark].asks:
            for other in list(self._held):
                if other not in but:
                    del self._held[other]
                if other == mark:
                    break
        else:
            del self._held[mark]


def mark_of(frame: bytes) -> bytes:
    return frame[3 : 3 + MARK_BYTES]
