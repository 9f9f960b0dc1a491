"""`offgrid ledger witnesses`, `checkpoint`, `epochs`, `offgrid settle-rewards`: who witnesses, and what they get."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from offgrid.command_line import exits
from offgrid_tools.cli.amounts import MILLI_PLACES, WEIGHT_MILLI_MAX, numbered, pairs
from offgrid_tools.cli.bars import working
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from offgrid.client import Client
    from offgrid.v1.ledger_pb2 import CommitteeOrder, Epoch, GetLedgerStatusResponse, Witness

POLL_S = 0.2
EPOCHS_SHOWN = 20

WAIT = click.option(
    "--timeout",
    "wait_s",
    type=click.FloatRange(0, 86_400),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the epoch to end.",
)


@click.command()
@click.option("--add", "added", multiple=True, metavar="NODE[=WEIGHT]", help="Who is to witness as well; repeat it.")
@click.option("--remove", "removed", multiple=True, metavar="NODE", help="Who is to witness no more; repeat it.")
@click.option("--weight", "weighed", multiple=True, metavar="NODE=WEIGHT", help="Whose weight changes; repeat it.")
@common
def witnesses(added: tuple[str, ...], removed: tuple[str, ...], weighed: tuple[str, ...]) -> None:
    """Show who witnesses, or order who is to: an admin's node signs it, and another epoch begins with them.

    The witnesses of now end their epoch with a checkpoint as soon as a quorum of them has heard of it. Whoever is added
    without a weight has that of its membership.
    """
    client = settings().connect()
    if not (added or removed or weighed):
        _show(client.ledger.status())
        return
    order = client.ledger.order_committee(
        add=numbered("--add", pairs("--add", added, bare=True), MILLI_PLACES, WEIGHT_MILLI_MAX),
        remove=removed,
        weigh=numbered("--weight", pairs("--weight", weighed), MILLI_PLACES, WEIGHT_MILLI_MAX),
    )
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(order)
        return
    from offgrid_tools.cli.output import facts

    facts([("ordered", f"for epoch {order.epoch}"), *_committee(order)])


@click.command()
@WAIT
@common
def checkpoint(wait_s: float) -> int:
    """Have the epoch end now, with a checkpoint, and pay its witnesses.

    An admin's node orders it. On a witness that is no admin's it is a wish, and the epoch ends once a quorum of them
    wishes it.
    """
    ended = _waited(settings().connect(), wait_s)
    if ended is None:
        return exits.PENDING
    _emit([ended])
    return exits.OK


@click.command()
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(1, 100_000),
    default=EPOCHS_SHOWN,
    show_default=True,
    help="How many.",
)
@common
def epochs(limit: int) -> None:
    """List the epochs that have ended, the newest first: checkpoint, who sealed it, what its witnesses got."""
    _emit([*settings().connect().ledger.epochs(limit=limit)])


@click.command("settle-rewards")
@click.option("--epoch", type=click.IntRange(0), default=None, metavar="NUMBER", help="Which. [default: the last one]")
@click.option("--now", is_flag=True, help="Have the epoch that it is end first, which pays its witnesses.")
@WAIT
@common
def settle_rewards(epoch: int | None, now: bool, wait_s: float) -> int:
    """Show what witnesses got for an epoch: its fees, by weight, paid by the checkpoint that ended it.

    They follow from the checkpoint alone, so every node says the same of them.
    """
    if now and epoch is not None:
        raise click.UsageError("--now pays for the epoch that it is; --epoch shows one that has ended: one of them")
    client = settings().connect()
    chosen = _waited(client, wait_s) if now else _chosen(client, epoch)
    if chosen is None:
        return exits.PENDING
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(chosen)
        return exits.OK
    from offgrid_tools.cli.amounts import credits_of
    from offgrid_tools.cli.output import facts, table

    facts([("epoch", chosen.epoch), ("fees", f"{credits_of(chosen.fees_micro)}, {credits_of(chosen.left_micro)} left")])
    table(("witness", "reward"), ((r.name or r.account, credits_of(r.amount_micro)) for r in chosen.rewards), empty="")
    return exits.OK


def standing(answer: GetLedgerStatusResponse) -> Iterator[tuple[str, object]]:
    """What `ledger status` says of the epoch."""
    from offgrid_tools.cli.output import when

    yield "epoch", f"{answer.epoch}, since {when(answer.entered_us)}"
    if answer.wishing:
        yield "to end", f"by the wish of {_names(answer.wishing)}"
    for why in answer.waits:
        yield "waits", why
    for order in answer.orders:
        yield "ordered", f"by {order.issuer_name or order.issuer} for epoch {order.epoch}: {_names(order.witnesses)}"
    for witness in answer.accused:
        name = witness.name or witness.node_id
        yield "evicted", f"{name} from the next epoch on: it has signed two blocks at one height"


# ---- inside


def _show(answer: GetLedgerStatusResponse) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        found = json_of(answer)
        emit({key: found[key] for key in ("epoch", "entered_us", "witnesses", "orders", "wishing", "accused", "waits")})
        return
    from offgrid_tools.cli.amounts import weight_of
    from offgrid_tools.cli.output import facts, table

    facts([*standing(answer)])
    rows = ((w.name or "", w.node_id, weight_of(w.weight_milli)) for w in answer.witnesses)
    table(("witness", "node", "weight"), rows, empty="the ledger is not open")


def _waited(client: Client, wait_s: float) -> Epoch | None:
    with working("waiting for the epoch to end"):
        return _ended(client, wait_s)


def _ended(client: Client, wait_s: float) -> Epoch | None:
    """The epoch that it was, once it has ended; None, and why is said, where it goes on."""
    asked = client.ledger.end_epoch()
    until = time.monotonic() + wait_s
    while True:
        for ended in client.ledger.epochs(limit=2):
            if ended.epoch == asked.epoch:
                return ended
        if time.monotonic() >= until:
            break
        time.sleep(POLL_S)
    status = client.ledger.status()
    why = "; ".join(status.waits) or f"of its witnesses {_names(status.wishing) or 'nobody'} wishes it so far"
    click.echo(f"asked for, but epoch {asked.epoch} has not ended after {wait_s:g} s: {why}", err=True)
    return None


def _chosen(client: Client, number: int | None) -> Epoch:
    from offgrid.client import OffgridError

    for ended in client.ledger.epochs(limit=1 if number is None else None):
        if number in (None, ended.epoch):
            return ended
    what = "no epoch has ended yet" if number is None else f"epoch {number} has not ended, or is not known here"
    raise OffgridError("NOT_FOUND", "EpochNotFound", f"{what}: offgrid ledger epochs")


def _emit(found: Sequence[Epoch]) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"epochs": [json_of(each) for each in found]})
        return
    from offgrid_tools.cli.amounts import credits_of
    from offgrid_tools.cli.output import table, when

    table(
        ("epoch", "ended", "checkpoint", "witnesses", "sealed by", "accounts", "rewards"),
        (
            (
                each.epoch,
                when(each.ended_us),
                each.checkpoint.hex()[:16],
                _names(each.witnesses),
                _names(each.sealed) if each.is_sealed else f"too few: {_names(each.sealed) or 'nobody'}",
                f"{each.accounts}, {each.accounts_root.hex()[:16]}",
                credits_of(sum(reward.amount_micro for reward in each.rewards)),
            )
            for each in found
        ),
        empty="no epoch has ended yet",
    )


def _committee(order: CommitteeOrder) -> Iterator[tuple[str, object]]:
    from offgrid_tools.cli.ledger import committee

    return committee(order.witnesses, order.quorum_milli, order.faults_survived)


def _names(chosen: Iterable[Witness]) -> str:
    return ", ".join(witness.name or witness.node_id for witness in chosen)
