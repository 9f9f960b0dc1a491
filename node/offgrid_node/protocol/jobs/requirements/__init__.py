"""What a job asks of a host beyond its executor: a small, typed expression over the host's profile.

    memory_mb >= 4096 and gpu.count > 0 and label.room in ["barn", "attic"]

docs/requirements.md is its manual. The same text is checked where a job comes in, matched by brokers and asked again by
the host. Parsed and compiled once for each class of jobs; it reads a profile and nothing else, and it always ends.
"""

from __future__ import annotations

from functools import lru_cache

from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.requirements.parser import parse_tree
from offgrid_node.protocol.jobs.requirements.requirement import Requirement

PARSED_REMEMBERED = 256  # texts; a core's jobs, and a host's orders, mostly say the same few


def parse(text: str, field: str = "requirements") -> Requirement:
    """Raises InvalidRequest that says where in `field` the text goes wrong and what is allowed there; nothing else."""
    try:
        return _parsed(text)
    except InvalidRequest:
        return Requirement(parse_tree(text, field))  # which says it of the caller's field


@lru_cache(maxsize=PARSED_REMEMBERED)
def _parsed(text: str) -> Requirement:
    """By the text alone: one call may name it in as many fields as it has orders."""
    return Requirement(parse_tree(text, "requirements"))


__all__ = ["Requirement", "parse"]
