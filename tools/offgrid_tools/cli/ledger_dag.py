"""`offgrid ledger dag`: the blocks of the ledger and what each leans on, as text or as a picture."""

from __future__ import annotations

import importlib
from itertools import islice

import click

from offgrid.command_line.terminal import counted
from offgrid_tools.cli.files import TargetFile
from offgrid_tools.cli.settings import common, settings

BLOCKS_MAX = 1_000


@click.command()
@click.option("--from", "first", type=click.IntRange(1, 2**63 - 1), metavar="POSITION",
              help="The first block, by its position at this node. [default: the newest ones]")  # fmt: skip
@click.option("--blocks", "count", type=click.IntRange(1, BLOCKS_MAX), default=50, show_default=True,
              help="How many.")  # fmt: skip
@click.option("--svg", "picture", type=TargetFile(), metavar="FILE",
              help="Draw it into FILE instead; - is standard output.")  # fmt: skip
@common
def dag(first: int | None, count: int, picture: str | None) -> None:
    """Show the ledger's blocks: who said what, after what.

    A line for each, in the order in which this node took them in: its position, author and height, the blocks of others
    that it names, and what is in it. FORK marks an author that signed two blocks at one height.
    """
    # What reads blocks is the node's own code, which this command otherwise knows nothing of: hence no import.
    drawing = importlib.import_module("offgrid_tools.dag")
    from offgrid.client.errors import OffgridError
    from offgrid_tools.cli.jobs import node_names

    client = settings().connect()
    genesis, page = client.ledger.genesis(), client.ledger.block_page(first or 0, count)
    if not genesis.open:
        raise OffgridError("FAILED_PRECONDITION", "LedgerNotOpen", "the mesh's ledger is not open")
    blocks = islice(client.ledger.blocks(page.first), count)
    graph = drawing.vertices(blocks, drawing.salt_of(genesis.genesis.body), node_names(client))
    if picture is not None:
        title = f"ledger of {genesis.mesh}, {counted(len(graph), 'block')} from position {page.first} on"
        _write(picture, drawing.svg(graph, title).encode())
    elif settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"newest": page.newest, "blocks": [drawing.document(vertex) for vertex in graph]})
    else:
        from offgrid_tools.cli.output import table

        table(("position", "block", "names", "says"), drawing.lines(graph), empty="no blocks there")


def _write(path: str, data: bytes) -> None:
    if path == "-":
        import sys

        sys.stdout.buffer.write(data)
        return
    from offgrid.client.targets import replaced

    with replaced(path) as file:
        file.write(data)
