"""The `offgrid-node` command: what a machine's owner types to make it a node and to run it.

Imports are lazy, so that --help and --version answer at once.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from offgrid_node import __version__
from offgrid_node.bundle_commands import bundle
from offgrid_node.command_examples import give_examples
from offgrid_node.debug_command import debug
from offgrid_node.docs_command import docs
from offgrid_node.doctor_command import doctor
from offgrid_node.mesh_commands import down, restart, up
from offgrid_node.options import FOLDER, NAME, ROLE, SETTINGS, Commands, parse_settings
from offgrid_node.service_commands import service
from offgrid_node.store_commands import migrate, restore

if TYPE_CHECKING:
    from offgrid_node.keys import NodeKey

EXIT_CONFIG, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_INTERRUPTED = 2, 4, 5, 130


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="offgrid-node")
def cli() -> None:
    """One machine of an off-grid mesh: it sends jobs, brokers them, or carries them out.

    \b
    First machine:    offgrid-node init --mesh home && offgrid-node run
    Its invitation:   offgrid mesh invite
    Next machine:     offgrid-node join TOKEN
    Just look:        offgrid-node demo
    A mesh to try:    offgrid-node up --nodes 5
    What is wrong:    offgrid-node doctor
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

    def say(sentence: str) -> None:
        click.echo(f"note: {sentence}", err=True)

    chosen = roles or ("core", "broker", "host")
    made = join_mesh(folder, token, name, chosen, parse_settings(settings), timeout_s, say)
    click.echo(f"joined mesh {made.mesh} as {made.name} ({made.node_id}); config {made.config_path}")
    if no_run:
        click.echo(f"next: offgrid-node run --dir {shlex.quote(str(folder))}")
    else:
        _run_anew(folder)


@cli.command()
@FOLDER
@click.option("--root", is_flag=True, help="The mesh's root key, where the mesh was founded here.")
@click.option("--enter", is_flag=True, help="Asks for the words instead, and writes the key's file that is lost.")
def words(folder: Path, root: bool, enter: bool) -> None:
    """Shows this node's key as 24 recovery words, to be written down and kept where no fire or thief finds both."""
    if enter:
        _enter(folder, root)
        return
    from offgrid_node.folder import Folder
    from offgrid_node.keys import NodeKey
    from offgrid_node.rotating_root import load_root

    key = load_root(Folder(folder)) if root else NodeKey.load(Folder(folder).keys_path)
    click.echo(key.recovery_words())
    if root:
        click.echo(
            "of the mesh's root key; whoever has them names admins: offgrid-node rotate identity --root-words", err=True
        )
    else:
        click.echo(f"of node {key.node_id}; whoever has them is this node: offgrid-node restore --words", err=True)


def _enter(folder: Path, root: bool) -> None:
    from offgrid_node.keys.words import seed_of
    from offgrid_node.regaining import regain

    seed = seed_of(click.prompt("recovery words", hide_input=sys.stdin.isatty(), err=True))
    click.echo(f"written: {regain(folder, seed, root=root)}")


@cli.command()
@FOLDER
@click.option(
    "--accept-stale",
    is_flag=True,
    help="Go on with a store that is older than what hosts know of this node, and give up what came after.",
)
def run(folder: Path, accept_stale: bool) -> None:
    """Runs the node of this folder until Ctrl-C or SIGTERM."""
    if accept_stale:
        from offgrid_node.restoring import accept_stale as accept

        newer = accept(folder)
        click.echo(f"given up: what this node did up to segment {newer.number} of life {newer.life} of its journal")
    _run(folder)


@cli.group()
def rotate() -> None:
    """Replaces keys of this node, while it stands still."""


ROOT_KEY = click.option(
    "--root-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The mesh's root key signs: its file.",
)
ROOT_WORDS = click.option("--root-words", is_flag=True, help="Likewise, by its recovery words, which are asked for.")


@rotate.command("identity")
@FOLDER
@ROOT_KEY
@ROOT_WORDS
def rotate_identity(folder: Path, root_key: Path | None, root_words: bool) -> None:
    """Gives this node another identity key; it stays the node that it is.

    The node must not run. Members learn the next key from it once it does, and refuse the one of before from then on.
    The one of before signs; where it is lost or in wrong hands, the mesh's root.
    """
    from offgrid_node.rotating import rotate_identity as rotate_now

    made = rotate_now(folder, _root_given(root_key, root_words))
    click.echo(f"{made.key.node_id} has its key number {made.number}, in {made.key_path}")
    click.echo(f"  words     offgrid-node words --dir {shlex.quote(str(folder))}   write them down anew")
    if made.change_path is not None:
        click.echo(
            f"  change    {made.change_path}   if members do not know the node any more, since a thief of its key"
        )
        click.echo(
            "            told them first: give it to one of them, and there, stopped: offgrid-node rotate take FILE"
        )
    click.echo(f"next: offgrid-node run --dir {shlex.quote(str(folder))}")


def _root_given(root_key: Path | None, root_words: bool) -> NodeKey | None:
    from offgrid_node.keys import NodeKey
    from offgrid_node.keys.words import seed_of

    if root_words:
        return NodeKey(seed_of(click.prompt("the root key's 24 words", hide_input=sys.stdin.isatty(), err=True)))
    return NodeKey.read(root_key) if root_key is not None else None


