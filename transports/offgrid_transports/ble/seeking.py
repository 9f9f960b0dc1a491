"""Whom to connect to and how eagerly to look, pure.

Looking costs power, and air that connections need: a node looks with all it has after a start or a loss, and little
when it is settled. Two nodes that see each other do not both connect: who shows the lower hello does so at once, the
other after a while, in case the first does not hear it.
"""

from __future__ import annotations

from collections import OrderedDict
from random import Random

import msgspec

from offgrid_transports.ble.adverts import Sighting
from offgrid_transports.transport import HELLO_MESH_BYTES

BRISK_MS = 30_000
PATIENCE_MS = 700
JITTER_MS = 300
FAMILIAR_MS = 60_000
"""Before a second channel to somebody who shows what a neighbour shows; it may be another, so not never."""
STALE_MS = 2_000  # not seen since: it is gone, or sleeps
RETRY_MS_MIN, RETRY_MS_MAX = 500, 60_000
CANDIDATES_MAX = 64


class Duty(msgspec.Struct, frozen=True):
    """How a radio looks for others and shows itself; 0 is not at all."""

    name: str
    scan_window_ms: float
    scan_interval_ms: float
    advert_interval_ms: float


BRISK = Duty("brisk", 60, 60, 50)
LONELY = Duty("lonely", 60, 600, 300)  # nobody near for long
SETTLED = Duty("settled", 60, 2400, 1000)
FULL = Duty("full", 0, 0, 0)  # no more links


def duty(now_ms: int, brisk_until_ms: int, links: int, links_max: int) -> Duty:
    """How to look now."""
    if links >= links_max:
        return FULL
    if now_ms < brisk_until_ms:
        return BRISK
    return SETTLED if links else LONELY


class Candidate(msgspec.Struct):
    """Somebody who was seen and is not connected."""

    sighting: Sighting
    seen_ms: int
    not_before_ms: int
    failures: int = 0


class Candidates:
    """Who was seen, for a bounded number of addresses, and who is next."""

    def __init__(self, hello: bytes, rng: Random) -> None:
        self.foreign = 0
        """Sightings of other meshes."""
        self._hello = hello
        self._rng = rng
        self._seen: OrderedDict[str, Candidate] = OrderedDict()

    def see(self, now_ms: int, sighting: Sighting, familiar: bool) -> None:
        """Somebody shows itself; `familiar` is a neighbour's hello under another address."""
        hello = sighting.advert.hello
        if hello[:HELLO_MESH_BYTES] != self._hello[:HELLO_MESH_BYTES]:
            self.foreign += 1
            return
        known = self._seen.get(sighting.address)
        if known is None:
            known = Candidate(sighting, now_ms, now_ms + self._patience_ms(hello, familiar))
            self._seen[sighting.address] = known
            if len(self._seen) > CANDIDATES_MAX:
                self._seen.popitem(last=False)
        elif len(known.sighting.advert.hello) < len(hello) and not known.failures:
            known.not_before_ms = now_ms + self._patience_ms(hello, familiar)  # now with its scan response
        known.sighting, known.seen_ms = sighting, now_ms
        self._seen.move_to_end(sighting.address)

    def next(self, now_ms: int, connected: frozenset[str]) -> tuple[Sighting | None, int | None]:
        """Whom to connect to now, the strongest first; otherwise when to ask again, if there is anybody to wait for."""
        ready: list[Sighting] = []
        due: list[int] = []
        for address, candidate in list(self._seen.items()):
            if candidate.seen_ms + STALE_MS < now_ms and candidate.not_before_ms <= now_ms:
                del self._seen[address]
            elif address in connected or candidate.seen_ms + STALE_MS < now_ms:
                continue
            elif candidate.not_before_ms <= now_ms:
                ready.append(candidate.sighting)
            else:
                due.append(candidate.not_before_ms)
        best = max(ready, key=lambda sighting: sighting.rssi_dbm, default=None)
        return best, min(due, default=None)

    def failed(self, now_ms: int, address: str) -> None:
        """A connection did not come about: later, and later each time; and only when it is seen again."""
        candidate = self._seen.get(address)
        if candidate is not None:
            candidate.failures += 1
            candidate.seen_ms = now_ms - STALE_MS - 1
            pause_ms = min(RETRY_MS_MAX, RETRY_MS_MIN << min(candidate.failures - 1, 10))
            candidate.not_before_ms = now_ms + pause_ms + self._rng.randint(0, pause_ms // 2)

    def forget(self, address: str, hello: bytes) -> None:
        """Who was at that address, or shows that hello, is connected or lost: when it is seen again it is as new, under
        another address as well."""
        for other, candidate in list(self._seen.items()):
            shown = candidate.sighting.advert.hello
            if other == address or (_names_somebody(shown) and hello.startswith(shown)):
                del self._seen[other]

    def clear(self) -> None:
        """The radio is another one."""
        self._seen.clear()

    def __len__(self) -> int:
        return len(self._seen)

    def _patience_ms(self, hello: bytes, familiar: bool) -> int:
        if familiar and _names_somebody(hello):
            return FAMILIAR_MS
        if self._hello < hello:
            return 0
        return (PATIENCE_MS if hello < self._hello else 0) + self._rng.randint(0, JITTER_MS)


def _names_somebody(hello: bytes) -> bool:
    return len(hello) > HELLO_MESH_BYTES
