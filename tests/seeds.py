"""Seeds of a test: a few in `test`, many more by `soak tests`."""

from __future__ import annotations

from typing import Any

import pytest


def seeds(few: int, many: int = 100) -> list[Any]:
    """To parametrize with: the first `few` are always run."""
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(few, many))]
