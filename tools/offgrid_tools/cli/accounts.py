"""`offgrid balance`, `history` and `bookings`: what accounts hold, and what moved it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid.command_line.terminal import counted
from offgrid_tools.cli.amounts import credits_of, weight_of
from offgrid_tools.cli.reach import cut_off
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from offgrid.client import Client
    from offgrid.v1.ledger_pb2 import Balance, Booking, Transaction

HISTORY_LIMIT = 50
TX_CHARS = 16  # of a transaction's id in tables; `tx show` takes as much, --json has all of it


@click.command()
@click.argument("account", metavar="[ACCOUNT]", default="")
@click.option("--all", "everyone", is_flag=True, help="Every account, with fees and supply.")
@common
def balance(account: str, everyone: bool) -> None:
    """Show what ACCOUNT holds: a node's name or id, or NODE/LANE. [default: this node, and its lanes]"""
    if account and everyone:
        raise click.UsageError("either ACCOUNT or --all")
    client = settings().connect()
    if everyone:
        _all_balances(client)
        return
    answer = client.ledger.balance(account)
    lanes = () if account else client.ledger.wallet().accounts[1:]
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"balance": json_of(answer), **({} if account else {"lanes": [json_of(lane.balance) for lane in lanes]})})
        return
    from offgrid_tools.cli.output import facts

    facts(
        [
            ("account", f"{answer.name} ({answer.account})" if answer.name else answer.account),
            ("balance", credits_of(answer.final_micro)),
            ("going out", credits_of(answer.pending_out_micro) if answer.pending_out_micro else ""),
            ("coming in", credits_of(answer.pending_in_micro) if answer.pending_in_micro else ""),
            ("accepted", _accepted(answer) if answer.accepted_in_micro else ""),
            ("sent", f"{counted(answer.next_seq, 'transaction')}"),
            ("lanes", _in_lanes(answer, [lane.balance for lane in lanes]) if lanes else ""),
            *cut_off(client.ledger.status()),
        ]
    )


def _in_lanes(own: Balance, lanes: Sequence[Balance]) -> str:
    held = sum(lane.final_micro for lane in lanes)
    in_all = credits_of(own.final_micro + held)
    return f"{credits_of(held)} in {len(lanes)}, so {in_all} in all: offgrid wallet list"


def _accepted(balance: Balance) -> str:
    return f"{credits_of(balance.accepted_in_micro)} of what comes in, within your credit lines; not to be spent yet"


def _all_balances(client: Client) -> None:
    answer = client.ledger.balances()
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    from offgrid_tools.cli.output import table

    table(
        ("account", "balance", "going out", "coming in", "sent"),
        (
            (
                found.name or found.account,
                credits_of(found.final_micro),
                credits_of(found.pending_out_micro),
                credits_of(found.pending_in_micro),
                found.next_seq,
            )
            for found in answer.balances
        ),
        empty="there are no accounts",
    )
    click.echo(f"fees {credits_of(answer.fees_micro)}, supply {credits_of(answer.supply_micro)}")


@click.command()
@click.option("--account", metavar="ACCOUNT", default="", help="Those of one account, paid or received. [default: all]")
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(0),
    default=HISTORY_LIMIT,
    show_default=True,
    help="At most; 0: all.",
)
@common
def history(account: str, limit: int) -> None:
    """List transactions that this node knows, newest first."""
    _list(account, limit, only_open=False)


@click.command("list")
@click.option("--account", metavar="ACCOUNT", default="", help="Those of one account, paid or received. [default: all]")
@click.option("--open", "only_open", is_flag=True, help="Those not final yet: how far they are, and what is at risk.")
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(0),
    default=HISTORY_LIMIT,
    show_default=True,
    help="At most; 0: all.",
)
@common
def list_(account: str, only_open: bool, limit: int) -> None:
    """List transactions that this node knows: as `offgrid history` has them, or those that are not final yet."""
    _list(account, limit, only_open=only_open)


def _list(account: str, limit: int, *, only_open: bool) -> None:
    client = settings().connect()
    found = client.ledger.history(account=account, only_open=only_open, limit=limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"transactions": [json_of(tx) for tx in found]})
    elif only_open:
        _show_open(client, found)
    else:
        _show_history(found)


def _show_open(client: Client, found: Iterable[Transaction]) -> None:
    from offgrid.v1.ledger_pb2 import TxState
    from offgrid_tools.cli.output import facts, table, when, word

    table(
        ("tx", "created", "state", "from", "to", "at risk", "votes", "confirms", "quorum", "accepted"),
        (
            (
                tx.tx_id[:TX_CHARS],
                when(tx.created_us),
                "not sent" if tx.unsent else word(TxState, tx.state),
                tx.src_name or tx.src,
                payees_of(tx),
                credits_of(sum(output.amount_micro for output in tx.outputs) + tx.fee_micro),
                weight_of(tx.voted_milli),
                weight_of(tx.confirmed_milli),
                weight_of(tx.quorum_milli),
                credits_of(tx.accepted_micro) if tx.accepted_micro else "",
            )
            for tx in found
        ),
        empty="everything is final or void",
    )
    facts([*cut_off(client.ledger.status())])


def _show_history(found: Iterable[Transaction]) -> None:
    from offgrid.v1.ledger_pb2 import TxState
    from offgrid_tools.cli.output import table, when, word

    table(
        ("tx", "created", "state", "from", "to", "amount", "fee", "about"),
        (
            (
                tx.tx_id[:TX_CHARS],
                when(tx.created_us),
                word(TxState, tx.state),
                tx.src_name or tx.src,
                payees_of(tx),
                credits_of(sum(output.amount_micro for output in tx.outputs)),
                credits_of(tx.fee_micro),
                " ".join(f"{key}={value}" for key, value in sorted(tx.meta.items())),
            )
            for tx in found
        ),
        empty="there are no transactions",
    )


def payees_of(tx: Transaction) -> str:
    """The first payee, and how many more."""
    first = next((output.name or output.account for output in tx.outputs), "")
    return first if len(tx.outputs) < 2 else f"{first} and {len(tx.outputs) - 1} more"


def _standing(booking: Booking) -> str:
    if booking.promised:
        return "promised, told" if booking.delivered else "promised"
    return "owed" if booking.owed else ""


@click.command()
@click.option("--job", "job_id", metavar="JOB", default="", help="What one job cost.")
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(0),
    default=HISTORY_LIMIT,
    show_default=True,
    help="At most; 0: all.",
)
@common
def bookings(job_id: str, limit: int) -> None:
    """List what this node's jobs cost, newest first, and how far each is paid.

    A job is owed until money is set aside for its host in a hold; then it is promised: nobody else can get that money,
    also while the witnesses are out of reach. It is told once its host has the voucher, and paid once the host has
    posted that, each settlement interval or by offgrid settle.
    """
    answer = settings().connect().ledger.bookings(job_id=job_id, limit=limit or None)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    from offgrid_tools.cli.output import table, when

    table(
        ("job", "attempt", "payee", "amount", "fee", "action", "booked", "paid by"),
        (
            (
                booking.job_id,
                booking.attempt,
                booking.payee_name or booking.payee,
                credits_of(booking.amount_micro),
                credits_of(booking.fee_micro),
                booking.action,
                when(booking.booked_us),
                booking.tx_id[:TX_CHARS] or _standing(booking),
            )
            for booking in answer.bookings
        ),
        empty="nothing is booked",
    )
    if answer.owed_micro:
        click.echo(f"{credits_of(answer.owed_micro)} owed, and no hold covers it yet")
