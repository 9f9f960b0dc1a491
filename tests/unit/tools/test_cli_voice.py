"""`offgrid` and `offgrid-node` speak with one voice: every command says what it does as one would tell somebody to do
it, in a table that says the same as the command, within 80 columns and with no word cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import click
import pytest

from offgrid.command_line import exits
from offgrid.command_line.groups import Group, LazyGroup
from offgrid_node.__main__ import run as run_node
from offgrid_node.root import ROOT as NODE_ROOT
from offgrid_tools.cli import run
from offgrid_tools.cli.root import ROOT

COLUMNS = 80
PROGRAMS: dict[str, tuple[LazyGroup, Callable[[Sequence[str]], int]]] = {
    "offgrid": (ROOT, run),
    "offgrid-node": (NODE_ROOT, run_node),
}
NO_ORDERS = frozenset({"A", "An", "How", "No", "Of", "The", "What", "Where", "Whether", "Which", "Who", "Why"})


def commands(group: Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command, str]]:
    """Every command with its words, and what its group's help says of it."""
    context = click.Context(group)
    for name, summary in group.summaries():
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command, summary
        if isinstance(command, Group):
            yield from commands(command, (*path, name))


COMMANDS = {path: (command, said) for name in PROGRAMS for path, command, said in commands(PROGRAMS[name][0], (name,))}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_is_told_as_one_would_tell_somebody_to_do_it(path: tuple[str, ...]) -> None:
    command, summary = COMMANDS[path]
    verb = summary.split()[0].strip(",.;")
    assert verb not in NO_ORDERS
    assert not verb.endswith("s"), "as in an order: 'Show', not 'Shows'; nor a noun in the plural"
    assert (command.help or "").split()[0].strip(",.;") == verb, "the group's table and the command say the same"
    assert summary.endswith(".")


@pytest.mark.parametrize("path", [*[(name,) for name in PROGRAMS], *COMMANDS], ids=" ".join)
def test_its_help_fits_a_narrow_terminal_and_cuts_nothing(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    program, *words = path
    assert PROGRAMS[program][1]([*words, "--help"]) == exits.OK
    usage, *lines = capsys.readouterr().out.splitlines()
    assert usage.startswith(f"Usage: {' '.join(path)}")
    assert [line for line in lines if len(line) > COLUMNS or line.endswith("...")] == []


@pytest.mark.parametrize("path", [*[(name,) for name in PROGRAMS], *COMMANDS], ids=" ".join)
def test_a_word_that_it_does_not_know_is_a_wrong_command_line(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    program, *words = path
    assert PROGRAMS[program][1]([*words, "--no-such-option"]) == exits.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[-1] == f"  → {' '.join(path)} --help shows what is possible"
