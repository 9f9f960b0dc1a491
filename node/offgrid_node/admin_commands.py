"""The commands `offgrid-node admin`: who may invite and remove, which the mesh's root key says."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from offgrid_node.key_commands import ROOT_KEY, ROOT_WORDS, root_given
from offgrid_node.options import FOLDER

if TYPE_CHECKING:
    from offgrid_node.protocol.mesh.records import MemberRecord


@click.command()
@click.argument("node", metavar="NODE")
@FOLDER
@ROOT_KEY
@ROOT_WORDS
def add(node: str, folder: Path, root_key: Path | None, root_words: bool) -> None:
    """Name NODE an admin, who may invite and remove members, open the ledger and order its witnesses.

    On any member's machine, while its node stands still; keys/mesh_root.key signs unless another is given. Members hear
    of it once that node runs again. NODE is its name, its id, or the id's first characters.
    """
    from offgrid_node.naming_admins import name_admin

    record, is_new = name_admin(folder, node, root_given(root_key, root_words))
    _tell(record, "is an admin now" if is_new else "was an admin already", folder)


@click.command()
@click.argument("node", metavar="NODE")
@FOLDER
@ROOT_KEY
@ROOT_WORDS
def remove(node: str, folder: Path, root_key: Path | None, root_words: bool) -> None:
    """Take from NODE that it is an admin; it stays a member, and so does whom it admitted.

    As `admin add`. Of a mesh's last admin it cannot be taken. Whose key is in wrong hands is removed whole instead:
    offgrid mesh remove NODE, at another admin.
    """
    from offgrid_node.naming_admins import dismiss_admin

    record, is_new = dismiss_admin(folder, node, root_given(root_key, root_words))
    _tell(record, "is no admin any more" if is_new else "was no admin", folder)


def _tell(record: MemberRecord, became: str, folder: Path) -> None:
    click.echo(f"{record.name} ({record.node_id}) {became}")
    click.echo(f"next: offgrid-node run --dir {shlex.quote(str(folder))}")
