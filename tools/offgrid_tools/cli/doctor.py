"""`offgrid doctor`: what `offgrid-node doctor` says of the node that this command would talk to, running or not.

It is a process of its own, since it looks at the node's files with the node's own code, of which the operator command
knows nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from offgrid_tools.cli.settings import common, settings

CONFIG_NAME = "offgrid.toml"
_THERE = {"debug": "debug bundle", "rotate": "mesh rotate"}  # what is typed here for a command of `offgrid-node`


@click.command()
@click.option("--all", "everything", is_flag=True, help="Show what is well and what does not apply, too.")
@common
def doctor(everything: bool) -> int:
    """Say what is the matter with this node, and what to type next.

    It changes nothing, works whether the node runs or not, and takes 5 seconds at most. Ends with 1 when it has found a
    fault: something that keeps the node, or a part of it, from working. Warnings end with 0.
    """
    return beside_node("doctor", *["--all"] * everything, *["--json"] * settings().json)


def beside_node(*words: str) -> int:
    """Runs that command of `offgrid-node` for the folder of the node; its exit code."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "offgrid_node",
        *words,
        "--dir",
        str(_folder(_THERE.get(words[0], words[0]))),
    ]
    # Our own import path, since we may not be installed.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, env=environment, check=False).returncode


def _folder(typed: str) -> Path:
    """Where the config of the node lies that other commands would call; the first of the usual places if none does.
    `typed`: the command of `offgrid`."""
    from offgrid.client.address import is_url

    said = settings().node_dir or (settings().where()[0] or "").removeprefix("unix:")
    if is_url(said):
        raise click.UsageError(f"it looks at a node's files: on the machine of {said}, type `offgrid {typed}` there")
    place = Path(said).expanduser() if said else None
    usual = [Path(), Path.home() / ".offgrid"]
    near = [place, place.parent, place.parent.parent] if place is not None else usual
    found = next(filter(_is_nodes, near), None)
    if found is None and said and not settings().node_dir:
        raise click.UsageError(f"no {CONFIG_NAME} lies beside {said}: say --node-dir, the folder where it is")
    return found or place or usual[0]


def _is_nodes(folder: Path) -> bool:
    """One that this user may not look into is taken for it: the command that looks at it says whose it is."""
    try:
        return (folder / CONFIG_NAME).is_file()
    except PermissionError:
        return True
