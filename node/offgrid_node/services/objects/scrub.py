"""A host reads what it keeps for others, again and again, so that a disk's silent faults are found while others still
have what it lost (after Baker et al., "A Fresh Look at the Reliability of Long-term Digital Storage", 2006).

Every shard is checked once a round (`checking.py`). It goes slowly: as fast as a round within so many days takes, and
never above what the disk may give. Where a round stands is remembered nowhere: the next life of this node begins at a
place that chance chooses.
"""

from __future__ import annotations

import logging

import msgspec

from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.rng import Rng
from offgrid_node.services.flow import Flow, Later, run
from offgrid_node.services.objects.checking import Checking

PAUSE_MS = 60_000  # before the first turn, and after one that failed
PAUSE_MS_MAX = 3_600_000  # where little is kept, it is read more often than it must
DAY_MS = 86_400_000

_log = logging.getLogger(__name__)


class Pace(msgspec.Struct, frozen=True):
    """A round takes `days` at most where `bytes_per_s`, which is never exceeded, is enough for it."""

    bytes_per_s: int = 10_000_000
    days: int = 14

    def pause_ms(self, read_bytes: int, kept_bytes: int) -> int:
        """After so many bytes, where so many are kept."""
        least_ms = read_bytes * 1_000 // self.bytes_per_s
        even_ms = read_bytes * self.days * DAY_MS // max(1, kept_bytes)
        return max(least_ms, min(even_ms, PAUSE_MS_MAX))


class Scrub:
    """One turn at a time: some bytes are read in a thread, then it waits."""

    def __init__(self, checking: Checking, later: Later, rng: Rng, pace: Pace) -> None:
        self._checking, self._later, self._pace = checking, later, pace
        self._walk = checking.walk(f"o-{base32(rng.randbytes(5))}".encode())
        self._going = False
        self.rounds = 0

    def start(self) -> None:
        self._going = True
        self._later(PAUSE_MS, self._turn)

    def close(self) -> None:
        self._going = False

    def _turn(self) -> None:
        if self._going:
            run(self._look(), self._ended)

    def _ended(self, pause_ms: int | Fault) -> None:
        if isinstance(pause_ms, Fault):
            _log.warning("kept shards cannot be checked now", extra=fields("scrub_failed", why=pause_ms.message))
            pause_ms = PAUSE_MS
        self._later(pause_ms, self._turn)

    def _look(self) -> Flow[int]:
        """How long to wait for the next turn."""
        turn = yield from self._checking.turn(self._walk)
        if turn.ended:
            self._walk, self.rounds = self._checking.walk(), self.rounds + 1
        if turn.refused is not None:
            raise turn.refused  # the next round reads it again
        return self._pace.pause_ms(turn.cost_bytes, self._checking.cost_bytes())
