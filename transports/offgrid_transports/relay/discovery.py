"""Ways looked for: a question that each node hands on once, and an answer that comes back along the hops it names.

As AODV (RFC 3561) and DSR (RFC 4728) do it, with the hops in the question as in DSR. Who heard a question waits for a
random time, in slots of what a question takes on the air; who meanwhile heard it COPIES_MAX times does not hand it on,
for nobody new would hear it (the counter-based scheme of Ni et al., 1999). The target answers once, when it has heard
the best way that is to come. A node that hears the target itself, or was told a way to it lately, answers for it,
unless the question asks for none but the target.

A way is the better the fewer hops on it the source would rather avoid, then the less it takes. What comes by such hops
is handed on later, so that others have their turn; where there is no other way it still comes through.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import msgspec

from offgrid_transports.relay.frames import HOPS_MAX, NUMBER_BYTES, Answer, Ask, hop_of
from offgrid_transports.relay.routes import Route
from offgrid_transports.timers import Timers

SEEN_MAX = 256
SEEKING_MAX = 64
COPIES_MAX = 3  # heard on a link before one's own turn: nobody new would hear it there
SLOTS = 8  # that a node waits at most before it hands a question on,
LATE_MAX = 2  # and so many times as long for hops to be avoided
DETOUR_MS = 1_000.0  # for which a way without them is waited at least: links with addresses say nothing of their delay
TRIES_MAX = 3
PATIENCE_MS_MIN = 500.0  # with a question, before it is asked again
SEARCH_MS_MIN = 3_000.0  # however quick the links are
BACKOFF_MS_MIN, BACKOFF_MS_MAX = 30_000.0, 3_600_000.0  # after a search that found nobody
BACKOFFS_MAX = 512

Known = Callable[[bytes], Route | None]
"""The way that leads to that one from here, if any is known."""
Rank = tuple[int, int, int]
"""Of a way: the lower the better."""


class Due(NamedTuple):
    """A question to be handed on, on the links where it was not heard often enough; or an answer."""

    said: Ask | Answer
    not_on: frozenset[int] = frozenset()


class _Seen(msgspec.Struct):
    """A question of somebody. `best`: the best way it came; `copies`: how often it was heard, by link, no worse than
    this node would say it."""

    best: Ask
    rank: Rank
    own: int  # hops to be avoided that handing it on adds
    copies: dict[int, int] = msgspec.field(default_factory=dict)
    answers: Route | None = None  # this node would answer, with that way on
    done: bool = False
    passed: Rank | None = None  # of the best answer that went through here


class _Search(msgspec.Struct):
    """One's own. `fresh`: ways that others were told are not trusted."""

    numbers: list[int]  # of each try
    began_ms: float
    fresh: bool
    avoided: tuple[bytes, ...]


