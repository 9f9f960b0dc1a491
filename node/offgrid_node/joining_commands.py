"""The commands of `offgrid-node` that make a machine a node: `init` and `join`."""

from __future__ import annotations

import shlex
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
