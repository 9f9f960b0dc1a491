"""A host's rules as its config has them, for the jobs machine; and what time of the day it is here."""

from __future__ import annotations

import time

from offgrid_node.config import Config
from offgrid_node.config.fields import minutes_of
from offgrid_node.protocol.jobs.settings import Rule


def rules_of(config: Config) -> tuple[Rule, ...]:
    """In their order."""
    host = config.host
    return tuple(
        Rule(
            rule.name,
            rule.owners,
            rule.executors,
            host.price_micro if rule.price_micro < 0 else rule.price_micro,
            rule.slots,
            minutes_of(rule.hours),
            rule.tokens_per_day,
            rule.jobs_per_day,
            rule.deny,
        )
        for rule in host.rules
    )


def local_offset_s(utc_s: int) -> int:
    """Seconds that this machine's local time is ahead of UTC at an instant; a clock beyond all calendars is in UTC."""
    try:
        return time.localtime(utc_s).tm_gmtoff
    except (OverflowError, OSError, ValueError):
        return 0
