"""`offgrid status`, `peers` and `mesh`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from offgrid.command_line.terminal import counted
from offgrid_tools.cli.amounts import Weight, weight_of
from offgrid_tools.cli.asking import be_sure, yes_option
from offgrid_tools.cli.meaning import meant
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from offgrid.client import Client
    from offgrid.v1.common_pb2 import Role
    from offgrid.v1.mesh_pb2 import GetStatusResponse, Member

LOST_SHOWN = 4


def role_words(roles: Iterable[Role.ValueType]) -> str:
    from offgrid.v1.common_pb2 import Role
    from offgrid_tools.cli.output import word

    return " ".join(word(Role, role) for role in roles)


@click.command()
@common
def status() -> None:
    """Show what this node is and how it does."""
    answer = settings().connect().mesh.status()
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    from offgrid_tools.cli.output import duration, facts

    facts(
        [
            ("node", f"{answer.name} ({answer.node_id})"),
            ("mesh", f"{answer.mesh} ({answer.mesh_id})"),
            ("roles", role_words(answer.roles)),
            ("peers", f"{answer.peers_alive} of {answer.peers_total} alive"),
            ("jobs", f"{answer.jobs_open} open, {answer.slots_busy} of {answer.slots_total} slots busy"),
            (
                "journal",
                f"{counted(answer.journal_seq, 'event')}, commit {answer.commit_ms_p50:.2f} ms {answer.commit_mode}",
            ),
            ("restores", _restores(answer)),
            ("ledger", answer.ledger),
            ("coder", answer.coder),
            ("repairs", _repairs(answer)),
            ("scrub", _scrub(answer)),
            ("audits", _audits(answer)),
            ("inbox", answer.inbox_depth),
            ("up", f"{duration(answer.uptime_ms)}, version {answer.version}"),
            ("data", answer.data_dir),
            ("page", answer.page),
            ("dropped", answer.retention),
            *(("objects", said) for said in _objects(answer)),
            *(("alert", said) for said in alerts_of(answer)),
            ("removed", "this node's membership was revoked" if answer.removed else ""),
            *(("notice", notice) for notice in answer.notices),
        ]
    )


def _restores(answer: GetStatusResponse) -> str:
    """Up to where it would come back without its disk."""
    if not answer.HasField("journal_safe_seq"):
        return ""
    seq = answer.journal_safe_seq
    return f"up to event {seq}" if seq else "nothing yet: hosts have acked none of its journal"


def _repairs(answer: GetStatusResponse) -> str:
    """What it pulled and gave since its start, and what it may; "" where there is nothing to say."""
    from offgrid_tools.cli.output import size

    most = f"at most {size(answer.repair_bytes_per_s)}/s" if answer.repair_bytes_per_s else ""
    if not answer.repair_pulled_bytes and not answer.repair_given_bytes:
        return most
    moved = f"{size(answer.repair_pulled_bytes)} pulled, {size(answer.repair_given_bytes)} given"
    return f"{moved}, {most}" if most else moved


def alerts_of(answer: GetStatusResponse) -> Iterator[str]:
    """Those beyond a threshold, the worst first."""
    from offgrid.verdicts import alert_sentence
    from offgrid_tools.cli.output import when

    for alert in answer.alerts:
        if said := alert_sentence(alert):
            yield f"{said}, since {when(alert.since_us)}"


def _objects(answer: GetStatusResponse) -> Iterator[str]:
    """What may be lost of them, the worst first, and what to type next."""
    from offgrid.verdicts import objects_at_risk, objects_degraded, objects_gone

    for judge, following in (
        (objects_gone, "offgrid doctor"),
        (objects_at_risk, "offgrid doctor"),
        (objects_degraded, "offgrid ls --long"),
    ):
        if said := judge(answer.objects):
            yield f"{said} → {following}"


def _scrub(answer: GetStatusResponse) -> str:
    """Of others' shards here, since its start."""
    from offgrid_tools.cli.output import size

    if not answer.scrub_read_bytes and not answer.scrub_damaged:
        return ""
    return f"{size(answer.scrub_read_bytes)} read, shards damaged or gone: {answer.scrub_damaged}"


def _audits(answer: GetStatusResponse) -> str:
    """Of its own objects at their hosts: what is verified now, and what was found since its start."""
    from offgrid_tools.cli.output import size, when

    said = []
    if answer.audit_verified:
        said.append(f"objects verified: {answer.audit_verified}, the longest ago {when(answer.audit_oldest_us)}")
    if answer.audit_wrong:
        said.append(f"shards wrong or gone: {answer.audit_wrong}")
    if answer.audit_read_bytes:
        said.append(f"{size(answer.audit_read_bytes)} read")
    return ", ".join(said)


@click.command()
@click.option("--removed", is_flag=True, help="Removed members too.")
@click.option("--roads", is_flag=True, help="Which roads lead to each, the one in use first.")
@common
def peers(removed: bool, roads: bool) -> None:
    """Show the members of the mesh and how alive they seem from here."""
    if roads:
        if removed:
            raise click.UsageError("no road leads to a removed member: say --roads or --removed")
        from offgrid_tools.cli.links import show_roads

        show_roads("")
        return
    found = list(settings().connect().mesh.peers(include_removed=removed))
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"peers": [json_of(peer) for peer in found]})
        return
    from offgrid.v1.common_pb2 import Liveness
    from offgrid_tools.cli.output import ID_CHARS, table, word

    table(
        ("name", "id", "state", "roles", "address", "version"),
        (
            (
                peer.member.name + (" (here)" if peer.self else ""),
                peer.member.node_id[:ID_CHARS],
                "removed" if peer.member.removed else word(Liveness, peer.liveness),
                role_words(peer.roles_in_force),
                peer.addresses[0] if peer.addresses else "",
                peer.version,
            )
            for peer in found
        ),
        empty="no members are known",
    )


