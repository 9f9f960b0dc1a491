"""Every fault crosses the gRPC wire and comes back as the same fault; a carrier's own words promise nothing."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import (
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
from offgrid_node.services.status import CODES, DETAILS_KEY, code_of, fault_of, to_rpc_status

HEADER_BYTES_MAX = 8 * 1024  # gRPC clients refuse more by default


def over_the_wire(fault: Fault) -> AioRpcError:
    """What a client gets to see of a fault."""
    status = to_rpc_status(fault)
    return AioRpcError(status.code, Metadata(), Metadata(*status.trailing_metadata), status.details)


def of_the_carrier(code: grpc.StatusCode, *trailing: tuple[str, str | bytes]) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*trailing), "said by gRPC itself")


@pytest.mark.parametrize("kind", list(CODES), ids=lambda kind: kind.__name__)
def test_every_fault_survives_the_wire(kind: type[Fault]) -> None:
    sent = kind(
        "what was wrong",
        reason="VeryWrong",
        violations=[FieldViolation("title", "is empty"), FieldViolation("jobs[3].kind", "unknown; did you mean …?")],
        retry_ms=1_250,
        metadata={"job": "j-1"},
    )
    came = fault_of(over_the_wire(sent))
    assert type(came) is kind
    assert (came.message, came.reason, came.violations) == (sent.message, sent.reason, sent.violations)
    assert (came.retry_ms, came.metadata) == (1_250, {"job": "j-1"})


def test_no_two_faults_share_a_code() -> None:
    assert len(set(CODES.values())) == len(CODES) == len(Fault.__subclasses__())


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (NotFound("?", reason="UnknownMethod"), grpc.StatusCode.UNIMPLEMENTED),
        (PermissionDenied("?", reason="Unauthenticated"), grpc.StatusCode.UNAUTHENTICATED),
        (InvalidRequest("?"), grpc.StatusCode.INVALID_ARGUMENT),
        (Exhausted("?"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Corrupt("?"), grpc.StatusCode.DATA_LOSS),
    ],
)
def test_a_fault_has_the_code_that_grpc_has_for_it(fault: Fault, code: grpc.StatusCode) -> None:
    assert code_of(fault) is code
    assert type(fault_of(over_the_wire(fault))) is type(fault)


def test_a_narrower_fault_is_sent_as_what_it_is_a_kind_of() -> None:
    class DiskFull(Exhausted):
        """A later invention."""

    came = fault_of(over_the_wire(DiskFull("no room")))
    assert type(came) is Exhausted
    assert came.reason == "DiskFull"


def test_the_standard_details_are_there_for_any_client() -> None:
    fault = InvalidRequest("title: is empty", violations=[FieldViolation("title", "is empty")], retry_ms=50)
    raw = dict(to_rpc_status(fault).trailing_metadata)[DETAILS_KEY]
    assert isinstance(raw, bytes)
    found = {any_.TypeName(): any_ for any_ in status_pb2.Status.FromString(raw).details}
    assert set(found) == {"google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo"}
    info = error_details_pb2.ErrorInfo()
    found["google.rpc.ErrorInfo"].Unpack(info)
    assert (info.reason, info.domain) == ("InvalidRequest", "offgrid")


@pytest.mark.parametrize(
    ("code", "sent", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, True, OutcomeUnknown),
        (grpc.StatusCode.UNAVAILABLE, False, Unavailable),
        (grpc.StatusCode.CANCELLED, True, OutcomeUnknown),
        (grpc.StatusCode.CANCELLED, False, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, True, OutcomeUnknown),
        (grpc.StatusCode.DEADLINE_EXCEEDED, False, Unavailable),
        (grpc.StatusCode.UNKNOWN, True, OutcomeUnknown),
        (grpc.StatusCode.UNAUTHENTICATED, True, PermissionDenied),
        (grpc.StatusCode.UNIMPLEMENTED, True, NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, True, Exhausted),
        (grpc.StatusCode.INTERNAL, True, Internal),
        (grpc.StatusCode.ABORTED, True, PeerFault),
        (grpc.StatusCode.FAILED_PRECONDITION, True, FailedPrecondition),
    ],
)
def test_what_only_the_carrier_said_never_promises_that_nothing_was_done(
    code: grpc.StatusCode, sent: bool, kind: type[Fault]
) -> None:
    assert type(fault_of(of_the_carrier(code), sent=sent)) is kind


def test_unavailable_in_the_other_nodes_own_words_is_believed() -> None:
    assert type(fault_of(over_the_wire(Unavailable("starting up", retry_ms=10)))) is Unavailable


def test_details_that_contradict_the_code_are_not_believed() -> None:
    lie = dict(to_rpc_status(Unavailable("nothing was done")).trailing_metadata)[DETAILS_KEY]
    assert type(fault_of(of_the_carrier(grpc.StatusCode.DEADLINE_EXCEEDED, (DETAILS_KEY, lie)))) is OutcomeUnknown


@given(st.binary(max_size=200))
def test_any_bytes_for_details_are_survived(raw: bytes) -> None:
    fault = fault_of(of_the_carrier(grpc.StatusCode.UNAVAILABLE, (DETAILS_KEY, raw)))
    assert isinstance(fault, OutcomeUnknown)


@given(
    message=st.text(max_size=3_000),
    fields=st.lists(st.tuples(st.text(max_size=400), st.text(max_size=400)), max_size=100),
    metadata=st.dictionaries(st.text(max_size=300), st.text(max_size=300), max_size=60),
)
def test_no_fault_is_too_large_for_a_clients_headers(
    message: str, fields: list[tuple[str, str]], metadata: dict[str, str]
) -> None:
    fault = InvalidRequest(message, violations=[FieldViolation(*field) for field in fields], metadata=metadata)
    status = to_rpc_status(fault)
    percent_encoded = 3 * len(status.details.encode())
    base64_encoded = sum(len(value) * 4 // 3 + 4 for _, value in status.trailing_metadata)
    assert percent_encoded + base64_encoded < HEADER_BYTES_MAX
    came = fault_of(over_the_wire(fault))
    assert type(came) is InvalidRequest
    assert len(came.violations) >= min(1, len(fields))
