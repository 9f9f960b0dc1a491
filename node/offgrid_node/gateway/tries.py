"""What guessing a secret costs, by the address that it comes from. Bounded, and pure but for a line in the log; times
are milliseconds of a clock that only goes forwards. A wrong try costs its address one of ITS tries, one of which comes
back every TRY_BACK_MS."""

from __future__ import annotations

import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from offgrid_node.logs import fields

_log = logging.getLogger(__name__)

TRIES_MAX, TRY_BACK_MS = 10, 6_000
ADDRESSES_MAX = 4_096


class Tries:
    """Of one secret."""

    def __init__(self, on_last: Callable[[str], None] = lambda site: None) -> None:
        """`on_last` is told whose last try was wrong."""
        self._on_last = on_last
        self._left: OrderedDict[str, tuple[int, int]] = OrderedDict()  # address → tries that are left, as of when

    def wait_ms(self, peer: str, now_ms: int) -> int:
        """For how long `peer` may not try, whatever it brings; 0: it may."""
        left, since_ms = self._tries_left(site_of(peer), now_ms)
        return 0 if left else since_ms + TRY_BACK_MS - now_ms

    def count_wrong(self, peer: str, now_ms: int) -> None:
        site = site_of(peer)
        left, since_ms = self._tries_left(site, now_ms)
        self._left[site] = max(0, left - 1), since_ms
        if left == 1:
            self._on_last(site)
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


def log_last_try(of: str, site: str) -> None:
    said = fields("tries_used_up", of=of, address=site)
    _log.warning("too many wrong tries came from one address: it has to wait", extra=said)


def site_of(peer: str) -> str:
    """The address, or of IPv6 the network that one machine commonly has for itself."""
    with suppress(ValueError):
        address = ipaddress.ip_address(peer)
        if isinstance(address, ipaddress.IPv6Address):
            return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))
    return peer
