"""How things fail: one small tree that says whose fault it was and what to do next.

    Fault
      InvalidRequest     the caller's: fix the fields named and call again
      NotFound           the caller's: there is no such thing
      AlreadyExists      the caller's: it is there, and differs
      FailedPrecondition the caller's: right request, wrong moment or wrong node
      PermissionDenied   the caller may not
      Unavailable        nobody's: try again (after `retry_ms`)
      Exhausted          a bound was reached: try again after `retry_ms`, or send less
      OutcomeUnknown     the call may or may not have been carried out: repeat it, it is idempotent
      Corrupt            stored bytes fail their checksum: repair or restore
      PeerFault          a peer sent what it must not; it was refused and nothing changed
      Internal           a defect of ours

`services/status.py` maps the tree to gRPC codes and `google.rpc` details, in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import msgspec

CONNECTION_REFUSED = "ConnectionRefused"
"""Reason of an Unavailable: the other machine has answered that nobody listens there."""
NO_ROAD = "NoRoad"
"""Reason of an Unavailable: this node knows no way to the one that it would call."""


class FieldViolation(msgspec.Struct, frozen=True):
    """One field that was wrong, as `google.rpc.BadRequest` has it."""

    field: str
    description: str


class Fault(Exception):
    """The root. `reason` is a stable UpperCamelCase word for programs, the message a sentence for people."""

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_ms: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).__name__
        self.violations = tuple(violations)
        self.retry_ms = retry_ms
        self.metadata = dict(metadata or {})

    def bare(self) -> Self:
        """As the end of a call: without the frames that it passed through. They hold the request, a mebibyte perhaps,
        and where one of them holds the fault too, all of it stays until the collector of cycles looks."""
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


class InvalidRequest(Fault):
    """The caller's fault: `violations` name each field."""

    @classmethod
    def field(cls, field: str, description: str) -> InvalidRequest:
        """The common case of one wrong field."""
        return cls(f"{field}: {description}", violations=[FieldViolation(field, description)])


class NotFound(Fault):
    """There is no such thing."""


class AlreadyExists(Fault):
    """It is there already, and differs from what was asked."""


class FailedPrecondition(Fault):
    """A right request at a wrong moment or to a wrong node."""


class PermissionDenied(Fault):
    """This caller may not do this."""


class Unavailable(Fault):
    """Nothing was done; trying again later may help."""


class Exhausted(Fault):
    """A bound was reached; nothing was done."""


class OutcomeUnknown(Fault):
    """No answer came: it may have been done. Repeat it."""


class Corrupt(Fault):
    """Stored bytes are not what was written."""


class PeerFault(Fault):
    """A peer sent what it must not."""


class Internal(Fault):
    """A defect of ours."""
