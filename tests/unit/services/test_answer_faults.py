"""What a gRPC call ends with, whatever happens in its handler."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from log_lines import lines

from offgrid_node.protocol.errors import NotFound
from offgrid_node.services.grpc_calls import answer_faults


class Aborted(Exception):
    """With this code."""


class Context:
    async def abort_with_status(self, status: Any) -> None:
        raise Aborted(status.code)


def end(error: Exception) -> BaseException:
    async def work() -> None:
        raise error

    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is asked
        asyncio.run(answer_faults("of.Tests/Call", Context(), work()))  # type: ignore[arg-type]
    return caught.value


def test_a_fault_is_the_call_s_status(caplog: pytest.LogCaptureFixture) -> None:
    assert end(NotFound("there is none", reason="NotFound")).args == (grpc.StatusCode.NOT_FOUND,)
    assert not caplog.records


def test_a_defect_is_told_to_the_log_and_not_to_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    assert end(ValueError("secret")).args == (grpc.StatusCode.INTERNAL,)
    assert lines(caplog) == ["an RPC failed event=rpc_failed method=of.Tests/Call"]


def test_a_caller_that_has_gone_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    gone = grpc.aio.InternalError("execute_batch")
    assert end(gone) is gone
    assert not caplog.records
