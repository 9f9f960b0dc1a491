"""Refusals over amounts: what they are about stands in the metadata too, as integers by names that end in `_micro`, so
that whoever shows them to people can say them in credits."""

from __future__ import annotations

from offgrid_node.protocol.errors import FailedPrecondition, FieldViolation, InvalidRequest


def wrong_amount(field: str, description: str, reason: str, **amounts_micro: int) -> InvalidRequest:
    """A field that names an amount which is not allowed."""
    return InvalidRequest(
        f"{field}: {description}",
        reason=reason,
        violations=[FieldViolation(field, description)],
        metadata={name: str(amount) for name, amount in amounts_micro.items()},
    )


def too_little(needed_micro: int, free_micro: int) -> FailedPrecondition:
    """What an account has, and is not spoken for, is not enough."""
    return FailedPrecondition(
        f"the transfer needs {needed_micro} millionths with its fee; the account has {max(0, free_micro)} that are "
        "final and not spoken for",
        reason="InsufficientFunds",
        metadata={"needed_micro": str(needed_micro), "available_micro": str(max(0, free_micro))},
    )
