"""Whom a node hears itself, and where: forgotten in time, and bounded.

A hop is two bytes long, so several neighbours may share one; those who have said their names are told apart by them.
What was said with a MAC alone may be a recording, and of anybody. Proof is a beacon that is newer than the last one, or
an answer to a question of just now: who has proved where it is gives way to nobody who has not.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import msgspec

from offgrid_transports.path import Path
from offgrid_transports.relay.frames import NAME_BYTES, hop_of

NEIGHBOURS_MAX = 256
PLACES_MAX = 8  # of those who share a hop
PROVED_MAX = 512  # paths where somebody is known to be
NEIGHBOUR_MS = 1_800_000.0


class _Place(msgspec.Struct):
    """`proved_ms`: until then the neighbour is known to be there."""

    heard_ms: float
    proved_ms: float = -math.inf


_Places = dict[tuple[Path, bytes], _Place]
"""By path and name; that is empty until it is said."""


class Neighbours:
    """`who` is a hop, or a whole name."""

    def __init__(self) -> None:
        self._heard: OrderedDict[bytes, _Places] = OrderedDict()  # by hop
        self._proved: OrderedDict[Path, float] = OrderedDict()  # until when somebody is known to be there

    def __len__(self) -> int:
        return len(self._heard)

    def on_heard(self, now_ms: float, who: bytes, path: Path, proof_ms: float = 0.0) -> None:
        """`proof_ms`: so long it is proved to be there; 0 for no proof."""
        hop, name = hop_of(who), who if len(who) == NAME_BYTES else b""
        places = self._heard.get(hop)
        if places is None:
            if len(self._heard) >= NEIGHBOURS_MAX and not self._make_room(now_ms, proved=proof_ms > 0):
                return
            places = self._heard[hop] = {}
        keys = [(path, name)] if name else [key for key in places if key[0] == path] or [(path, name)]
        for key in keys:
            place = places.pop(key, None) or places.pop((path, b""), None) or _Place(now_ms)
            place.heard_ms = now_ms
            if proof_ms:
                place.proved_ms = max(place.proved_ms, now_ms + proof_ms)
            places[key] = place
        if proof_ms:
            self._proved[path] = max(self._proved.pop(path, -math.inf), now_ms + proof_ms)
            if len(self._proved) > PROVED_MAX:
                self._proved.popitem(last=False)
        self._heard.move_to_end(hop)
        if len(places) > PLACES_MAX:
            del places[next((key for key in places if places[key].proved_ms <= now_ms), next(iter(places)))]

    def on_again(self, now_ms: float, who: bytes, path: Path) -> None:
        """Perhaps it was heard: anybody may have said this."""
        for (where, _), place in self._heard.get(hop_of(who), {}).items():
            if where == path:
                place.heard_ms = now_ms

    def path(self, now_ms: float, who: bytes) -> Path | None:
        """The quickest of those where it was heard lately, on links that are up; of those with proof, if there are."""
        found = [
            (place.proved_ms <= now_ms, path.transport.airtime_ms(min(100, path.frame_bytes)), path)
            for (path, name), place in reversed(self._heard.get(hop_of(who), {}).items())  # of equals the last one
            if place.heard_ms + NEIGHBOUR_MS > now_ms and path.transport.up and _may_be(name, who)
        ]
        return min(found, key=lambda each: each[:2])[2] if found else None

    def proved(self, now_ms: float, who: bytes, path: Path) -> bool:
        """It is known to be there, and not only said."""
        places = self._heard.get(hop_of(who), {})
        return any(where == path and place.proved_ms > now_ms for (where, _), place in places.items())

    def has_proved(self, now_ms: float, path: Path) -> bool:
        """Somebody is known to be there."""
        return self._proved.get(path, -math.inf) > now_ms

    def lost(self, who: bytes, path: Path) -> None:
        """Nobody answers there any more."""
        places = self._heard.get(hop_of(who), {})
        for key in [key for key in places if key[0] == path and _may_be(key[1], who)]:
            del places[key]
        if not places:
            self._heard.pop(hop_of(who), None)
        if path in self._proved:
            known = (place for places in self._heard.values() for (where, _), place in places.items() if where == path)
            self._proved[path] = max((place.proved_ms for place in known), default=-math.inf)

    def is_near(self, now_ms: float, name: bytes) -> bool:
        """That very node was heard."""
        known = any(said == name for _, said in self._heard.get(hop_of(name), {}))
        return known and self.path(now_ms, name) is not None

    def _make_room(self, now_ms: float, *, proved: bool) -> bool:
        """For somebody new, in the place of whom was heard longest ago."""
        unproved = (hop for hop, places in self._heard.items() if all(p.proved_ms <= now_ms for p in places.values()))
        oldest = next(unproved, next(iter(self._heard)) if proved else None)
        if oldest is None:
            return False
        del self._heard[oldest]
        return True


def _may_be(name: bytes, who: bytes) -> bool:
    """The neighbour that is so called, as far as it has said."""
    return name[: len(who)] in (who, b"")
