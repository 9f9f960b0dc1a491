"""A click group whose commands are imported only when they run; their one-line help is in the table."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import NamedTuple

import click

WANTS_HELP = "offgrid.wants_help"  # in a context's meta: whether help of what comes next may be shown
ROOT_NAME, COMPLETION = "offgrid", "_OFFGRID_COMPLETE"


class Entry(NamedTuple):
    """Where a command lives ("module:attribute", below offgrid_tools.cli) and what the group's help says of it."""

    place: str
    summary: str


class LazyGroup(click.Group):
    """`entries` by name, in the order of the help."""

    def __init__(self, name: str, entries: Mapping[str, Entry], help: str, params: list[click.Parameter]) -> None:  # noqa: A002 - click's word
        super().__init__(name, help=help, params=params, context_settings={"help_option_names": ["-h", "--help"]})
        self._entries = entries
        self._is_root = name == ROOT_NAME

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        command = getattr(importlib.import_module(f"offgrid_tools.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        path = cmd_name if self._is_root else f"{self.name} {cmd_name}"
        _complete(command, path, examples=ctx is None or ctx.meta.get(WANTS_HELP, True))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self._entries:
            raise click.UsageError(f"there is no command {name!r}{_meant(name, self._entries)}", ctx)
        ctx.meta[WANTS_HELP] = any(word in args for word in ctx.help_option_names)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self._entries.items()])


def _complete(command: click.Command, path: str, *, examples: bool) -> None:
    """Gives it its examples, and where a shell asks what could come next, what to offer."""
    if examples:
        from offgrid_tools.cli.examples import epilog_of

        command.epilog = epilog_of(path)
    if COMPLETION in os.environ:
        from offgrid_tools.cli.completing import aid

        aid(command)
    if isinstance(command, click.Group) and not isinstance(command, LazyGroup):
        for name, inner in command.commands.items():
            _complete(inner, f"{path} {name}", examples=examples)


def _meant(name: str, known: Mapping[str, Entry]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
