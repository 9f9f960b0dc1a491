"""`offgrid-node debug bundle`: one file for whoever helps."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

import click

from offgrid.command_line.working import working
from offgrid_node.options import FOLDER


@click.command()
@FOLDER
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: offgrid-debug-TIME.zip, here]"
)
@click.option("--with-names", is_flag=True, help="Leave the names of objects in, and list them.")
@click.option(
    "--log", type=click.File("r", errors="replace"), help="The log, where the folder has none; `-` reads a pipe."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def bundle(folder: Path, output: Path | None, with_names: bool, log: TextIO | None, as_json: bool) -> None:
    """Gather versions, config, status, links, findings and the log's end into a zip file, without secrets.

    No keys, tokens, invites, contents or names of objects are in it; the README in it says what is. It works whether
    the node runs or not, and changes nothing.
    """
    from offgrid_node.debugging.collecting import write_bundle

    if output is not None and not output.parent.is_dir():
        raise click.BadParameter(f"there is no folder {output.parent}", param_hint="'-o' / '--output'")
    if output is not None and output.exists():
        why = f"{output} is there already; another name, or none: then the time is in it"
        raise click.BadParameter(why, param_hint="'-o' / '--output'")
    target = output or Path(time.strftime("offgrid-debug-%Y%m%d-%H%M%S.zip"))
    text = log.read() if log is not None else None
    with working("gathering", shown=not as_json):
        names = write_bundle(folder, target, with_names=with_names, log=text)
    if as_json:
        import json

        click.echo(json.dumps({"path": str(target), "files": list(names)}, ensure_ascii=False))
        return
    click.echo(f"{target}, {target.stat().st_size / 1000:.0f} kB: {', '.join(names)}")
    click.echo("look through it before you send it: its README.txt says what is in it")
    sys.stdout.flush()
