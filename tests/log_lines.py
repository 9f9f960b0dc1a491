"""The log as people read it, for tests of what it says."""

from __future__ import annotations

import pytest

from offgrid_node.logs import TextLines


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Each record's sentence and facts, without time, level, logger and traceback."""
    return [TextLines().format(record).partition("\n")[0].partition(f"{record.name}: ")[2] for record in caplog.records]
