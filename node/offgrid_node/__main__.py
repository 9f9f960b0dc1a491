"""The `offgrid-node` command: what a machine's owner types to make it a node and to run it.

Imports are lazy, so that --help and --version answer at once.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import click

from offgrid_node import __version__

EXIT_CONFIG, EXIT_REFUSED, EXIT_INTERRUPTED = 2, 4, 130
ROLES = click.Choice(["core", "broker", "host"])
T = TypeVar("T")

FOLDER = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("."),
    show_default="this folder",
    help="The node's folder.",
)
SETTINGS = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any key of the config, e.g. mesh.listen=0.0.0.0:7500.",
)
NAME = click.option("--name", help="What people call this node; the machine's name unless given.")
ROLE = click.option("--role", "roles", multiple=True, type=ROLES, help="May be repeated; all three unless given.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="offgrid-node")
def cli() -> None:
    """One machine of an off-grid mesh: it sends jobs, brokers them, or carries them out.

    \b
    First machine:    offgrid-node init --mesh home && offgrid-node run
    Its invitation:   offgrid mesh invite
    Next machine:     offgrid-node join TOKEN
    Just look:        offgrid-node demo
    """


@cli.command()
@click.option("--mesh", required=True, help="Name of the new mesh: a-z, 0-9 and '-'.")
@FOLDER
@NAME
@ROLE
@SETTINGS
def init(mesh: str, folder: Path, name: str | None, roles: tuple[str, ...], settings: tuple[str, ...]) -> None:
    """Founds a mesh: writes a commented offgrid.toml, this node's identity and the mesh's root key."""
    from offgrid_node.founding import found

    made = found(folder, mesh, name, roles or ("core", "broker", "host"), parse_settings(settings))
    click.echo(f"mesh {mesh} founded; this node is {made.name} ({made.node_id})")
    click.echo(f"  config    {made.config_path}")
    click.echo(f"  root key  {made.root_key_path}   keep a copy somewhere safe and offline")
    click.echo(f"next: offgrid-node run --dir {shlex.quote(str(folder))}")


@cli.command()
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
    """Makes this machine a member of the mesh that TOKEN invites to, and runs it."""
    from offgrid_node.joining import join as join_mesh

    made = join_mesh(folder, token, name, roles or ("core", "broker", "host"), parse_settings(settings), timeout_s)
    click.echo(f"joined mesh {made.mesh} as {made.name} ({made.node_id}); config {made.config_path}")
    if no_run:
        click.echo(f"next: offgrid-node run --dir {shlex.quote(str(folder))}")
    else:
        _run_anew(folder)


@cli.command()
@FOLDER
def run(folder: Path) -> None:
    """Runs the node of this folder until Ctrl-C or SIGTERM."""
    _run(folder)


@cli.group()
def config() -> None:
    """Looks at configuration files."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Says every problem of FILE, with .env and OFFGRID_* applied: file:line:column: key: what is wrong."""
    from offgrid_node.config import load, unused_settings

    config = load(file, os.environ)
    click.echo(f"{file}: no problems")
    for sentence in unused_settings(config):
        click.echo(f"{file}: {sentence}")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@click.option("--keep", is_flag=True, help="Leave the mesh running and print how to talk to it.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Where; a temporary folder unless given.")
def demo(file: Path | None, keep: bool, folder: Path | None) -> None:
    """Shows everything at work: five nodes, a job on FILE, a host killed in the middle of another job."""
    from offgrid_node.demo import demonstrate

    sys.exit(demonstrate(file, keep=keep, folder=folder))


def _run(folder: Path) -> None:
    from offgrid_node.config import CONFIG_NAME
    from offgrid_node.config.apart import ConfigReading

    with ConfigReading(folder / CONFIG_NAME) as reading:  # while this process imports all that a node is made of
        from offgrid_node.serving import serve

        serve(folder, reading)


def _run_anew(folder: Path) -> None:
    """As `_run`, without what this process has imported to get so far: it becomes that command, where it may. (On
    Windows the command would go on as a process that nobody waits for.)"""
    if sys.platform != "win32":
        sys.stdout.flush()
        # Our own import path, since we may not be installed.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = ["-P", "-m", "offgrid_node", "run", "--dir", str(folder)]
        with suppress(OSError):
            os.execve(sys.executable, [sys.executable, *command], environment)  # noqa: S606 - ourselves
    _run(folder)


def parse_settings(settings: tuple[str, ...]) -> Mapping[str, object]:
    """KEY=VALUE pairs; a value that reads as TOML is taken so, anything else is text."""
    import tomllib

    parsed: dict[str, object] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise click.UsageError(f"--set {setting}: KEY=VALUE is expected, e.g. mesh.listen=0.0.0.0:7500")
        try:
            parsed[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[key.strip()] = text
    return parsed


def main() -> None:
    """Runs the command; whatever goes wrong is one clear sentence and an exit code, never a traceback."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core writes every failed handshake to the terminal
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if (code := _explain(error)) is None:
            raise
        sys.exit(code)


def _explain(error: Exception) -> int | None:
    """Prints what an expected error says and returns the exit code; None for a defect of ours."""
    from offgrid_node.config import ConfigError
    from offgrid_node.protocol.errors import Fault, Internal

    if isinstance(error, ConfigError):
        for problem in error.problems:
            click.echo(str(problem), err=True)
        return EXIT_CONFIG
    if isinstance(error, Fault) and not isinstance(error, Internal):
        click.echo(f"offgrid-node: {error.message}", err=True)
        return EXIT_REFUSED
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        click.echo(f"offgrid-node: {place}{error.strerror}", err=True)
        return EXIT_REFUSED
    return None


if __name__ == "__main__":
    main()
