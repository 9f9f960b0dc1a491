"""`offgrid settle`: this node posts what others promise it."""

from __future__ import annotations

import click

from offgrid_tools.cli.amounts import credits_of
from offgrid_tools.cli.settings import common, settings


@click.command()
@click.option("--payer", default="", metavar="NODE", help="What this one promises. [default: everybody]")
@common
def settle(payer: str) -> None:
    """Post what others promise this node for its work, now instead of at the next settlement.

    Whoever has work done sets money aside for this node in a hold, and promises ever more of it by vouchers. One
    transaction posts a hold, however many jobs its newest voucher covers; the payer gets the rest. This happens by
    itself every economy.settlement_interval seconds (OFFGRID_SETTLEMENT_INTERVAL).
    """
    answer = settings().connect().ledger.settle(payer)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    for tx in answer.transactions:
        click.echo(tx.tx_id)
    count = len(answer.transactions)
    click.echo(f"{credits_of(answer.amount_micro)} in {count} transaction{'' if count == 1 else 's'}, on the way")
