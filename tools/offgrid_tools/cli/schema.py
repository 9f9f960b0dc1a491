"""`offgrid schema`: JSON Schema of what commands print with --json."""

from __future__ import annotations

import click

from offgrid_tools.cli.settings import common


@click.command()
@click.argument("command", metavar="[COMMAND]...", nargs=-1)
@common
def schema(command: tuple[str, ...]) -> None:
    """Print the JSON Schema (draft 2020-12) of what COMMAND prints with --json; without COMMAND, of all.

    Of a command that prints a document a line, each is as the schema says. "error" is what any command that fails
    prints on standard error. Nodes of later versions may add fields, and take none away.
    """
    import difflib
    import json

    from offgrid_tools.cli.documents import DOCUMENTS, OTHERS, all_schemas, schema_for

    name = " ".join(command)
    if name in OTHERS:
        raise click.UsageError(f"{name} has no schema here: {OTHERS[name]}")
    if name and name != "error" and name not in DOCUMENTS:
        close = difflib.get_close_matches(name, DOCUMENTS, 1)
        raise click.UsageError(f"there is no command {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    made = schema_for(name) if name else all_schemas()
    click.echo(json.dumps(made, indent=2, ensure_ascii=False))
