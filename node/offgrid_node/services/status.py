"""Faults as `google.rpc.Status` and back, for every carrier: the one place that knows both (AIP-193).

Every error carries ErrorInfo(reason, domain "offgrid", metadata), BadRequest when fields were wrong and RetryInfo when
waiting helps. On the way back an answer that carries our ErrorInfo is what the other node said; anything else was made
by a carrier, which knows less: once a request has left, a broken, cancelled or late call says nothing about whether it
was carried out. So `Unavailable`, which promises that nothing was done, needs the caller's word that nothing was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from offgrid_node.protocol.errors import (
    AlreadyExists,
    Corrupt,
    Exhausted,
    FailedPrecondition,
    Fault,
    FieldViolation,
    Internal,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PeerFault,
    PermissionDenied,
    Unavailable,
)

DOMAIN = "offgrid"
DETAILS_KEY = "grpc-status-details-bin"
MESSAGE_BYTES_MAX = 512  # both copies of the message and the details stay below the 8 KiB of headers that clients take
DETAILS_BYTES_MAX = 3_072
FIELD_CHARS_MAX = 200
RETRY_MS_MAX = 3_600_000

M = TypeVar("M", bound=Message)

CODES: Mapping[type[Fault], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    OutcomeUnknown: grpc.StatusCode.UNKNOWN,
    Corrupt: grpc.StatusCode.DATA_LOSS,
    PeerFault: grpc.StatusCode.ABORTED,
    Internal: grpc.StatusCode.INTERNAL,
}
# Who is not known yet is told something else than who may not; `Signature…` and `Timestamp…` are of signed requests.
UNPROVED = (
    "Unauthenticated",
    "SignedOut",
    *(f"Signature{how}" for how in ("Missing", "Invalid", "Misplaced", "Expired", "Replayed")),
)
UNPROVED += ("TimestampMissing", "TimestampInvalid")
# gRPC has words of its own for these.
CODES_BY_REASON: Mapping[str, grpc.StatusCode] = {
    "UnknownMethod": grpc.StatusCode.UNIMPLEMENTED,
    **dict.fromkeys(UNPROVED, grpc.StatusCode.UNAUTHENTICATED),
}
FAULTS: Mapping[grpc.StatusCode, type[Fault]] = {
    **{code: fault for fault, code in CODES.items()},
    grpc.StatusCode.UNIMPLEMENTED: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDenied,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.CANCELLED: OutcomeUnknown,
    grpc.StatusCode.DEADLINE_EXCEEDED: OutcomeUnknown,
}
_FAULTS_BY_NUMBER: Mapping[int, type[Fault]] = {code.value[0]: fault for code, fault in FAULTS.items()}
# What a carrier says by itself, when nobody behind it has answered.
_CARRIER_REASONS: Mapping[grpc.StatusCode, str] = {
    grpc.StatusCode.CANCELLED: "CallCancelled",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DeadlineExceeded",
    grpc.StatusCode.UNAVAILABLE: "ConnectionLost",
    grpc.StatusCode.UNIMPLEMENTED: "UnknownMethod",
    grpc.StatusCode.UNAUTHENTICATED: "Unauthenticated",
}


def code_of(fault: Fault) -> grpc.StatusCode:
    """The gRPC code that says most nearly what the fault does."""
    by_reason = CODES_BY_REASON.get(fault.reason)
    if by_reason is not None:
        return by_reason
    return next((CODES[base] for base in type(fault).__mro__ if base in CODES), grpc.StatusCode.INTERNAL)


def to_rpc_status(fault: Fault) -> grpc.Status:
    """The fault as gRPC sends it."""
    return rpc_status.to_status(status_of(fault))


def status_of(fault: Fault) -> status_pb2.Status:
    """The fault with all its details, cut so that as headers they fit every gRPC client."""
    status = status_pb2.Status(code=code_of(fault).value[0], message=_cut(fault.message, MESSAGE_BYTES_MAX))
    info = error_details_pb2.ErrorInfo(reason=_cut(fault.reason, FIELD_CHARS_MAX), domain=DOMAIN)
    _add(status, info)
    if fault.retry_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(min(max(fault.retry_ms, 0), RETRY_MS_MAX))
        _add(status, retry)
    for key, value in fault.metadata.items():
        info.metadata[_cut(key, FIELD_CHARS_MAX)] = _cut(value, FIELD_CHARS_MAX)
        if status.ByteSize() + info.ByteSize() > DETAILS_BYTES_MAX:
            del info.metadata[_cut(key, FIELD_CHARS_MAX)]
            break
    status.details[0].Pack(info)
    if fault.violations:
        _add(status, _bad_request(fault, DETAILS_BYTES_MAX - status.ByteSize()))
    return status


def _bad_request(fault: Fault, room_bytes: int) -> error_details_pb2.BadRequest:
    """As many violations as there is room for; the first always."""
    found = error_details_pb2.BadRequest()
    for violation in fault.violations:
        found.field_violations.add(
            field=_cut(violation.field, FIELD_CHARS_MAX), description=_cut(violation.description, FIELD_CHARS_MAX)
        )
        if found.ByteSize() > room_bytes and len(found.field_violations) > 1:
            del found.field_violations[-1]
            break
    return found


def fault_of(error: grpc.aio.AioRpcError, *, sent: bool = True) -> Fault:
    """What a failed call means to the one who made it.

    `sent=False` is the caller's word that the request never left this node (no connection was ever ready).
    """
    code, message = error.code(), error.details() or "the call failed without a word"
    raw = next((value for key, value in error.trailing_metadata() or () if key == DETAILS_KEY), None)
    answered = described_fault(raw, code) if isinstance(raw, bytes) else None
    if answered is not None:
        return answered
    kind = FAULTS.get(code, OutcomeUnknown)
    if code is grpc.StatusCode.UNAVAILABLE and sent:
        kind = OutcomeUnknown
    elif code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED) and not sent:
        kind = Unavailable
    return kind(message, reason=_CARRIER_REASONS.get(code))


def described_fault(raw: bytes, code: grpc.StatusCode | None = None) -> Fault | None:
    """The fault that the other node itself described in a `google.rpc.Status`; None when these bytes describe none.

    When the carrier gives a `code` of its own, a description that contradicts it counts for nothing.
    """
    try:
        status = status_pb2.Status.FromString(raw)
        info = _detail(status, error_details_pb2.ErrorInfo())
        retry = _detail(status, error_details_pb2.RetryInfo())
        bad = _detail(status, error_details_pb2.BadRequest())
    except DecodeError:
        return None
    kind = _FAULTS_BY_NUMBER.get(status.code)
    if kind is None or info is None or info.domain != DOMAIN or (code is not None and status.code != code.value[0]):
        return None
    return kind(
        status.message,
        reason=info.reason or None,
        violations=[FieldViolation(v.field, v.description) for v in bad.field_violations] if bad else (),
        retry_ms=min(max(retry.retry_delay.ToMilliseconds(), 0), RETRY_MS_MAX) if retry else None,
        metadata=dict(info.metadata),
    )


def _detail(status: status_pb2.Status, into: M) -> M | None:
    return next((into for packed in status.details if packed.Is(into.DESCRIPTOR) and packed.Unpack(into)), None)


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = Any()
    packed.Pack(detail)
    status.details.append(packed)


def _cut(text: str, size_bytes: int) -> str:
    """At most `size_bytes` of UTF-8, never half a character, nothing that a header cannot carry."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= size_bytes and raw.isascii() else raw[:size_bytes].decode("utf-8", "ignore")
