"""`offgrid page`: a link to the node's own web page."""

from __future__ import annotations

import click

from offgrid_tools.cli.settings import common, settings


@click.command()
@click.option("--open", "open_it", is_flag=True, help="Open it in this machine's browser, too.")
@common
def page(open_it: bool) -> None:
    """Print a link to this node's web page.

    Where the node's gateway asks for a token, the link signs one browser in without it: once, and within two minutes.
    """
    link = settings().connect().mesh.page_link()
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(link)
    else:
        click.echo(link.url)
    if open_it:
        import webbrowser

        webbrowser.open(link.url)
