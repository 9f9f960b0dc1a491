"""Hops on ways that brought no word, passed over for a while: twice as long each time, and forgotten when all is well.

Which hop of a way has dropped what it should hand on its end cannot know, so it suspects them all. None is shut out: of
two ways the one with fewer of them is taken, and the only one there is is tried again. Where nobody finds the other end
then, it was that one which is away, and nothing is held against the hops.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

SHUNNED_MAX = 256
SHUN_MS_MIN, SHUN_MS_MAX = 30_000.0, 3_600_000.0
MEMORY = 4  # times as long as it was passed over the last time is remembered
AVOIDED_MAX = 3  # that a question names


class _Shun(NamedTuple):
    failed_ms: float
    until_ms: float
    wait_ms: float
    name: bytes  # of the other end of the way that failed
    before: _Shun | None  # what was held against it apart from that


class Shunned:
    """By hop. One too many takes the place of the one that failed longest ago."""

    def __init__(self) -> None:
        self._hops: OrderedDict[bytes, _Shun] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hops)

    def failed(self, now_ms: float, hops: tuple[bytes, ...], name: bytes = b"") -> None:
        """A way over them did, to `name` if that may be away itself. Several that fail together count once."""
        for hop in hops:
            before, wait_ms = self._hops.pop(hop, None), SHUN_MS_MIN
            if before is not None and now_ms < before.until_ms + MEMORY * before.wait_ms:
                again = now_ms >= before.until_ms
                wait_ms = min(2 * before.wait_ms, SHUN_MS_MAX) if again else before.wait_ms
            if before is not None:
                before = before.before if name and before.name == name else before._replace(before=None)
            self._hops[hop] = _Shun(now_ms, now_ms + wait_ms, wait_ms, name, before)
        while len(self._hops) > SHUNNED_MAX:
            self._hops.popitem(last=False)

    def absolve(self, name: bytes) -> None:
        """Nobody finds that one: ways there failed by no hop's fault."""
        for hop, shun in [(hop, shun) for hop, shun in self._hops.items() if shun.name == name]:
            if shun.before is None:
                del self._hops[hop]
            else:
                self._hops[hop] = shun.before

    def proved(self, now_ms: float, hops: tuple[bytes, ...]) -> None:
        """Word came over them: none of them is passed over any more, and half of what was held against it is gone."""
        for hop in hops:
            shun = self._hops.pop(hop, None)
            if shun is not None and shun.wait_ms > SHUN_MS_MIN:
                until_ms, wait_ms = min(now_ms, shun.until_ms), shun.wait_ms / 2
                self._hops[hop] = _Shun(shun.failed_ms, until_ms, wait_ms, b"", None)

    def has(self, now_ms: float, hop: bytes) -> bool:
        """It is passed over now."""
        shun = self._hops.get(hop)
        return shun is not None and now_ms < shun.until_ms

    def all(self, now_ms: float) -> frozenset[bytes]:
        return frozenset(hop for hop, shun in self._hops.items() if now_ms < shun.until_ms)

    def worst(self, now_ms: float) -> tuple[bytes, ...]:
        """As many as a question names: those that failed most often, and of these the last ones."""
        shunned = [(shun.wait_ms, shun.failed_ms, hop) for hop, shun in self._hops.items() if now_ms < shun.until_ms]
        return tuple(hop for _, _, hop in sorted(shunned, reverse=True)[:AVOIDED_MAX])
