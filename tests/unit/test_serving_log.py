"""What a node's log leaves out: gRPC's traceback for an answer that nobody waits for, and nothing else of gRPC's."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from offgrid_node.serving import hide_broken_off


@pytest.fixture
def grpc_log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("grpc._cython.cygrpc")
    logger.addFilter(hide_broken_off)
    yield logger
    logger.removeFilter(hide_broken_off)


def test_a_call_that_broke_off_is_not_logged(grpc_log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    grpc_log.error("ExecuteBatchError raised in core by servicer method [/offgrid.v1.MeshService/PingVia]")
    grpc_log.error("ExecuteBatchError raised in core by servicer method [%s]", b"/offgrid.v1.MeshService/PingVia")
    assert not caplog.records


def test_whatever_else_goes_wrong_in_grpc_is(grpc_log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    grpc_log.error("Unexpected [ValueError] raised by servicer method [/offgrid.v1.MeshService/PingVia]")
    grpc_log.error(other := ValueError("something of a new kind"))
    assert [record.msg for record in caplog.records][1] is other
    assert len(caplog.records) == 2