@click.command()
@common
def members() -> None:
    """Show who belongs to the mesh, what each may do, and who was removed."""
    found = [peer.member for peer in settings().connect().mesh.peers(include_removed=True)]
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"members": [json_of(member) for member in found]})
        return
    from offgrid_tools.cli.output import ID_CHARS, table

    table(
        ("name", "id", "may be", "weight", "domain", "epoch", "state"),
        (
            (
                member.name,
                member.node_id[:ID_CHARS],
                role_words(member.roles) + (" admin" if member.admin else ""),
                weight_of(member.weight_milli),
                member.failure_domain,
                member.epoch,
                "removed" if member.removed else "member",
            )
            for member in found
        ),
        empty="no members are known",
    )


@click.command()
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(["core", "broker", "host"]),
    help="What the new member may do; repeat it for more. [default: everything]",
)
@click.option("--weight", "weight_milli", type=Weight(), metavar="WEIGHT", help="Its weight in quorums. [default: 1.0]")
@click.option("--domain", metavar="NAME", default="", help="What it fails together with: a room, a power line.")
@click.option(
    "--qr", "picture", type=click.Path(path_type=Path), help="Write it as a QR code, too: FILE.svg or FILE.png."
)
@common
def invite(roles: tuple[str, ...], weight_milli: int | None, domain: str, picture: Path | None) -> None:
    """Print a token that lets one new node join, once; on a terminal as a QR code, too."""
    if picture is not None and picture.suffix.lower() not in (".svg", ".png"):
        raise click.BadParameter(f"{picture.name}: a QR code is written as .svg or .png", param_hint="--qr")
    answer = settings().connect().mesh.invite(roles=roles, weight_milli=weight_milli or 0, domain=domain)
    if picture is not None:
        from offgrid import qr_code
        from offgrid.client.targets import replaced

        with replaced(picture, 0o600) as file:  # whoever sees it may join
            file.write(qr_code.picture(answer.token, picture))
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    click.echo(answer.token)
    if sys.stdout.isatty():
        _show_code(answer.token)
    click.echo("On the new machine: offgrid-node join TOKEN", err=True)


def _show_code(token: str) -> None:
    """Where it fits."""
    import shutil

    from offgrid import qr_code

    lines, (columns, rows) = qr_code.lines(token), shutil.get_terminal_size()
    if len(lines[0]) > columns or len(lines) > rows:
        click.echo("a QR code of it is too large for this terminal: --qr FILE.svg", err=True)
        return
    for line in lines:
        click.echo(click.style(line, fg="bright_white", bg="black"))


def _lost_with(client: Client, member: Member | None) -> str:
    """Which objects of this node's, or why that is not known; "" where there are none, or nobody is meant."""
    from offgrid.client.errors import OffgridError
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.listing import sound
    from offgrid_tools.cli.losses import needs

    if member is None or member.removed:
        return ""
    try:
        found, _ = sound(client.objects.list())
    except OffgridError as fault:  # a thief's machine has to be removed all the same
        return f"not known ({clean(fault.message)})"
    lost = [clean(made.name) or made.object_id for made in found if needs(made, member.node_id)]
    more = f" and {len(lost) - LOST_SHOWN} more" if len(lost) > LOST_SHOWN else ""
    shown = f"{', '.join(lost[:LOST_SHOWN])}{more}"
    return f"{counted(len(lost), 'object')} ({shown}), unless `offgrid get` brings them first" if lost else ""


@click.command()
@click.argument("node", metavar="NODE")
@yes_option
@common
def remove(node: str, yes: bool) -> None:
    """Revoke the membership of NODE, for good: its name, its id, or the id's first characters.

    It says first which objects of this node's cannot be had without what that member keeps.
    """
    client = settings().connect()
    peers = list(client.mesh.peers(include_removed=True))
    lost = _lost_with(client, meant(node, peers))
    if not yes:
        be_sure(
            f"Remove {node} from the mesh, for good, so that it can come back by a new invite alone",
            "a member that is removed comes back by a new invite alone",
            [("lost with it", lost)] if lost else [],
        )
    elif lost:
        click.echo(f"lost with it: {lost}", err=True)
    before = {peer.member.node_id for peer in peers if peer.member.removed}
    member = client.mesh.remove(node)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"member": json_of(member)})
        return
    from offgrid.command_line.terminal import clean

    who = f"{clean(member.name)} ({member.node_id})"
    click.echo(f"{who} was removed already" if member.node_id in before else f"removed {who}")


@click.command()
@click.option(
    "--root-key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The root key that signs."
)
@click.option("--root-words", is_flag=True, help="Likewise, by its recovery words, which are asked for.")
@common
def rotate(root_key: Path | None, root_words: bool) -> int:
    """Give the mesh another root key.

    On any member's machine, while its node stands still; the key in its folder signs unless another is given. Members
    hear of it once that node runs again. A node's own key: offgrid-node rotate identity.
    """
    from offgrid_tools.cli.doctor import beside_node

    key = ["--root-key", str(root_key.absolute())] if root_key is not None else []
    return beside_node("rotate", "root", *key, *["--root-words"] * root_words, *["--json"] * settings().json)
