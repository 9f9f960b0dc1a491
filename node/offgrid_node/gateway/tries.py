"""What guessing a secret costs, by the address that it comes from. Pure and bounded; times are milliseconds of a clock
that only goes forwards. A wrong try costs its address one of ITS tries, one of which comes back every TRY_BACK_MS."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

TRIES_MAX, TRY_BACK_MS = 10, 6_000
ADDRESSES_MAX = 4_096


class _Left(NamedTuple):
    """Tries, as of when, and whether they were used up since they were all there."""

    tries: int
    since_ms: int
    were_used_up: bool


class Tries:
    """Of one secret."""

    def __init__(self, on_last: Callable[[str], None] = lambda site: None) -> None:
        """`on_last` is told whose last try was wrong; once, until all of an address' tries are back."""
        self._on_last = on_last
        self._left: OrderedDict[str, _Left] = OrderedDict()  # by address

    def wait_ms(self, peer: str, now_ms: int) -> int:
        """For how long `peer` may not try, whatever it brings; 0: it may."""
        left = self._tries_left(site_of(peer), now_ms)
        return 0 if left.tries else left.since_ms + TRY_BACK_MS - now_ms

    def count_wrong(self, peer: str, now_ms: int) -> None:
        site = site_of(peer)
        tries, since_ms, were_used_up = self._tries_left(site, now_ms)
        self._left[site] = _Left(max(0, tries - 1), since_ms, were_used_up or tries <= 1)
        if tries == 1 and not were_used_up:
            self._on_last(site)
        self._left.move_to_end(site)
        if len(self._left) > ADDRESSES_MAX:
            self._left.popitem(last=False)

    def _tries_left(self, site: str, now_ms: int) -> _Left:
        """Since when the next one is on its way back."""
        all_left = _Left(TRIES_MAX, now_ms, were_used_up=False)
        left = self._left.get(site, all_left)
        back = (now_ms - left.since_ms) // TRY_BACK_MS
        if left.tries + back >= TRIES_MAX:
            return all_left
        return _Left(left.tries + back, left.since_ms + back * TRY_BACK_MS, left.were_used_up)


def site_of(peer: str) -> str:
    """The address, or of IPv6 the network that one machine commonly has for itself."""
    with suppress(ValueError):
        address = ipaddress.ip_address(peer)
        if isinstance(address, ipaddress.IPv6Address):
            return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))
    return peer
