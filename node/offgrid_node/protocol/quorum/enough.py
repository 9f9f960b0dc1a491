"""The one rule of what is enough: storage asks it of acks, the ledger of votes and confirms.

Weights are integer thousandths; a node counts once, and whoever is not named counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def weight_of(signers: Iterable[str], weights: Mapping[str, int]) -> int:
    """The weight of all who signed, in thousandths."""
    return sum(weights.get(node, 0) for node in set(signers))


def enough(signers: Iterable[str], weights: Mapping[str, int], required_milli: int) -> bool:
    """Whether those who signed weigh what is required."""
    return weight_of(signers, weights) >= required_milli


def byzantine_quorum(weights: Mapping[str, int]) -> int:
    """More than two thirds: any two such quorums share more than a third (FastPay, `committee.rs`)."""
    return 2 * sum(weights.values()) // 3 + 1


def decimal(milli: int) -> str:
    """A weight for people: 2000 → "2.0"."""
    whole, rest = divmod(milli, 1000)
    return f"{whole}.{f'{rest:03d}'.rstrip('0') or '0'}"
