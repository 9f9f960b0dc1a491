"""`offgrid-node run`, and what other commands become once a node is there: that one."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import click

from offgrid.starting import Starting
from offgrid_node.options import FOLDER


@click.command()
@FOLDER
@click.option(
    "--accept-stale",
    is_flag=True,
    help="Go on with a store that is older than what hosts know of this node, and give up what came after.",
)
def run(folder: Path, accept_stale: bool) -> None:
    """Run the node of this folder until Ctrl-C or SIGTERM."""
    if accept_stale:
        from offgrid_node.restoring import accept_stale as accept

        newer = accept(folder)
        click.echo(f"given up: what this node did up to segment {newer.number} of life {newer.life} of its journal")
    run_here(folder)


def run_here(folder: Path) -> None:
    from offgrid_node.config import CONFIG_NAME
    from offgrid_node.config.apart import ConfigReading
    from offgrid_node.heap import growing

    with Starting(folder) as starting, ConfigReading(folder / CONFIG_NAME) as reading:
        with growing():  # the config is read while this process imports all that a node is made of
            from offgrid_node.serving import serve

        serve(folder, reading, starting.over)


def run_anew(folder: Path) -> None:
    """As `run_here`, without what this process has imported to get so far: it becomes that command, where it may. (On
    Windows the command would go on as a process that nobody waits for.)"""
    if sys.platform != "win32":
        sys.stdout.flush()
        # Our own import path, since we may not be installed.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = ["-P", "-m", "offgrid_node", "run", "--dir", str(folder)]
        with suppress(OSError):
            os.execve(sys.executable, [sys.executable, *command], environment)  # noqa: S606 - ourselves
    run_here(folder)
