"""docs/reference/cli.md: what every command says of itself, from the trees of click."""

from __future__ import annotations

from collections.abc import Iterator

import click

from offgrid_node.root import ROOT as NODE_ROOT
from offgrid_tools.cli.root import ROOT

COLUMNS = 98
HEAD = """# Commands

What `--help` says of every command of `offgrid`, which looks after a running node, and of `offgrid-node`, which makes a
machine one and runs it. What scripts can rely on (exit codes, JSON) stands in [the operator command](../cli.md).
"""


def text() -> str:
    lines = [HEAD, *_command(NODE_ROOT, None, "offgrid-node"), *_command(ROOT, None, "offgrid")]
    return "\n".join(lines).rstrip() + "\n"


def _command(command: click.Command, above: click.Context | None, name: str) -> Iterator[str]:
    settings = {**command.context_settings, "terminal_width": COLUMNS, "max_content_width": COLUMNS}
    command._help_option = None  # of whoever asked for help first in this process, with or without -h
    context = click.Context(command, above, info_name=name, **settings)
    yield from (f"## {context.command_path}" if above is None else f"### {context.command_path}", "")
    yield from ("```text", command.get_help(context).rstrip(), "```", "")
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            if (inner := command.get_command(context, word)) is not None and not inner.hidden:
                yield from _command(inner, context, word)
