"""`offgrid host show`, `toggle`, `drain` and `drop`: for the owner of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid.command_line import exits
from offgrid.command_line.terminal import counted
from offgrid_tools.cli.asking import be_sure, yes_option
from offgrid_tools.cli.bars import working
from offgrid_tools.cli.numbers import FiniteRange
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.v1.jobs_pb2 import HostRule, HostState, KeptFor


@click.command()
@common
def show() -> None:
    """Show what this host is and has, what it offers, and what it is at."""
    client = settings().connect()
    host = client.host.show()
    if settings().json:
        _emit(host)
        return
    from offgrid_tools.cli.jobs import named, node_names
    from offgrid_tools.cli.output import facts, number, size, table

    profile = host.profile
    gpus = ", ".join(f"{gpu.model} ({gpu.memory_mb} MiB)" for gpu in profile.gpus)
    facts(
        [
            ("state", f"{host.state}: {host.detail}" if host.detail else host.state),
            ("slots", f"{host.slots_busy} of {profile.slots} busy"),
            ("unsettled", f"{host.unsettled} reports that their cores have not settled" if host.unsettled else ""),
            ("memory", f"{profile.memory_mb} MiB" if profile.memory_mb else ""),
            ("cpus", profile.cpus or ""),
            ("gpus", gpus),
            ("models", " ".join(profile.models)),
            ("labels", " ".join(f"{key}={value}" for key, value in sorted(profile.labels.items()))),
            ("isolation", " ".join(f"{kind}={how}" for kind, how in sorted(profile.isolation.items()))),
            ("platform", profile.platform),
            ("domain", profile.failure_domain),
        ]
    )
    offers = (
        (" ".join(offer.executors), " ".join(offer.kinds), offer.slots, number(offer.ask_micro / 1e6))
        for offer in host.offers
    )
    table(("executors", "kinds", "slots", "price"), offers, empty="it offers nothing")
    names = node_names(client)
    table(
        ("keeps for", "objects", "bytes", "owner is"),
        ((named(kept.owner, names), kept.objects, size(kept.bytes), _there(kept)) for kept in host.kept),
        empty="it keeps nothing for others",
    )
    table(
        ("rule", "for", "executors", "price", "busy", "when", "a day", "used today"),
        (_rule(rule, names) for rule in host.rules),
        empty="it has no rules",
    )


def _there(kept: KeptFor) -> str:
    if not kept.removed:
        return "alive" if kept.alive else "away"
    from offgrid_tools.cli.output import when

    return f"removed from the mesh{f' {when(kept.gone_us)}' if kept.gone_us else ''}; its readers still read"


def _rule(rule: HostRule, names: dict[str, str]) -> tuple[str, ...]:
    from offgrid_tools.cli.jobs import named
    from offgrid_tools.cli.output import number

    price = "denied" if rule.deny else number(rule.price_micro / 1e6)
    busy = f"{rule.slots_busy} of {rule.slots}" if rule.slots else str(rule.slots_busy)
    hours = rule.hours and rule.hours + ("" if rule.holds else ", not now")
    used = (f"{named(each.core, names)} {_share(each.jobs, each.tokens)}{', used up' * each.used_up}"
            for each in rule.today)  # fmt: skip
    a_day = _share(rule.jobs_per_day, rule.tokens_per_day)
    what = " ".join(rule.owners), " ".join(rule.executors)
    return rule.name, *what, price, busy, hours or "always", a_day, "; ".join(used)


def _share(jobs: int, tokens: int) -> str:
    return ", ".join([*([counted(jobs, "job")] if jobs else []), *([counted(tokens, "token")] if tokens else [])])


@click.command()
@click.argument("state", metavar="STATE", type=click.Choice(["on", "off", "drain"]))
@common
def toggle(state: str) -> None:
    """Take work (on), take no more while what runs goes on (off), or empty this host (drain).

    It outlives restarts.
    """
    host = settings().connect().host.toggle(state)
    if settings().json:
        _emit(host)
    else:
        _say(host)


@click.command()
@click.option(
    "--timeout",
    type=FiniteRange(0.001, 4_000_000),
    metavar="SECONDS",
    help="How long to wait. [default: as long as it takes]",
)
@click.option("--no-wait", is_flag=True, help="Do not wait until it is drained.")
@common  # fmt: skip
def drain(timeout: float | None, no_wait: bool) -> int:
    """Drain this host: no new work, and wait until all that runs is over and settled, and all that it keeps for others
    is acked by other hosts; 5 if --timeout passed before.

    Owners that are away move theirs when they are back; `offgrid host show` says whose is left.
    """
    client = settings().connect()
    host = client.host.toggle("drain")
    if no_wait:
        _say(host)
        return exits.OK
    for host in client.host.watch_drain(within_s=timeout):
        _say(host)
    if host.state == "drained":
        return exits.OK
    from offgrid.client import OffgridError

    raise OffgridError("UNAVAILABLE", "NotDrained", f"not drained within {timeout} s; the drain goes on")


@click.command()
@click.argument("owner", metavar="OWNER")
@yes_option
@common
def drop(owner: str, yes: bool) -> None:
    """Drop what this host keeps for OWNER, who was removed from the mesh 30 days ago or longer, for good.

    Members it was shared with read it for as long as it is here (`offgrid ls --shared` there), and lose it too: have
    them `offgrid get` it first. Nothing goes by itself; `offgrid host show` says how much it is.
    """
    if not yes:
        be_sure(
            f"Drop what is kept for {owner}, for good, so that members it was shared with cannot read it any more",
            "what is dropped is gone for good, for its readers too",
        )
    dropped, over = 0, False
    try:
        with working("dropping"):
            for answer in settings().connect().host.drop_kept(owner):
                dropped += answer.dropped
        over = True
    finally:
        if over or dropped:  # it may have ended midway
            _say_dropped(owner, dropped)


def _say_dropped(owner: str, dropped: int) -> None:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"owner": owner, "dropped": dropped})
        return
    from offgrid.command_line.terminal import clean

    click.echo(f"{dropped} {'object' if dropped == 1 else 'objects'} kept for {clean(owner)} dropped")


def _say(host: HostState) -> None:
    if settings().json:
        _emit(host)
    else:
        from offgrid.command_line.terminal import clean

        why = f": {clean(host.detail)}" if host.detail else ""
        click.echo(f"{clean(host.state)}{why} ({host.slots_busy} at work, {host.unsettled} unsettled)")


def _emit(host: HostState) -> None:
    from offgrid.json_form import json_of
    from offgrid_tools.cli.emitting import emit

    emit({"host": json_of(host)})
