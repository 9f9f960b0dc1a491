"""`offgrid wallet`: this node's accounts, and what its owner accepts of others before it is final."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.amounts import Amount, credits_of
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from offgrid.v1.ledger_pb2 import CreditLine, GetWalletResponse

LANES_MAX = 1_024
TX_CHARS = 16


@click.command("list")
@common
def list_() -> None:
    """List this node's accounts: its own, and its lanes.

    Each signs its next transaction when the one before has ended.
    """
    _show_wallet(settings().connect().ledger.wallet())


@click.command("create-lane")
@click.option("--count", type=click.IntRange(1, LANES_MAX), default=1, show_default=True, help="How many more.")
@click.option("--fund", "fund_micro", type=Amount(zero=True), default="0", metavar="AMOUNT",
              help="Pay so much into each, out of the node's own account. [default: nothing]")  # fmt: skip
@common
def create_lane(count: int, fund_micro: int) -> None:
    """Open lanes: further accounts of this node's, so that its transfers need not wait for each other.

    A lane is named like its node with its number behind: attic/3, or /3 at the node itself.
    """
    ledger = settings().connect().ledger
    lanes = len(ledger.wallet().accounts) - 1
    _show_wallet(ledger.open_lanes(lanes + count, fund_micro=fund_micro))


def _show_wallet(wallet: GetWalletResponse) -> None:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(wallet)
        return
    from offgrid_tools.cli.output import table

    table(
        ("lane", "account", "balance", "going out", "coming in", "sent", "in flight"),
        (
            (
                found.lane,
                found.balance.name or found.balance.account,
                credits_of(found.balance.final_micro),
                credits_of(found.balance.pending_out_micro),
                credits_of(found.balance.pending_in_micro),
                found.balance.next_seq,
                found.in_flight[:TX_CHARS],
            )
            for found in wallet.accounts
        ),
        empty="there are no accounts",
    )
    if len(wallet.accounts) > 1:
        total = sum(found.balance.final_micro for found in wallet.accounts)
        click.echo(
            f"{credits_of(total)} in {len(wallet.accounts)} {'account' if len(wallet.accounts) == 1 else 'accounts'}"
        )


@click.command()
@click.argument("payer", metavar="[NODE]", default="")
@click.argument("amount_micro", metavar="[AMOUNT]", type=Amount(zero=True), required=False)
@common
def credit(payer: str, amount_micro: int | None) -> None:
    """Show or set how much of what NODE signs to this node counts as accepted before it is final; 0 is nothing.

    Without both it shows all that are set. What is accepted so is shown apart and cannot be spent before it is final.
    You lose it if NODE signs another transaction in its place: set no more than you would lend.
    """
    if bool(payer) != (amount_micro is not None):
        raise click.UsageError("either NODE and AMOUNT, or neither")
    ledger = settings().connect().ledger
    lines = [ledger.set_credit_line(payer, amount_micro)] if amount_micro is not None else ledger.credit_lines()
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

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
