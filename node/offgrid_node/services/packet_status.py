"""Faults on packet links: the bytes of the `google.rpc.Status` that gRPC carries, and back."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from offgrid_node.protocol.errors import Fault, FieldViolation, PeerFault
from offgrid_node.services.status import DETAILS_KEY, DOMAIN, FAULTS, RETRY_MS_MAX, to_rpc_status

_FAULTS: Mapping[int, type[Fault]] = {code.value[0]: fault for code, fault in FAULTS.items()}
_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def fault_to_bytes(fault: Fault) -> bytes:
    """A serialised `google.rpc.Status`, a few kilobytes at most."""
    metadata = dict(to_rpc_status(fault).trailing_metadata or ())
    details = metadata[DETAILS_KEY]
    assert isinstance(details, bytes)
    return details


def fault_from_bytes(raw: bytes) -> Fault:
    """The fault that the peer described; a PeerFault when these bytes describe none."""
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    try:
        status = status_pb2.Status.FromString(raw)
        for packed in status.details:
            for detail in (info, retry, bad):
                packed.Unpack(detail)
    except DecodeError:
        return PeerFault("the peer answered with an error that cannot be read", reason="MalformedStatus")
    kind = _FAULTS.get(status.code)
    if kind is None or info.domain != DOMAIN:
        code = _CODES.get(status.code, status.code)
        return PeerFault(f"the peer answered with an error that says nothing: {code}", reason="MalformedStatus")
    retry_ms = min(max(retry.retry_delay.ToMilliseconds(), 0), RETRY_MS_MAX) if retry.HasField("retry_delay") else None
    return kind(
        status.message,
        reason=info.reason or None,
        violations=[FieldViolation(v.field, v.description) for v in bad.field_violations],
        retry_ms=retry_ms,
        metadata=dict(info.metadata),
    )
