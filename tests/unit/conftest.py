"""The node in small that client and command are tested against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from small_node import SmallNode


@pytest.fixture
def node() -> Iterator[SmallNode]:
    from small_node import SmallNode

    running = SmallNode()
    yield running
    running.close()
