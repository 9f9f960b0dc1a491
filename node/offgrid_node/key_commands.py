"""The commands of `offgrid-node` for keys: `words` and `rotate`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from offgrid.command_line.asking import secret
from offgrid_node.options import FOLDER

if TYPE_CHECKING:
    from offgrid_node.keys import NodeKey


@click.command()
@FOLDER
@click.option("--root", is_flag=True, help="The mesh's root key, where the mesh was founded here.")
@click.option("--enter", is_flag=True, help="Ask for the words instead, and write the key's file that is lost.")
def words(folder: Path, root: bool, enter: bool) -> None:
    """Show this node's key as 24 recovery words, to be written down and kept where no fire or thief finds both."""
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
            "of the mesh's root key; whoever has them names admins: offgrid-node admin add NODE --root-words", err=True
        )
    else:
        click.echo(f"of node {key.node_id}; whoever has them is this node: offgrid-node restore --words", err=True)


def _enter(folder: Path, root: bool) -> None:
    from offgrid_node.keys.words import seed_of
    from offgrid_node.regaining import regain

    seed = seed_of(secret("recovery words"))
    click.echo(f"written: {regain(folder, seed, root=root)}")


ROOT_KEY = click.option(
    "--root-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The mesh's root key signs: its file.",
)
ROOT_WORDS = click.option("--root-words", is_flag=True, help="Likewise, by its recovery words, which are asked for.")


@click.command()
@FOLDER
@ROOT_KEY
@ROOT_WORDS
def rotate_identity(folder: Path, root_key: Path | None, root_words: bool) -> None:
    """Give this node another identity key; it stays the node that it is.

    The node must not run. Members learn the next key from it once it does, and refuse the one of before from then on.
    The one of before signs; where it is lost or in wrong hands, the mesh's root.
    """
    from offgrid_node.rotating import rotate_identity as rotate_now

    made = rotate_now(folder, root_given(root_key, root_words))
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


def root_given(root_key: Path | None, root_words: bool) -> NodeKey | None:
    from offgrid_node.keys import NodeKey
    from offgrid_node.keys.words import seed_of

    if root_words:
        return NodeKey(seed_of(secret("the root key's 24 words")))
    return NodeKey.read(root_key) if root_key is not None else None


@click.command()
@FOLDER
@ROOT_KEY
@ROOT_WORDS
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def rotate_root(folder: Path, root_key: Path | None, root_words: bool, as_json: bool) -> None:
    """Give the mesh another root key, on any member's machine; keys/mesh_root.key signs unless another is given.

    The node must not run. Members learn of it from this one once it does. The old key, and its words, sign nothing from
    then on; what they had signed stands.
    """
    from offgrid_node.rotating_root import rotate_root as rotate_now

    made = rotate_now(folder, root_given(root_key, root_words))
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


@click.command()
@click.argument("change", type=click.File("rb"))
@FOLDER
@click.option("--instead", is_flag=True, help="In place of another change of the root's key, which was a thief's.")
def rotate_take(change: BinaryIO, folder: Path, instead: bool) -> None:
    """Tell this node, which must not run, of another's key change that the mesh's root has signed, or of the root's.

    It is for when members do not know a node any more, since a thief of its key told them first, or where a thief of
    the root's key did; whoever takes it tells the others.
    """
    from offgrid_node.rotating import take_change

    names = take_change(folder, change.read(), instead=instead)
    click.echo(f"taken: the key of {', '.join(names)}" if names else "nothing new")
    click.echo(f"next: offgrid-node run --dir {shlex.quote(str(folder))}")
