"""The log's line of an address whose last try was wrong."""

from __future__ import annotations

import logging

from offgrid_node.logs import fields

_log = logging.getLogger(__name__)


def log_last_try(of: str, site: str) -> None:
    said = fields("tries_used_up", of=of, address=site)
    _log.warning("too many wrong tries came from one address: it has to wait", extra=said)
