"""Chance that a seed brings back."""

from __future__ import annotations

from random import Random


def chance(seed: str) -> Random:
    """The same numbers for the same text."""
    return Random(seed)  # noqa: S311 - misfortune needs no secrecy
