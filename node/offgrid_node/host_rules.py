"""A host's rules as its config has them, for the jobs machine; and what time of the day it is here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from offgrid_node.config.hours import minutes_of
from offgrid_node.protocol.jobs.settings import Rule

if TYPE_CHECKING:
    from offgrid_node.config import Config

# What a host's slots are for, when its language models have slots of their own.
NOT_MODELS = ("builtin:*", "wasm", "process:*", "python:*", "dask:*")


def rules_of(config: Config) -> tuple[Rule, ...]:
    """In their order. An owner who gives none, but fewer slots to an endpoint of language models than to the host, gets
    two: what is not taken needs not wait here for the endpoint."""
    host = config.host
    if not host.rules and host.llm.endpoint and host.llm.slots < host.slots:
        return (
            Rule("llm", executors=("llm:*",), price_micro=host.price_micro, slots=host.llm.slots),
            Rule("default", executors=NOT_MODELS, price_micro=host.price_micro, slots=host.slots),
        )
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
