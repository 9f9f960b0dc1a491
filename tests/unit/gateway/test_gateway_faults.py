"""Which status of HTTP an error has, as google.rpc.Code says, and what its answer carries."""

from __future__ import annotations

import json

import pytest

from offgrid_node.gateway.faults import DEFECT, Refusal, fault_response
from offgrid_node.protocol import errors
from offgrid_node.protocol.errors import Exhausted, Fault

CODES = {
    errors.InvalidRequest: (400, "INVALID_ARGUMENT"),
    errors.FailedPrecondition: (400, "FAILED_PRECONDITION"),
    errors.PermissionDenied: (403, "PERMISSION_DENIED"),
    errors.NotFound: (404, "NOT_FOUND"),
    errors.Exhausted: (429, "RESOURCE_EXHAUSTED"),
    errors.Internal: (500, "INTERNAL"),
    errors.Corrupt: (500, "DATA_LOSS"),
    errors.Unavailable: (503, "UNAVAILABLE"),
}


@pytest.mark.parametrize("kind", CODES)
def test_each_fault_has_its_status(kind: type[Fault]) -> None:
    answer = fault_response(kind("it is so", reason="ItIsSo"))
    error = json.loads(bytes(answer.body))["error"]
    assert (answer.status_code, error["code"], error["status"]) == (CODES[kind][0], *CODES[kind])
    assert (error["message"], error["details"][0]["reason"]) == ("it is so", "ItIsSo")


def test_what_is_too_large_and_what_waiting_helps_say_so_in_http_too() -> None:
    assert fault_response(Exhausted("too large", reason="RequestTooLarge")).status_code == 413
    later = fault_response(Exhausted("later", reason="QueueFull", retry_ms=1_001))
    assert later.headers["retry-after"] == "2"
    assert "retry-after" not in fault_response(Exhausted("full", reason="DiskFull")).headers


@pytest.mark.parametrize(
    ("code", "status"),
    [(401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (404, "NOT_FOUND"), (405, "UNIMPLEMENTED"),
     (408, "DEADLINE_EXCEEDED"), (413, "RESOURCE_EXHAUSTED"), (429, "RESOURCE_EXHAUSTED"), (503, "UNAVAILABLE"),
     (400, "INVALID_ARGUMENT"), (415, "INVALID_ARGUMENT")],
)  # fmt: skip
def test_what_no_handler_sees_has_the_same_shape(code: int, status: str) -> None:
    error = json.loads(Refusal(code, "Refused", "no").body)["error"]
    assert (error["code"], error["status"], error["details"][0]["reason"]) == (code, status, "Refused")


def test_a_defect_tells_nothing_of_itself_and_ends_the_connection() -> None:
    answer = DEFECT.response
    assert (answer.status_code, answer.headers["connection"]) == (500, "close")
