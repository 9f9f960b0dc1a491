"""What every carrier needs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """One whose path leaves room for a socket's name, which may have 103 bytes."""
    made = Path(tempfile.mkdtemp(prefix="og"))
    yield made
    shutil.rmtree(made)
