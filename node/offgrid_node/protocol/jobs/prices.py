"""What a job costs: prices are per million tokens of its size, in millionths of a credit."""

from __future__ import annotations

from offgrid_node.protocol.jobs.bounds import PRICE_MAX


def price_of(price_micro_per_million: int, size_tokens: int) -> int:
    """What a job of this size costs at that price, rounded up, in millionths; PRICE_MAX at most."""
    return min(PRICE_MAX, -(-price_micro_per_million * size_tokens // 1_000_000))
