"""Groups of commands: one that is mistyped is told which it is close to, and a command's module is imported only when
it runs; what the group's help says of it is in the group's table."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import click

WANTS_HELP = "offgrid.wants_help"  # in a context's meta: whether help of what comes next may be shown
FIRST_SENTENCE = re.compile(r"(?<=\.)\s|\n\n")
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class Program(NamedTuple):
    """One of the two: its name, the package that its tables' places are in, the module below it whose
    `epilog_of(path)` gives a command's examples, the variable by which a shell asks for completions, and the module
    whose `aid(command)` has the command's parameters offer values ("": as click does)."""

    name: str
    package: str
    examples: str
    completion: str
    aid: str = ""


class Entry(NamedTuple):
    """Where a command lives ("module:attribute", below the program's package) and what the group's help says of it."""

    place: str
    summary: str


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The one that is close to a word that is none of them; else ""."""
    import difflib

    close = difflib.get_close_matches(word.lower(), list(known), 1)
    return f"did you mean {close[0]!r}?" if close else ""


class Group(click.Group):
    """One whose commands are there."""

    group_class = type  # groups inside it are of this class, too

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        known = self.list_commands(ctx)
        if name and not name.startswith("-") and name not in known:
            meant = did_you_mean(name, known)
            raise click.UsageError(f"there is no command {name!r}{f'; {meant}' if meant else ''}", ctx)
        ctx.meta[WANTS_HELP] = any(word in args for word in ctx.help_option_names)
        return super().resolve_command(ctx, args)

    def summaries(self) -> Iterable[tuple[str, str]]:
        """What its help says of each, in order: of those that are there their first sentence, whole."""
        return ((name, FIRST_SENTENCE.split(command.help or "", 1)[0]) for name, command in self.commands.items())

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries()))


class LazyGroup(Group):
    """`entries` by name, in the order of the help."""

    def __init__(
        self,
        program: Program,
        name: str,
        entries: Mapping[str, Entry],
        help: str,  # noqa: A002 - click's word
        params: list[click.Parameter],
    ) -> None:
        super().__init__(name, help=help, params=params, context_settings={**HELP_OPTIONS})
        self.program, self.entries = program, entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        command = getattr(importlib.import_module(f"{self.program.package}.{module}"), attribute)
        assert isinstance(command, click.Command)
        path = cmd_name if self.name == self.program.name else f"{self.name} {cmd_name}"
        self._complete(command, path, examples=ctx is None or ctx.meta.get(WANTS_HELP, True))
        return command

    def summaries(self) -> Iterable[tuple[str, str]]:
        return ((name, entry.summary) for name, entry in self.entries.items())

    def _complete(self, command: click.Command, path: str, *, examples: bool) -> None:
        """Gives it its examples, and where a shell asks what could come next, what to offer."""
        if examples:
            module = importlib.import_module(f"{self.program.package}.{self.program.examples}")
            command.epilog = module.epilog_of(path)
        if self.program.aid and self.program.completion in os.environ:
            self.aid(command)
        if isinstance(command, click.Group) and not isinstance(command, LazyGroup):
            for name, inner in command.commands.items():
                self._complete(inner, f"{path} {name}", examples=examples)

    def aid(self, command: click.Command) -> None:
        """Has its parameters offer what the program knows for them, to a shell that asks."""
        importlib.import_module(f"{self.program.package}.{self.program.aid}").aid(command)
