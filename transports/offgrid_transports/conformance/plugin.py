"""The option `--transport` of pytest, which finds this module by its entry point."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--transport",
        action="append",
        default=[],
        metavar="DESCRIPTION",
        help="an adapter for offgrid_transports.conformance; twice when its two ends are described differently",
    )
