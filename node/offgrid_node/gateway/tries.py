"""What guessing a secret costs, by the address that it comes from. Pure and bounded; times are milliseconds of a clock
that only goes forwards. A wrong try costs its address one of ITS tries, one of which comes back every TRY_BACK_MS."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from contextlib import suppress

TRIES_MAX, TRY_BACK_MS = 10, 6_000
ADDRESSES_MAX = 4_096


class Tries:
    """Of one secret."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[int, int]] = OrderedDict()  # address → tries that are left, as of when

    def wait_ms(self, peer: str, now_ms: int) -> int:
        """For how long `peer` may not try, whatever it brings; 0: it may."""
        left, since_ms = self._tries_left(site_of(peer), now_ms)
        return 0 if left else since_ms + TRY_BACK_MS - now_ms

    def count_wrong(self, peer: str, now_ms: int) -> None:
        site = site_of(peer)
        left, since_ms = self._tries_left(site, now_ms)
        self._left[site] = max(0, left - 1), since_ms
        self._left.move_to_end(site)
        if len(self._left) > ADDRESSES_MAX:
            self._left.popitem(last=False)

    def _tries_left(self, site: str, now_ms: int) -> tuple[int, int]:
        """And since when the next one is on its way back."""
        left, since_ms = self._left.get(site, (TRIES_MAX, now_ms))
        back = (now_ms - since_ms) // TRY_BACK_MS
        if left + back >= TRIES_MAX:
            return TRIES_MAX, now_ms
        return left + back, since_ms + back * TRY_BACK_MS


def site_of(peer: str) -> str:
    """The address, or of IPv6 the network that one machine commonly has for itself."""
    with suppress(ValueError):
        address = ipaddress.ip_address(peer)
        if isinstance(address, ipaddress.IPv6Address):
            return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))
    return peer
