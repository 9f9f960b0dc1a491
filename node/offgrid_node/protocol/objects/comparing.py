"""When an owner asks its hosts whether they still keep what they acked, and what follows from the answers.

It asks a host that comes up, if that has ever acked anything or may have, once that has named its life
(`measuring.py`), which it names anew when it has begun anew, or after a moment without; and each living one now and
then, whatever it knows of it: a store that somebody put back may not know that it is an old one. What a host has lost
(a disk, or a backup restored that is older than the ack) does not count any more, so it is brought again. What it keeps
and should not it is told to drop, but only on evidence (`strays.py`): that this node knows nothing of an object may as
well be this node's own loss, and one that was restored takes it back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.objects.commands import Compared
from offgrid_node.protocol.objects.errands import Compare
from offgrid_node.protocol.objects.inventory import Holding, Inventory
from offgrid_node.protocol.objects.measuring import ASK_TIMEOUT_MS, FIRST_MS_MAX
from offgrid_node.protocol.pace import Paces, all_free

COMPARING_MAX = 4  # hosts at once: each difference is worked out in memory
AGAIN_MS, RETRY_MS = 3_600_000, 60_000  # after one that failed: doubled with each that follows, up to AGAIN_MS
REPORT_GAP_MS = 10_000  # after a comparison, whatever the host reports; doubled with each that finds a loss again
RELAPSE_MS = 6 * AGAIN_MS  # without a loss; then what a host lost before is forgotten, not once it is sound for a while
UNNAMED_MS = FIRST_MS_MAX + ASK_TIMEOUT_MS  # for a host that comes up and does not name its life
COMPARE_BYTES = 600  # where nothing is different
TAKEN_MAX = 64  # losses and strays that one step works on

Lose = Callable[[str, Holding, Now], None]
"""A host has lost an item."""
Stray = Callable[[str, Holding, Now], bool]
"""A host keeps an item unasked. Whether it had better be asked for that again soon."""


class _Relapses(msgspec.Struct):
    """How many comparisons found something lost, none of them long after the one before."""

    times: int = 0
    last_ms: int = 0


class Comparing:
    """`lose` is told of what a host has lost, `stray` of what it keeps unasked."""

    def __init__(
        self,
        draft: Draft,
        given: Inventory,
        lose: Lose,
        stray: Stray,
        is_drained: Callable[[str], bool],
        forgets: Callable[[], bool],
        paces: Paces = all_free,
    ) -> None:
        """`forgets`: whether this node was restored, so that a host may keep something that it knows nothing of."""
        self._paces = paces
        self._draft, self._given, self._lose, self._stray = draft, given, lose, stray
        self._is_drained, self._forgets = is_drained, forgets
        self._due: dict[str, int] = {}  # living hosts, and when each is asked next
        self._rests: dict[str, int] = {}  # of those, until when each is left alone, whatever it reports
        self._reported: set[str] = set()  # who has lost something since the comparison that is under way began
        self._retries: dict[str, int] = {}  # of those whose last comparison failed: how long they wait after the next
        self._relapses: dict[str, _Relapses] = {}  # of those that lost something of late; of dead ones too
        self._unsettled: dict[str, int] = {}  # of those that keep strays: how soon they are asked again for these
        self._under_way: set[str] = set()
        self._passed: set[str] = set()  # living hosts that were not asked when they were to be, as they acked nothing
        self._sure: set[str] = set()  # living hosts of whose losses this node knows, by a comparison since they came up
        self._found: deque[tuple[str, Holding | None, bool]] = deque()  # host, item, whether it is lost; None: no more
        self._ending: set[str] = set()  # hosts of which that end is among them

    def deadline_ms(self, now_ms: int) -> int | None:
        """`now_ms` is the last step's instant."""
        if self._found:
            return now_ms
        idle = (due_ms for node, due_ms in self._due.items() if node not in self._under_way)
        return min(idle, default=None) if len(self._under_way) < COMPARING_MAX else None

    def is_sure(self, node_id: str) -> bool:
        """Whether the host is alive and keeps what it has acked, as far as it says."""
        return node_id in self._sure

    def on_up(self, node_id: str, now: Now) -> None:
        self._due[node_id] = now.mono_ms + UNNAMED_MS
        self._rests.pop(node_id, None)
        self._doubt(node_id)

    def on_down(self, node_id: str) -> None:
        self._due.pop(node_id, None)
        self._rests.pop(node_id, None)
        self._retries.pop(node_id, None)
        self._reported.discard(node_id)
        self._doubt(node_id)

    def on_reported(self, node_id: str, now: Now) -> None:
        """The host has lost something, it says, or may have before the life that it names: it is asked sooner."""
        self._doubt(node_id)
        if node_id in self._under_way:
            self._reported.add(node_id)
        elif node_id in self._due:
            self._due[node_id] = min(self._due[node_id], max(now.mono_ms, self._rests.get(node_id, 0)))

    def _doubt(self, node_id: str) -> None:
        """Nor does a comparison of before make it sure, of which not all is worked on yet."""
        self._sure.discard(node_id)
        self._passed.discard(node_id)
        if node_id in self._ending:
            self._ending.discard(node_id)
            self._found = deque(each for each in self._found if each != (node_id, None, True))

    def on_compared(self, event: Compared, now: Now) -> None:
        self._under_way.discard(event.node)
        gap_ms = self._gap_ms(event, now)
        if event.strays:
            self._unsettled[event.node] = min(2 * self._unsettled.get(event.node, RETRY_MS // 2), AGAIN_MS)
        elif event.fault is None:
            self._unsettled.pop(event.node, None)
        if event.node in self._due:
            later_ms = gap_ms if event.node in self._reported else AGAIN_MS
            if event.fault is not None:
                later_ms = self._retries.get(event.node, RETRY_MS)
                self._retries[event.node] = min(2 * later_ms, AGAIN_MS)
            else:
                self._retries.pop(event.node, None)
            later_ms = max(later_ms, self._paces(event.node).apart_ms(COMPARE_BYTES))
            self._due[event.node] = now.mono_ms + later_ms
            self._rests[event.node] = now.mono_ms + gap_ms
        self._found.extend((event.node, holding, True) for holding in event.lost)
        if event.fault is None and event.node in self._due and event.node not in self._reported:
            self._found.append((event.node, None, True))
            self._ending.add(event.node)
        self._reported.discard(event.node)
        self._found.extend((event.node, holding, False) for holding in event.strays)

    def _gap_ms(self, event: Compared, now: Now) -> int:
        """A host that has lost something again and again, and is brought it again, is asked less and less often: each
        time costs epochs, and others the bytes."""
        relapses = self._relapses.get(event.node)
        if relapses is not None and now.mono_ms - relapses.last_ms >= RELAPSE_MS:
            del self._relapses[event.node]
        if event.lost:
            relapses = self._relapses.setdefault(event.node, _Relapses())
            relapses.times, relapses.last_ms = relapses.times + 1, now.mono_ms
        times = self._relapses[event.node].times if event.node in self._relapses else 0
        return min(REPORT_GAP_MS << min(16, max(0, times - 1)), AGAIN_MS)

    def close_step(self, now: Now) -> None:
        for _ in range(min(TAKEN_MAX, len(self._found))):
            node_id, holding, lost = self._found.popleft()
            if holding is None:
                self._ending.discard(node_id)
                if node_id in self._due:
                    self._sure.add(node_id)
            elif not lost:
                if self._stray(node_id, holding, now) and node_id in self._due:
                    soon_ms = now.mono_ms + self._unsettled.get(node_id, AGAIN_MS)
                    self._due[node_id] = min(self._due[node_id], soon_ms)
            elif self._given.has(node_id, holding):  # else another ack has come, or it is deleted
                self._lose(node_id, holding, now)
        for node_id, due_ms in self._due.items():
            if len(self._under_way) >= COMPARING_MAX:
                return
            if due_ms > now.mono_ms or node_id in self._under_way:
                continue
            may_keep = self._given.knows(node_id) or self._is_drained(node_id) or self._forgets()
            if may_keep or node_id in self._passed:
                self._under_way.add(node_id)
                self._draft.send(Compare(node_id))
            else:  # there is nothing to find, unless this node has forgotten it
                self._passed.add(node_id)
                self._due[node_id] = now.mono_ms + AGAIN_MS
                self._sure.add(node_id)  # whatever it acks from now on
