"""What others hold of each author and this node lacks, and of whom it is asked: "author a, heights 17 to 4,903".

A chain that is known to go on is asked for WAIT_MS after that became known, for the blocks may be on their way by
themselves. It is asked of one peer at a time, all that one offers together, for it sends blocks in an order in which
each finds what it leans on. A peer from whom nothing new has come for STALL_MS is not waited for any more, nor one that
brings less than LEAST_BLOCKS in MOST_MS: then another is asked, those first that never kept anybody waiting. And what
others offer too is asked of another after MOST_MS in any case, for a peer may bring this and keep back that. So a liar
who offers what it does not give costs some seconds, or its turns, and each block comes once. What one peer offers takes
no room from what others do.

How often a peer kept this node waiting outlives its turns and its connections; it is halved whenever it brings news.
Whoever is asked and has brought nothing yet is left at once where one offers the same that kept this node waiting less
often, and each time that one was waited for in vain that was so before, others are to be met (gossip.py): so liars who
go on offering cannot keep what honest peers have from being heard of, or asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.heads import HEADS_MAX, Span
from offgrid_node.protocol.ledger.records import SEQ_MAX

WAIT_MS = 500
STALL_MS = 5_000
MOST_MS, LEAST_BLOCKS = 60_000, 64
OFFERS_MAX = 8  # peers that offer one author's blocks
OFFERED_MAX = HEADS_MAX  # authors that one peer offers


class _Gap(msgspec.Struct):
    """One author's blocks. `heights`: how far each peer has them; `again`: from here on, though that height is held
    (two heads of one height: a fork comes out)."""

    due_ms: int
    heights: dict[str, int] = msgspec.field(default_factory=dict)
    again: int = 0
    announced: dict[str, None] = msgspec.field(default_factory=dict)  # who offered it as news: its link is grafted
    asked: str = ""
    asked_ms: int = 0


class _Asked(msgspec.Struct):
    """One peer's answer, which is awaited."""

    since_ms: int
    news_ms: int
    blocks: int = 0  # that were new, since then
    authors: dict[bytes, None] = msgspec.field(default_factory=dict)


class Ask(msgspec.Struct, frozen=True):
    """What one peer is asked for; `graft`: of these authors it is to push whatever comes next. A span that nobody can
    have is the last word of an author: no more of what was asked for."""

    node: str
    spans: tuple[Span, ...]
    graft: tuple[bytes, ...] = ()


