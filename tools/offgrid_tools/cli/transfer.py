"""`offgrid transfer`, `tx show` and `tx unlock`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from offgrid.command_line import exits
from offgrid_tools.cli.amounts import Amount, credits_of, pairs, weight_of
from offgrid_tools.cli.bars import working
from offgrid_tools.cli.numbers import FiniteRange
from offgrid_tools.cli.reach import cut_off
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from offgrid.client import Client
    from offgrid.v1.ledger_pb2 import Transaction

F = TypeVar("F", bound="Callable[..., Any]")

WAIT_S = 30.0
WAIT_S_MAX = 86_400.0


def timeout(end: str) -> Callable[[F], F]:
    """`--timeout`, of a command that waits until a transaction's `end`."""
    return click.option(
        "--timeout",
        "wait_s",
        type=FiniteRange(0.001, WAIT_S_MAX),
        default=WAIT_S,
        show_default=True,
        metavar="SECONDS",
        help=f"How long to wait until it {end}.",
    )


@click.command()
@click.option(
    "--src",
    metavar="ACCOUNT",
    default="",
    help="The account that pays, of this node's: its name, or /3 for its lane 3. "
    "[default: the first that is free and has the funds]",
)
@click.option("--dst", metavar="ACCOUNT", required=True, help="Who is paid: a member's name or id, or NODE/LANE.")
@click.option("--amount", "amount_micro", type=Amount(), required=True, help="Credits, at most six places.")
@click.option("--fee", "fee_micro", type=Amount(), help="What it costs besides. [default: the ledger's least]")
@click.option("--meta", "meta", multiple=True, metavar="NAME=VALUE", help="Goes into the transaction; repeat it.")
@click.option("--request-id", default="", metavar="ID", help="Random; repeated with it, the command pays once.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is final.")
@timeout("is final")
@common
def transfer(
    src: str,
    dst: str,
    amount_micro: int,
    fee_micro: int | None,
    meta: tuple[str, ...],
    request_id: str,
    no_wait: bool,
    wait_s: float,
) -> int:
    """Pay somebody, and wait until it is final."""
    about = pairs("--meta", meta)
    client = settings().connect()
    tx = client.ledger.transfer(dst, amount_micro, src=src, fee_micro=fee_micro or 0, meta=about, request_id=request_id)
    if not settings().json and not no_wait:
        click.echo(f"{tx.tx_id}: waiting until it is final", err=True)
    if not no_wait and not _ended(tx):
        with working("waiting until it is final"):
            tx = client.ledger.settled(tx.tx_id, wait_s)
    show_transaction(tx, client)
    code = exits.OK if no_wait else exit_code_of(tx)
    if code == exits.PENDING and not settings().json:
        click.echo(
            f"not final after {wait_s:g} s; it goes on by itself, so do not send it again: offgrid tx show {tx.tx_id}",
            err=True,
        )
    return code


@click.command()
@click.argument("tx_id", metavar="TX")
@common
def show(tx_id: str) -> None:
    """Show one transaction: by its id, or the first eight characters of it or more; or a file of `tx create`'s."""
    if os.path.isfile(tx_id):  # what is too long for a path is none
        from offgrid_tools.cli.by_hand import show_file

        show_file(tx_id)
        return
    client = settings().connect()
    show_transaction(client.ledger.transaction(tx_id), client)


@click.command()
@click.option("--account", metavar="ACCOUNT", default="", help="Of this node's: /3 is its lane 3. [default: its own]")
@timeout("has ended")
@common
def unlock(account: str, wait_s: float) -> int:
    """End what an account of this node's has under way, if it does not end by itself.

    The witnesses decide: a transaction that may be final somewhere becomes final, any other one is void, and the
    account goes on. What it was to pay for jobs is owed again; a transfer is not repeated.
    """
    client = settings().connect()
    tx = client.ledger.unlock(account)
    if not settings().json:
        click.echo(f"{tx.tx_id}: waiting until its slot has ended", err=True)
    tx = client.ledger.settled(tx.tx_id, wait_s)
    show_transaction(tx, client)
    return exits.OK if _ended(tx) else exits.PENDING


def exit_code_of(tx: Transaction) -> int:
    """0 once the money has moved, FAILED when it never will, PENDING where this node cannot tell."""
    from offgrid.v1.ledger_pb2 import TxState

    ends = {TxState.TX_STATE_FINAL: exits.OK, TxState.TX_STATE_VOID: exits.FAILED}
    return ends.get(tx.state, exits.PENDING)


def _ended(tx: Transaction) -> bool:
    return exit_code_of(tx) != exits.PENDING


def show_transaction(tx: Transaction, client: Client) -> None:
    """Everything about it; while it is not final, what keeps it and what is at risk."""
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"transaction": json_of(tx)})
        return
    from offgrid_tools.cli.output import facts

    facts([*_about(tx), *(() if _ended(tx) else cut_off(client.ledger.status()))])


def _about(tx: Transaction) -> Iterator[tuple[str, object]]:
    from offgrid.v1.ledger_pb2 import TX_STATE_QUEUED, TxState
    from offgrid_tools.cli.output import when, word

    paid_micro = sum(output.amount_micro for output in tx.outputs)
    yield "tx", tx.tx_id
    yield "state", f"{word(TxState, tx.state)}{', not sent' if tx.unsent else ''}"
    number = f", its number {tx.seq}" if tx.state != TX_STATE_QUEUED else ""  # it gets one when it is signed
    yield "from", f"{tx.src_name or tx.src}{number}"
    for output in tx.outputs:
        yield "to", f"{output.name or output.account}: {credits_of(output.amount_micro)}"
    yield "fee", credits_of(tx.fee_micro)
    for key, value in sorted(tx.meta.items()):
        yield f"  {key}", value
    quorum = weight_of(tx.quorum_milli)
    yield "votes", f"{weight_of(tx.voted_milli)} of the {quorum} that it takes"
    yield "confirms", f"{weight_of(tx.confirmed_milli)} of the {quorum} that it takes"
    if not _ended(tx):
        yield "at risk", f"{credits_of(paid_micro + tx.fee_micro)}: {_risk(tx)}"
        if tx.accepted_micro:
            yield "accepted", f"{credits_of(tx.accepted_micro)}, within your credit line for {tx.src_name or tx.src}"
    yield "created", when(tx.created_us)
    yield "final", when(tx.final_us)


def _risk(tx: Transaction) -> str:
    """What may still become of a transaction that is not final."""
    from offgrid.v1.ledger_pb2 import TxState

    if tx.unsent:
        return "it is signed and has not left this node: offgrid tx send, or offgrid tx unlock to be rid of it"

    if tx.state == TxState.TX_STATE_QUEUED:
        return "it waits behind an earlier one of the same account; nothing of it has left this node"
    if tx.state == TxState.TX_STATE_CERTIFIED:
        return "no other transaction can take its place; the payee has it once the confirms are enough"
    if tx.state == TxState.TX_STATE_UNKNOWN:
        return "its slot ended while this node was away, with it or with something else: another node may know"
    return "the payee has not got it, and an owner who signs another in its place could still take it back"
