"""`offgrid debug bundle`: what `offgrid-node debug bundle` gathers of the node that this command would talk to."""

from __future__ import annotations

import click

from offgrid_tools.cli.doctor import beside_node
from offgrid_tools.cli.settings import common, settings


@click.command()
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="[default: offgrid-debug-TIME.zip, here]")
@click.option("--with-names", is_flag=True, help="Leave the names of objects in, and list them.")
@click.option("--log", metavar="FILE", help="The log, where the node's folder has none; `-` reads a pipe.")
@common
def bundle(output: str | None, with_names: bool, log: str | None) -> int:
    """Gather versions, config, status, links, findings and the log's end into a zip file, without secrets.

    No keys, tokens, invites, contents or names of objects are in it; the README in it says what is. It works whether
    the node runs or not, and changes nothing.
    """
    words = ["--output", output] if output else []
    words += ["--with-names"] * with_names + (["--log", log] if log else []) + ["--json"] * settings().json
    return beside_node("debug", "bundle", *words)
