"""`offgrid mesh invites` and `revoke`: what was given out, and taking it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid.command_line.terminal import counted
from offgrid_tools.cli.asking import be_sure, yes_option
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from offgrid.v1.mesh_pb2 import Invite


@click.command()
@click.option("--open", "open_only", is_flag=True, help="Those alone that nobody has used.")
@common
def invites(open_only: bool) -> None:
    """List the invites that this node has made, the newest first, and whom each let in. Their secrets stay here."""
    mesh = settings().connect().mesh
    found = sorted(mesh.invites(open_only=open_only), key=lambda each: -each.created_us)
    if settings().json:
        _emit(found)
        return
    from offgrid_tools.cli.mesh import role_words
    from offgrid_tools.cli.output import table, when

    names = {peer.member.node_id: peer.member.name for peer in mesh.peers(include_removed=True)}
    table(
        ("invite", "made", "for", "used by"),
        (
            (
                each.invite_id,
                when(each.created_us),
                role_words(each.roles),
                names.get(each.used_by, each.used_by) or "nobody yet",
            )
            for each in found
        ),
        empty="this node has made no invites" if not open_only else "no invite is open",
    )


@click.command()
@click.argument("invite", nargs=-1, metavar="[INVITE]...")
@click.option("--all", "every", is_flag=True, help="All that nobody has used.")
@yes_option
@common
def revoke(invite: tuple[str, ...], every: bool, yes: bool) -> None:
    """Take back each INVITE, which nobody has used yet: its id in `offgrid mesh invites`, or the id's first characters.

    It opens no door any more. Whom an invite has let in stays; `offgrid mesh remove` ends that.
    """
    if bool(invite) == every:
        raise click.UsageError("say which: INVITE..., or --all that are open")
    mesh = settings().connect().mesh
    meant = [each.invite_id for each in mesh.invites(open_only=True)] if every else list(invite)
    if every and meant and not yes:
        be_sure(f"Take back {counted(len(meant), 'invite')}", "whoever was given one can then join by a new one alone")
    taken = [mesh.revoke_invite(each) for each in meant]
    if settings().json:
        _emit(taken)
        return
    for each in taken:
        click.echo(f"taken back {each.invite_id}")
    if not taken:
        click.echo("no invite is open")


def _emit(found: Sequence[Invite]) -> None:
    from offgrid.json_form import json_of
    from offgrid_tools.cli.emitting import emit

    emit({"invites": [json_of(each) for each in found]})
