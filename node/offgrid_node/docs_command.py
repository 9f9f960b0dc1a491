"""`offgrid-node docs`: the documents that come with it, as a site of plain pages."""

from __future__ import annotations

from pathlib import Path

import click

from offgrid.command_line.terminal import counted
from offgrid.command_line.working import working


@click.command()
@click.option(
    "--out",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where; it is made. What is there of an older site is replaced.",
)
def docs(folder: Path) -> None:
    """Write the documents as a site of plain pages, which need no server, no script and no network.

    A running node serves the same at /docs of its gateway.
    """
    from offgrid_node.manual import Library, NoDocuments, Site

    try:
        with working("writing the documents"):
            count = Site(Library.found()).write(folder)
    except NoDocuments as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{counted(count, 'file')}; begin with {folder / 'index.html'}")