class Discovery:
    """`hands_on`: whether this node hands on questions of others."""

    def __init__(self, own: bytes, rng: Random, *, hands_on: bool = True) -> None:
        self.own, self.hop, self._rng, self._hands_on = own, hop_of(own), rng, hands_on
        self._seen: OrderedDict[tuple[bytes, int], _Seen] = OrderedDict()
        self._searches: dict[bytes, _Search] = {}
        self._timers = Timers()
        self._found: OrderedDict[bytes, tuple[list[int], float]] = OrderedDict()  # numbers, and until when they count
        self._failed: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # until when, and how long that was
        self.suppressed = 0
        """Questions that were not handed on, because others had."""

    @property
    def under_way(self) -> int:
        """Searches, and questions whose turn will come."""
        return len(self._timers)

    # ---- one's own searches

    def may_seek(self, now_ms: float, target: bytes) -> bool:
        return self._failed.get(target, (-math.inf, 0.0))[0] <= now_ms

    def seek(
        self, now_ms: float, target: bytes, slot_ms: float, *, fresh: bool = False, avoided: tuple[bytes, ...] = ()
    ) -> Ask | None:
        """The question to be sent, or None while it is under way already, or was in vain lately."""
        if target in self._searches or len(self._searches) >= SEEKING_MAX or not self.may_seek(now_ms, target):
            return None
        search = self._searches[target] = _Search([self._new_number()], now_ms, fresh, avoided)
        self._timers.set(("search", target), now_ms + _patience_ms(slot_ms, avoided))
        return self._ask(target, search)

    def seeks(self, target: bytes) -> bool:
        return target in self._searches

    def on_found(self, now_ms: float, target: bytes, slot_ms: float) -> None:
        """Better answers may come for a while."""
        search = self._searches.pop(target, None)
        self._timers.set(("search", target), None)
        if search is not None:
            self._found[target] = search.numbers, now_ms + max(SEARCH_MS_MIN, _patience_ms(slot_ms, search.avoided))
            if len(self._found) > SEEKING_MAX:
                self._found.popitem(last=False)

    def reached(self, target: bytes) -> None:
        """A way there has opened: who only tells of one may tell of one that was."""
        self._failed.pop(target, None)

    def fail(self, now_ms: float, target: bytes) -> None:
        """It is not looked for again for a while, each time twice as long."""
        before = self._failed.pop(target, (0.0, BACKOFF_MS_MIN / 2))[1]
        wait_ms = min(2 * before, BACKOFF_MS_MAX)
        self._failed[target] = now_ms + wait_ms, wait_ms
        if len(self._failed) > BACKOFFS_MAX:
            self._failed.popitem(last=False)

    # ---- what is heard

    def is_news(self, ask: Ask) -> bool:
        """It is neither this node's own nor one that came by before, be it as a copy or a recording."""
        return ask.source != self.own and (ask.source, ask.number) not in self._seen

    def on_ask(self, now_ms: float, ask: Ask, link: int, slot_ms: float, known: Known) -> bool:
        """Whether it is new here, or tells of a better way than before. Its cost is that of the way to here."""
        key = ask.source, ask.number
        if ask.source == self.own or (self.hop in ask.hops and ask.target != self.own):
            return False
        rank, seen = _rank(ask.avoided, ask.target, ask.hops, ask.cost_ms), self._seen.get(key)
        if seen is not None:
            if rank[0] <= seen.rank[0] + seen.own:
                seen.copies[link] = seen.copies.get(link, 0) + 1
            better = rank < seen.rank and not seen.done
            if better:
                seen.best, seen.rank = ask, rank
                if ask.target == self.own and not rank[0]:
                    self._timers.set(("turn", *key), now_ms + slot_ms * SLOTS)
            return better
        own = self.hop
        seen = self._seen[key] = _Seen(ask, rank, own in ask.avoided, copies={link: 1})
        late = min(rank[0] + seen.own, LATE_MAX)
        wait_ms = slot_ms * (self._rng.uniform(0.2, SLOTS) + SLOTS * late)
        if ask.target == self.own:
            seen.answers = Route((), now_ms, 0)
            wait_ms = slot_ms * SLOTS  # others still say how they heard it
            if rank[0]:
                wait_ms = max((1 + LATE_MAX) * wait_ms, DETOUR_MS)
        elif self._hands_on and not ask.fresh and (on := known(ask.target)) is not None and _is_free(ask, on.hops):
            seen.answers = on._replace(hops=(own, *on.hops))
            wait_ms = slot_ms * (self._rng.uniform(0.2, SLOTS / 2) + len(on.hops) + SLOTS * late)
        elif not self._hands_on or not ask.left:
            seen.done = True
        if not seen.done:
            self._timers.set(("turn", *key), now_ms + wait_ms)
        if len(self._seen) > SEEN_MAX:
            self._timers.set(("turn", *self._seen.popitem(last=False)[0]), None)
        return True

    def is_open(self, now_ms: float, answer: Answer) -> bool:
        """It answers what this node asks now, or has asked just now: it is no recording."""
        search, (numbers, until_ms) = self._searches.get(answer.target), self._found.get(answer.target, ([], 0.0))
        return answer.number in (search.numbers if search is not None else numbers if now_ms < until_ms else [])

    def may_be_mine(self, answer: Answer) -> bool:
        """It names this node's hop because the answer went through here; and so does one of a question not known."""
        seen = self._seen.get((answer.source, answer.number))
        return seen is None or seen.passed is not None

    def on_answer_heard(self, answer: Answer) -> None:
        """Somebody's, to whomever: the question need not be handed on, nor answered once more."""
        key = answer.source, answer.number
        seen = self._seen.get(key)
        if seen is not None and seen.best.target != self.own:
            seen.done = True
            self._timers.set(("turn", *key), None)

    def may_pass(self, answer: Answer) -> bool:
        """Of a question that came by here, the first answer, and later ones that tell of a better way."""
        seen = self._seen.get((answer.source, answer.number))
        if seen is None:
            return False
        rank = _rank(seen.best.avoided, answer.target, answer.hops, answer.cost_ms)
        if seen.passed is not None and rank >= seen.passed:
            return False
        seen.passed = rank
        return True

    # ---- time

    @property
    def due_ms(self) -> float:
        due_ms = self._timers.deadline_ms
        return math.inf if due_ms is None else due_ms

    def take_due(self, now_ms: float, slot_ms: float) -> tuple[list[Due], list[bytes]]:
        """What is to be said now, and the targets that nobody has found."""
        said, lost = list[Due](), list[bytes]()
        for timer in self._timers.take_due(now_ms):
            match timer:
                case ("search", bytes() as target):
                    due = self._next_try(now_ms, target, slot_ms)
                    lost += [] if due else [target]
                case (_, bytes() as source, int() as number):
                    due = self._turn(self._seen[source, number])
                case _:
                    raise AssertionError(timer)
            said += [due] if due else []
        return said, lost

    # ---- inside

    def _next_try(self, now_ms: float, target: bytes, slot_ms: float) -> Due | None:
        """None after the last one."""
        search = self._searches[target]
        if len(search.numbers) >= TRIES_MAX and search.began_ms + SEARCH_MS_MIN <= now_ms:
            del self._searches[target]
            self.fail(now_ms, target)
            return None
        search.numbers.append(self._new_number())
        tries = min(len(search.numbers), TRIES_MAX)
        search.fresh = tries >= TRIES_MAX or search.fresh
        self._timers.set(("search", target), now_ms + _patience_ms(slot_ms * tries, search.avoided))
        return Due(self._ask(target, search))

    def _turn(self, seen: _Seen) -> Due | None:
        seen.done = True
        ask, own = seen.best, self.hop
        if seen.answers is not None:
            hops = (*ask.hops, *seen.answers.hops)
            if len(hops) <= HOPS_MAX and len({*hops}) == len(hops) and hop_of(ask.source) not in seen.answers.hops:
                cost_ms = seen.answers.cost_ms
                return Due(Answer(ask.number, len(ask.hops), ask.target, ask.source, hops, cost_ms))
            if ask.target == self.own:
                return None
        often = frozenset(link for link, copies in seen.copies.items() if copies >= COPIES_MAX)
        self.suppressed += bool(often)
        if not ask.left:
            return None
        return Due(ask._replace(hops=(*ask.hops, own), left=ask.left - 1), often)

    def _new_number(self) -> int:
        return self._rng.getrandbits(8 * NUMBER_BYTES)

    def _ask(self, target: bytes, search: _Search) -> Ask:
        return Ask(search.numbers[-1], HOPS_MAX, search.fresh, target, self.own, (), 0, search.avoided)


def _rank(avoided: tuple[bytes, ...], target: bytes, hops: tuple[bytes, ...], cost_ms: int) -> Rank:
    return sum(hop in avoided for hop in hops or (hop_of(target),)), cost_ms, len(hops)


def _is_free(ask: Ask, hops: tuple[bytes, ...]) -> bool:
    """Of those that the source would rather avoid."""
    return not {*(hops or (hop_of(ask.target),))} & {*ask.avoided}


def _patience_ms(slot_ms: float, avoided: tuple[bytes, ...]) -> float:
    """For as many hops as there may be, each half of its slots, and as many back; and what nobody knows of links."""
    least_ms = PATIENCE_MS_MIN + (3 * DETOUR_MS if avoided else 0.0)
    return max(least_ms, HOPS_MAX * slot_ms * (SLOTS / 2 + 1))
