"""What went wrong as an HTTP answer: {"error": {"code", "status", "message", "details"}} (AIP-193).

Faults of handlers map by the standard mapping of google.rpc.Code; what HTTP itself refuses (405, 408, 413, …) is a
`Refusal`. Details are ErrorInfo, BadRequest and RetryInfo with their "@type", as protobuf's JSON has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Any

import msgspec
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from starlette.responses import Response

from offgrid_node.protocol.errors import Fault
from offgrid_node.services.status import DOMAIN, status_of

JSON = "application/json"
HTTP_CODES: Mapping[int, int] = {
    code_pb2.CANCELLED: 499,
    code_pb2.UNKNOWN: 504,  # our OutcomeUnknown: no answer came. Others give 500, which is for defects
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
}
_CODES_BY_REASON = {"RequestTooLarge": HTTPStatus.REQUEST_ENTITY_TOO_LARGE}
_STATUSES: Mapping[int, int] = {
    HTTPStatus.UNAUTHORIZED: code_pb2.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: code_pb2.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: code_pb2.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: code_pb2.UNIMPLEMENTED,
    HTTPStatus.REQUEST_TIMEOUT: code_pb2.DEADLINE_EXCEEDED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: code_pb2.RESOURCE_EXHAUSTED,
    HTTPStatus.TOO_MANY_REQUESTS: code_pb2.RESOURCE_EXHAUSTED,
    HTTPStatus.INTERNAL_SERVER_ERROR: code_pb2.INTERNAL,
    HTTPStatus.NOT_IMPLEMENTED: code_pb2.UNIMPLEMENTED,
    HTTPStatus.SERVICE_UNAVAILABLE: code_pb2.UNAVAILABLE,
}

Headers = tuple[tuple[str, str], ...]


class Refusal(msgspec.Struct, frozen=True):
    """A request that no handler sees: status code, a word for programs, a sentence for people, further headers."""

    code: int
    reason: str
    message: str
    headers: Headers = ()

    @property
    def body(self) -> bytes:
        status = status_pb2.Status(code=_STATUSES.get(self.code, code_pb2.INVALID_ARGUMENT), message=self.message)
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN))
        return json_of_status(self.code, status)

    @property
    def response(self) -> Response:
        return Response(self.body, self.code, dict(self.headers), JSON)


DEFECT = Refusal(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "Internal",
    "a defect of this node, its log says more",
    (("Connection", "close"),),
)


def json_of_status(code: int, status: status_pb2.Status) -> bytes:
    """The body of an error, a line of JSON."""
    return json.dumps({"error": _error(code, status)}, ensure_ascii=False).encode() + b"\n"


def error_of(fault: Fault) -> dict[str, Any]:
    """What stands behind "error"."""
    status = status_of(fault)
    return _error(_code(fault, status), status)


def _error(code: int, status: status_pb2.Status) -> dict[str, Any]:
    details = json_format.MessageToDict(status).get("details", [])
    name = code_pb2.Code.Name(status.code)
    return {"code": code, "status": name, "message": status.message, "details": details}


def fault_response(fault: Fault) -> Response:
    """The answer to a request that ended with `fault`; Retry-After where waiting helps."""
    status = status_of(fault)
    code = _code(fault, status)
    headers = {} if fault.retry_ms is None else {"Retry-After": str(ceil(fault.retry_ms / 1000))}
    return Response(json_of_status(code, status), code, headers, JSON)


def _code(fault: Fault, status: status_pb2.Status) -> int:
    return _CODES_BY_REASON.get(fault.reason, HTTP_CODES[status.code])
