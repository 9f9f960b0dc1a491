"""What a failed call raises: gRPC status and `google.rpc` details (AIP-193) as one exception."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc

DOMAIN = "offgrid"
DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of the request that was wrong."""

    field: str
    description: str


class OffgridError(Exception):
    """A call failed.

    `code` is gRPC's word ("NOT_FOUND"), `reason` a stable UpperCamelCase word of the node's (or, when no node has
    spoken, of this client's: NoAnswer, ConnectionLost, NotANode…), `message` a sentence for people, `violations` the
    wrong fields, `retry_ms` how long to wait before trying again (None: waiting does not help).
    """

    def __init__(
        self,
        code: str,
        reason: str,
        message: str,
        violations: Sequence[Violation] = (),
        retry_ms: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.retry_ms = retry_ms
        self.metadata = dict(metadata or {})

    @property
    def outcome_unknown(self) -> bool:
        """The call may or may not have been carried out, or surely was not: repeating it is right."""
        return self.code in ("UNAVAILABLE", "CANCELLED") or (self.code == "UNKNOWN" and bool(self.reason))


def from_rpc(error: grpc.RpcError) -> OffgridError:
    """What gRPC raised, with the node's own details when it sent any."""
    code, message = _code(error), _details(error)
    raw = _raw_details(error)
    if isinstance(raw, bytes):
        described = _described(code, raw)
        if described is not None:
            return described
    return OffgridError(code, "", message)


def from_status(raw: bytes) -> OffgridError:
    """What the node itself said, as a `google.rpc.Status`."""
    from google.protobuf.message import DecodeError
    from google.rpc import code_pb2, status_pb2

    try:
        status = status_pb2.Status.FromString(raw)
        code = code_pb2.Code.Name(status.code)
    except (DecodeError, ValueError):
        return OffgridError("INTERNAL", "", "the node answered with an error that describes nothing")
    return _described(code, raw) or OffgridError(code, "", status.message)


def _described(code: str, raw: bytes) -> OffgridError | None:
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    try:
        status = status_pb2.Status.FromString(raw)
        found = {kind.DESCRIPTOR.name: packed.Unpack(kind) for packed in status.details for kind in (info, bad, retry)
                 if packed.Is(kind.DESCRIPTOR)}  # fmt: skip
    except DecodeError:
        return None
    if "ErrorInfo" not in found or info.domain != DOMAIN:
        return None
    return OffgridError(
        code,
        info.reason,
        status.message,
        [Violation(v.field, v.description) for v in bad.field_violations],
        retry.retry_delay.ToMilliseconds() if "RetryInfo" in found else None,
        dict(info.metadata),
    )


# grpc.RpcError itself promises nothing; what a channel raises is a grpc.Call as well.


def _code(error: grpc.RpcError) -> str:
    code = error.code() if hasattr(error, "code") else None
    return code.name if code is not None else "UNKNOWN"


def _details(error: grpc.RpcError) -> str:
    said = error.details() if hasattr(error, "details") else None
    return said or "the call failed without a word"


def _raw_details(error: grpc.RpcError) -> object:
    trailers = error.trailing_metadata() if hasattr(error, "trailing_metadata") else ()
    return next((item.value for item in trailers or () if item.key == DETAILS_KEY), None)
