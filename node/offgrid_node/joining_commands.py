"""The commands of `offgrid-node` that make a machine a node: `init` and `join`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from offgrid_node.options import FOLDER, NAME, ROLE, SETTINGS, parse_settings


@click.command()
@click.option("--mesh", required=True, help="Name of the new mesh: a-z, 0-9 and '-'.")
@FOLDER
@NAME
@ROLE
@SETTINGS
def init(mesh: str, folder: Path, name: str | None, roles: tuple[str, ...], settings: tuple[str, ...]) -> None:
    """Found a mesh: write a commented offgrid.toml, this node's identity and the mesh's root key."""
    from offgrid_node.founding import found

    _check_owner(folder, ["init", "--mesh", mesh], name, roles, settings)
    made = found(folder, mesh, name, roles or ("core", "broker", "host"), parse_settings(settings))
    click.echo(f"mesh {mesh} founded; this node is {made.name} ({made.node_id})")
    click.echo(f"  config    {made.config_path}")
    click.echo(f"  root key  {made.root_key_path}   keep a copy somewhere safe and offline")
    click.echo(f"next: offgrid-node run --dir {shlex.quote(str(folder))}")


@click.command()
@click.argument("token")
@FOLDER
@NAME
@ROLE
@SETTINGS
@click.option("--no-run", is_flag=True, help="Join only; start with `offgrid-node run` later.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(1, 3600),
    default=30,
    show_default=True,
    help="Seconds to look for the inviter.",
)
def join(
    token: str,
    folder: Path,
    name: str | None,
    roles: tuple[str, ...],
    settings: tuple[str, ...],
    no_run: bool,
    timeout_s: int,
) -> None:
    """Join the mesh that TOKEN invites to, and run this machine as its member."""
    from offgrid_node.joining import join as join_mesh

    words = ["join", token, "--timeout", str(timeout_s), *(["--no-run"] if no_run else [])]
    _check_owner(folder, words, name, roles, settings)

    def say(sentence: str) -> None:
        click.echo(f"note: {sentence}", err=True)

    chosen = roles or ("core", "broker", "host")
    made = join_mesh(folder, token, name, chosen, parse_settings(settings), timeout_s, say)
    click.echo(f"joined mesh {made.mesh} as {made.name} ({made.node_id}); config {made.config_path}")
    if no_run:
        click.echo(f"next: offgrid-node run --dir {shlex.quote(str(folder))}")
    else:
        from offgrid_node.run_command import run_anew

        run_anew(folder)


def _check_owner(
    folder: Path, words: Sequence[str], name: str | None, roles: Sequence[str], settings: Sequence[str]
) -> None:
    """Raises FailedPrecondition (OtherOwner), with the command to type: whose folder it is runs the node there, and
    would read none of the files that another user, root say, makes for it."""
    from offgrid_node.keys import other_owner
    from offgrid_node.protocol.errors import FailedPrecondition

    if not (owner := other_owner(folder)):
        return
    options = [("--dir", str(folder)), *([("--name", name)] if name else [])]
    options += [*(("--role", role) for role in roles), *(("--set", setting) for setting in settings)]
    typed = ["sudo", "-u", owner, "offgrid-node", *words, *(word for option in options for word in option)]
    text = f"{folder.absolute()} is {owner}'s, who alone can run a node there. Type: {shlex.join(typed)}"
    raise FailedPrecondition(text, reason="OtherOwner")
