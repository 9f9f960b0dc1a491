"""`offgrid wallet credit`: what this node's owner accepts of others before it is final."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.amounts import Amount, credits_of
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from offgrid.v1.ledger_pb2 import CreditLine


@click.command()
@click.argument("payer", metavar="[NODE", default="")
@click.argument("amount_micro", metavar="AMOUNT]", type=Amount(zero=True), required=False)
@common
def credit(payer: str, amount_micro: int | None) -> None:
    """How much of what NODE signs to this node counts as accepted before it is final; 0 is nothing. Without both: all.

    What is accepted so is shown apart and cannot be spent before it is final. You lose it if NODE signs another
    transaction in its place: set no more than you would lend.

    \b
    offgrid wallet credit barn 50
    offgrid wallet credit barn 0
    offgrid wallet credit
    """
    if bool(payer) != (amount_micro is not None):
        raise click.UsageError("either NODE and AMOUNT, or neither")
    ledger = settings().connect().ledger
    lines = [ledger.set_credit_line(payer, amount_micro)] if amount_micro is not None else ledger.credit_lines()
    if settings().json:
        from offgrid_tools.cli.json_form import emit, json_of

        emit({"lines": [json_of(line) for line in lines]})
        return
    _show(lines)


def _show(lines: Iterable[CreditLine]) -> None:
    from offgrid_tools.cli.output import table

    table(
        ("payer", "credit line", "accepted now"),
        ((line.payer_name or line.payer, credits_of(line.amount_micro), credits_of(line.used_micro)) for line in lines),
        empty="no credit line is set: nothing is accepted before it is final",
    )