class Backfill:
    """Gaps by author; at most one peer is asked for each."""

    def __init__(self, chains: Chains) -> None:
        self._chains = chains
        self._gaps: dict[bytes, _Gap] = {}
        self._asked: dict[str, _Asked] = {}
        self._offers: Counter[str] = Counter()  # authors, by peer
        self._failed: Counter[str] = Counter()
        self._turns: Counter[str] = Counter()
        self._stopped: dict[tuple[str, bytes], None] = {}  # peers that are to send no more of an author
        self._stalled: dict[bytes, None] = {}  # authors whose blocks others may have: see take_stalled
        self._due_ms: int | None = None

    # ---- questions

    @property
    def busy(self) -> bool:
        """Whether blocks are on their way that were asked for."""
        return bool(self._asked)

    def is_asked(self, node: str, author: bytes) -> bool:
        """Whether that peer is asked for the author's blocks."""
        asked = self._asked.get(node)
        return asked is not None and author in asked.authors

    def deadline_ms(self) -> int | None:
        stalls = (min(asked.since_ms + MOST_MS, self._stalls_ms(asked)) for asked in self._asked.values())
        return min((due for due in (self._due_ms, *stalls) if due is not None), default=None)

    # ---- inputs

    def on_offer(self, node: str, author: bytes, height: int, now_ms: int, *, news: bool = False,
                 again: bool = False) -> bool:  # fmt: skip
        """This peer has the author's blocks up to there; whether any of them is lacking here. `again`: it has another
        block of a height that is held."""
        held = self._chains.author(author)
        first = held.height if again else held.height + 1
        if not 0 < first <= height or not held.plain(first):
            return False
        gap = self._gaps.get(author)
        if self._offers[node] >= OFFERED_MAX and (gap is None or node not in gap.heights):
            return False
        if gap is None:
            gap = self._gaps[author] = _Gap(now_ms + WAIT_MS)
            self._soon(gap.due_ms)
        if node in gap.heights or self._make_room(author, gap, node):
            self._offers[node] += node not in gap.heights
            gap.heights[node] = max(height, gap.heights.get(node, 0))
            if news:
                gap.announced[node] = None
            if again:
                gap.again = first
            if gap.asked and self._failed[node] < self._failed[gap.asked] and not self._asked[gap.asked].blocks:
                self._leave(author, gap, now_ms)
        return True

    def on_brought(self, node: str, blocks: Iterable[tuple[bytes, int]], *, news: int, now_ms: int) -> None:
        """This peer has brought some of what it was asked for, as author and height; `news`: how many were new."""
        asked = self._asked.get(node)
        if asked is None:
            return
        if news:
            asked.news_ms, asked.blocks = now_ms, asked.blocks + news
            self._failed[node] //= 2
        for author, height in blocks:
            gap = self._gaps.get(author)
            if gap is not None and gap.again == height and gap.asked == node:
                self._close(author, gap)

    def on_block(self, author: bytes, now_ms: int) -> None:
        """The author's chain may have grown here, or it may be frozen."""
        gap = self._gaps.get(author)
        if gap is None:
            return
        held = self._chains.author(author)
        if not held.plain(held.height + 1):
            self._close(author, gap)
        elif not gap.again:
            for node in [node for node, height in gap.heights.items() if height <= held.height]:
                if node == gap.asked:
                    gap.due_ms = now_ms + WAIT_MS
                self._withdraw(author, gap, node)

    def on_down(self, node: str) -> None:
        for author, gap in [*self._gaps.items()]:
            if node in gap.heights:
                self._withdraw(author, gap, node)
        for counted in (self._turns, self._offers):
            counted.pop(node, None)
        self._stopped = {(to, author): None for to, author in self._stopped if to != node}

    def on_fault(self, node: str, now_ms: int) -> None:
        """The question may not have arrived: it is asked again soon, of whomever."""
        asked = self._asked.get(node)
        for author in [*asked.authors] if asked is not None else ():
            gap = self._gaps[author]
            self._release(author, gap)
            gap.due_ms = now_ms + WAIT_MS
            self._soon(gap.due_ms)

    def take_asks(self, now_ms: int, up: Iterable[str]) -> list[Ask]:
        """Whom to ask now for what."""
        for node, asked in [*self._asked.items()]:
            slow = asked.since_ms + MOST_MS <= now_ms and asked.blocks < LEAST_BLOCKS
            if slow or self._stalls_ms(asked) <= now_ms:
                self._failed[node] += 1
                for author in [*asked.authors]:
                    gap = self._gaps[author]
                    if slow or max(gap.asked_ms, asked.news_ms) + STALL_MS <= now_ms:
                        self._stopped[node, author] = None
                        if self._failed[node] > 1:
                            self._stalled[author] = None
                        self._withdraw(author, gap, node)
            elif asked.since_ms + MOST_MS <= now_ms:
                self._end_turn(node, asked, now_ms)
        if self._due_ms is None or self._due_ms > now_ms:
            return self._stops()
        self._due_ms = None
        alive, asks = set(up), dict[str, list[bytes]]()
        due = {author: gap for author, gap in self._gaps.items() if not gap.asked and gap.due_ms <= now_ms}
        offers = Counter(node for gap in due.values() for node in gap.heights)
        for author, gap in due.items():
            first = self._first(author, gap)
            nodes = [node for node, height in gap.heights.items() if height >= first and node in alive]
            if not nodes:
                self._close(author, gap)
                continue
            best = min(nodes, key=lambda node: (self._failed[node], self._turns[node], -offers[node]))
            asks.setdefault(best, []).append(author)
        for gap in self._gaps.values():
            if not gap.asked and gap.due_ms > now_ms:
                self._soon(gap.due_ms)
        return [*self._stops(), *(self._ask(node, authors, now_ms) for node, authors in asks.items())]

    def take_stalled(self) -> list[bytes]:
        """Authors whose blocks one was waited for in vain that was so before; each is told once."""
        stalled, self._stalled = [*self._stalled], {}
        return stalled

    # ---- inside

    def _make_room(self, author: bytes, gap: _Gap, node: str) -> bool:
        """For one more peer that offers it: whoever kept this node waiting more often goes."""
        if len(gap.heights) < OFFERS_MAX:
            return True
        worst = max((other for other in gap.heights if other != gap.asked), key=lambda other: self._failed[other])
        if self._failed[worst] <= self._failed[node]:
            return False
        self._withdraw(author, gap, worst)
        return True

    def _end_turn(self, node: str, asked: _Asked, now_ms: int) -> None:
        """It brings something; what others offer too is asked of them now."""
        asked.since_ms, asked.blocks = now_ms, 0
        self._turns[node] += 1
        for author in [*asked.authors]:
            gap = self._gaps[author]
            if len(gap.heights) > 1:
                self._leave(author, gap, now_ms)

    def _leave(self, author: bytes, gap: _Gap, now_ms: int) -> None:
        """Whoever is asked for it is to send no more of it, and another is asked now."""
        self._stopped[gap.asked, author] = None
        self._release(author, gap)
        gap.due_ms = now_ms
        self._soon(now_ms)

    def _stops(self) -> list[Ask]:
        """Whom to ask for no more of what; before the same is asked of anybody again."""
        stopped = dict[str, list[Span]]()
        for node, author in self._stopped:
            stopped.setdefault(node, []).append(Span(author, SEQ_MAX, SEQ_MAX))
        self._stopped.clear()
        return [Ask(node, tuple(spans)) for node, spans in stopped.items()]

    def _ask(self, node: str, authors: list[bytes], now_ms: int) -> Ask:
        asked = self._asked.setdefault(node, _Asked(now_ms, now_ms))
        spans, graft = list[Span](), list[bytes]()
        for author in authors:
            gap = self._gaps[author]
            gap.asked, gap.asked_ms = node, now_ms
            asked.authors[author] = None
            spans.append(Span(author, self._first(author, gap), gap.heights[node]))
            if node in gap.announced:
                graft.append(author)
        return Ask(node, tuple(spans), tuple(graft))

    def _stalls_ms(self, asked: _Asked) -> int:
        """When nothing new will have come for too long, since the author was asked for that is waited for longest."""
        first = min(self._gaps[author].asked_ms for author in asked.authors)
        return max(first, asked.news_ms) + STALL_MS

    def _first(self, author: bytes, gap: _Gap) -> int:
        return gap.again or self._chains.author(author).height + 1

    def _withdraw(self, author: bytes, gap: _Gap, node: str) -> None:
        """There is nothing more to be had of it."""
        if gap.heights.pop(node, None) is not None:
            self._offers[node] -= 1
        gap.announced.pop(node, None)
        if not gap.heights:
            self._close(author, gap)
        elif gap.asked == node:
            self._release(author, gap)
            self._soon(gap.due_ms)

    def _soon(self, due_ms: int) -> None:
        self._due_ms = due_ms if self._due_ms is None else min(self._due_ms, due_ms)

    def _close(self, author: bytes, gap: _Gap) -> None:
        if self._gaps.pop(author, None) is not None:
            self._offers.subtract([*gap.heights])
        self._release(author, gap)

    def _release(self, author: bytes, gap: _Gap) -> None:
        """Nobody is asked for it."""
        asked, gap_asked = self._asked.get(gap.asked), gap.asked
        gap.asked = ""
        if asked is not None:
            asked.authors.pop(author, None)
            if not asked.authors:
                del self._asked[gap_asked]
