"""The commands of `offgrid-node` for a whole mesh on this machine: `up`, `down`, `restart`."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from offgrid_node.options import SETTINGS, parse_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from offgrid_node.protocol.errors import NotFound
    from offgrid_node.standing_mesh import StandingMesh

NODES_MAX = 20
GAP = "  "


MESH_FOLDER = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("offgrid-mesh"),
    show_default=True,
    help="The folder that holds the mesh: a folder for each node.",
)


@click.command()
@click.option(
    "--nodes",
    type=click.IntRange(1, NODES_MAX),
    help="How many are to run: a core, a broker (of 3 the core), else hosts. [default: those that there are, else 5]",
)
@click.option("--mesh", default="local", show_default=True, help="Name of the mesh, if it is founded now.")
@MESH_FOLDER
@SETTINGS
def up(nodes: int | None, mesh: str, folder: Path, settings: tuple[str, ...]) -> None:
    """Have a whole mesh run on this machine, in the background, each node a process of its own.

    Again, it starts what has stopped or died, and makes what is missing. KEY=VALUE holds for nodes that are made now.
    Ctrl-C before it has ended stops what it has started.
    """
    from offgrid_node.own_processes import ended_by_sigterm
    from offgrid_node.standing_mesh import StandingMesh

    with ended_by_sigterm(), StandingMesh(folder, click.echo) as standing:
        standing.up(nodes, mesh, parse_settings(settings))
        standing.wait_alive()
        _show(standing)


def _known(context: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """The mesh's nodes, for a shell that completes; nothing where the folder cannot be read."""
    from offgrid_node.protocol.errors import Fault
    from offgrid_node.standing_mesh import StandingMesh

    with suppress(Fault, OSError):
        return [name for name in StandingMesh(context.params["folder"]).nodes if name.startswith(begun)]
    return []


NAMES = click.argument("names", metavar="[NODE]...", nargs=-1, shell_complete=_known)


@click.command()
@NAMES
@MESH_FOLDER
@click.option("--purge", is_flag=True, help="Remove its folders too: keys, store, everything. Asks first.")
@click.option("--yes", is_flag=True, help="With --purge: do not ask.")
def down(names: tuple[str, ...], folder: Path, purge: bool, yes: bool) -> None:
    """Stop the mesh that `up` has started, or the nodes of it that are named."""
    if purge and names:
        raise click.UsageError("--purge removes the whole mesh: name no node")
    if not folder.is_dir():
        raise _no_mesh(folder)
    from offgrid_node.standing_mesh import StandingMesh

    with StandingMesh(folder) as standing:
        if not standing.nodes:
            raise _no_mesh(folder)
        if purge and not yes:
            _confirm(folder)
        for name, said in standing.down(names).items():
            click.echo(f"{name} {said}")
        if purge:
            standing.purge()
            rest = f"what else is in it stays: {', '.join(sorted(os.listdir(folder)))}" if folder.exists() else ""
            click.echo(f"{folder}: {rest or 'removed'}")


@click.command()
@NAMES
@MESH_FOLDER
def restart(names: tuple[str, ...], folder: Path) -> None:
    """Stop the mesh that `up` has started, or the nodes of it that are named, and start them again."""
    from offgrid_node.own_processes import ended_by_sigterm
    from offgrid_node.standing_mesh import StandingMesh

    if not folder.is_dir():
        raise _no_mesh(folder)
    with ended_by_sigterm(), StandingMesh(folder, click.echo) as standing:
        if not standing.nodes:
            raise _no_mesh(folder)
        standing.down(names)
        standing.start(names, {})
        standing.wait_alive(names)
        _show(standing)


def _no_mesh(folder: Path) -> NotFound:
    from offgrid_node.protocol.errors import NotFound

    return NotFound(f"there is no mesh in {folder}; offgrid-node up makes one", reason="NoMesh")


def _confirm(folder: Path) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("--purge removes keys and data for good: say --yes where nobody can be asked")
    click.confirm(f"remove {folder}, with the keys and the data of all its nodes?", abort=True)


def _show(standing: StandingMesh) -> None:
    """A line for each node, and how to talk to the mesh."""
    found = standing.standing()
    rows = [
        (each.planned.name, " ".join(each.planned.roles), str(each.pid or "down"), each.page or "-") for each in found
    ]
    click.echo()
    _table(("NODE", "ROLES", "PROCESS", "PAGE"), rows)
    first = found[0]
    place = shlex.quote(_from_here(first.folder))
    whole = "" if standing.folder == Path("offgrid-mesh").absolute() else f" --dir {shlex.quote(str(standing.folder))}"
    click.echo("\nTalk to it:")
    click.echo(f"  offgrid --node-dir {place} status")
    click.echo(f"  offgrid --node-dir {place} smoke        tries everything once")
    click.echo(f"  offgrid-node down{whole}")


def _from_here(folder: Path) -> str:
    """Relative to where the shell is; as it is where that cannot be said, as on another drive of Windows."""
    try:
        return os.path.relpath(folder)
    except ValueError:
        return str(folder)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    for row in [columns, *rows]:
        click.echo(GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