@rotate.command("root")
@FOLDER
@ROOT_KEY
@ROOT_WORDS
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def rotate_root(folder: Path, root_key: Path | None, root_words: bool, as_json: bool) -> None:
    """Gives the mesh another root key, on any member's machine; keys/mesh_root.key signs unless another is given.

    The node must not run. Members learn of it from this one once it does. The old key, and its words, sign nothing from
    then on; what they had signed stands.
    """
    from offgrid_node.rotating_root import rotate_root as rotate_now

    made = rotate_now(folder, _root_given(root_key, root_words))
    if as_json:
        import json

        told = {"mesh": made.mesh, "number": made.number, "key": str(made.key_path), "change": str(made.change_path)}
        click.echo(json.dumps(told))
        return
    place = shlex.quote(str(folder))
    click.echo(f"mesh {made.mesh} has its root key number {made.number}, in {made.key_path}   keep a copy offline")
    click.echo(f"  words     offgrid-node words --root --dir {place}   write them down; the old ones are worth nothing")
    click.echo(f"  change    {made.change_path}   for a member that does not hear of it: there, stopped:")
    click.echo("            offgrid-node rotate take FILE")
    click.echo(f"next: offgrid-node run --dir {place}")


@rotate.command("take")
@click.argument("change", type=click.File("rb"))
@FOLDER
@click.option("--instead", is_flag=True, help="In place of another change of the root's key, which was a thief's.")
def rotate_take(change: BinaryIO, folder: Path, instead: bool) -> None:
    """Tells this node, which must not run, of another's key change that the mesh's root has signed, or of the root's.

    It is for when members do not know a node any more, since a thief of its key told them first, or where a thief of
    the root's key did; whoever takes it tells the others.
    """
    from offgrid_node.rotating import take_change

    names = take_change(folder, change.read(), instead=instead)
    click.echo(f"taken: the key of {', '.join(names)}" if names else "nothing new")
    click.echo(f"next: offgrid-node run --dir {shlex.quote(str(folder))}")


@cli.group()
def config() -> None:
    """Looks at configuration files."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Says every problem of FILE, with .env and OFFGRID_* applied: file:line:column: key: what is wrong."""
    from offgrid_node.config import load, unused_settings
    from offgrid_node.node_links import link_problems

    config = load(file, os.environ)
    if problems := link_problems(config):
        for problem in problems:
            click.echo(f"{file}: {problem}", err=True)
        sys.exit(2)
    click.echo(f"{file}: no problems")
    for sentence in unused_settings(config):
        click.echo(f"{file}: {sentence}")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--storage", is_flag=True, help="Keep a folder, FILE, while hosts die, instead of doing jobs.")
@click.option("--hosts", type=click.IntRange(4, 20), default=10, show_default=True, help="With --storage: how many.")
@click.option("--keep", is_flag=True, help="Leave the mesh running and print how to talk to it.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Where; a temporary folder unless given.")
def demo(file: Path | None, storage: bool, hosts: int, keep: bool, folder: Path | None) -> None:
    """Shows everything at work: five nodes, a job on FILE, a host killed in the middle of another job.

    With --storage an owner and ten hosts: a folder put, three of its hosts killed, and the folder got back."""
    from offgrid_node.demo import demonstrate, demonstrate_storage

    if file is not None and file.is_dir() != storage:
        why = "is not a directory, as --storage wants" if storage else "is a directory, which only --storage takes"
        raise click.UsageError(f"{file} {why}")
    if storage:
        sys.exit(demonstrate_storage(file, hosts, keep=keep, folder=folder))
    sys.exit(demonstrate(file, keep=keep, folder=folder))


def _run(folder: Path) -> None:
    from offgrid_node.config import CONFIG_NAME
    from offgrid_node.config.apart import ConfigReading
    from offgrid_node.heap import growing

    with ConfigReading(folder / CONFIG_NAME) as reading:  # while this process imports all that a node is made of
        with growing():
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


cli.add_command(bundle)
cli.add_command(docs)
cli.add_command(debug)
cli.add_command(doctor)
cli.add_command(restore)
cli.add_command(migrate)
cli.add_command(service)
cli.add_command(up)
cli.add_command(down)
cli.add_command(restart)
give_examples(cli)


def main() -> None:
    """Runs the command; whatever goes wrong is one clear sentence and an exit code, never a traceback."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core writes every failed handshake to the terminal
    try:
        cli.main(prog_name="offgrid-node", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"offgrid-node: {error.format_message()}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"  → {error.ctx.command_path} --help shows what is possible", err=True)
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
    from offgrid_node.protocol.errors import Fault, Internal, OutcomeUnknown, Unavailable

    if isinstance(error, ConfigError):
        for problem in error.problems:
            click.echo(str(problem), err=True)
        return EXIT_CONFIG
    if isinstance(error, Fault) and not isinstance(error, Internal):
        click.echo(f"offgrid-node: {error.message}", err=True)
        away = isinstance(error, Unavailable | OutcomeUnknown) and error.reason != "DiskError"
        return EXIT_UNAVAILABLE if away else EXIT_REFUSED
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        click.echo(f"offgrid-node: {place}{error.strerror}", err=True)
        return EXIT_REFUSED
    return None


if __name__ == "__main__":
    main()
