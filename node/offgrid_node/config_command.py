"""`offgrid-node config check`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from offgrid.command_line import exits
from offgrid_node.config import CONFIG_NAME


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=CONFIG_NAME)
def check(file: Path) -> int | None:
    """Say every problem of FILE (./offgrid.toml), with .env and OFFGRID_* applied.

    As file:line:column: key: what is wrong.
    """
    from offgrid_node.config import load, unused_settings
    from offgrid_node.node_links import link_problems

    config = load(file, os.environ)
    if problems := link_problems(config):
        for problem in problems:
            click.echo(f"{file}: {problem}", err=True)
        return exits.USAGE
    click.echo(f"{file}: no problems")
    for sentence in unused_settings(config):
        click.echo(f"{file}: {sentence}")
    return None
