"""Who asks by the prototype's paths: counted, and named in the log once by address and path, so that its owner can tell
when the last old client is gone, and find the others."""

from __future__ import annotations

import logging
from collections import OrderedDict

from offgrid_node.logs import fields
from offgrid_node.meters.http import HttpMeters

KNOWN_MAX = 256  # the one that was silent for longest is forgotten, and named again

_log = logging.getLogger(__name__)


class OldClients:
    """Of one gateway."""

    def __init__(self, meters: HttpMeters) -> None:
        self._meters = meters
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def on_request(self, method: str, route: str, client: str, at_s: float) -> None:
        """`client` is an address, `at_s` seconds since 1970."""
        self._meters.on_old_path(method, route, at_s)
        key = (client, route)
        if key not in self._known:
            said = fields("old_path_used", client=client, method=method, path=route)
            _log.info("a client asks by a path of the prototype's", extra=said)
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
