"""Every command of `offgrid` and `offgrid-node` shows examples, and what they show can be typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest

from offgrid_node.command_examples import EXAMPLES as NODE_EXAMPLES
from offgrid_node.root import ROOT as NODE_ROOT
from offgrid_tools.cli.examples import EXAMPLES
from offgrid_tools.cli.root import ROOT

COMMANDS = {"offgrid": ROOT, "offgrid-node": NODE_ROOT}
OF_PROGRAM = {"offgrid": EXAMPLES, "offgrid-node": NODE_EXAMPLES}


def context_of(command: click.Command, name: str, above: click.Context | None = None) -> click.Context:
    """As the command itself makes it: click keeps what it makes of the first one, such as the option for help."""
    return click.Context(command, above, info_name=name, **command.context_settings)


def leaves(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, by its words."""
    context = context_of(group, path[-1])
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield (*path, name), command


LEAVES = {**dict(leaves(ROOT, ("offgrid",))), **dict(leaves(NODE_ROOT, ("offgrid-node",)))}


def typed(line: str) -> Iterator[list[str]]:
    """The words of each command of ours in a shell's line, without what comes behind a redirection."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True  # shlex takes what comes behind # for a comment, as a shell does
    words = list[str]()
    for word in [*lexer, ";"]:
        if set(word) <= set("|;&<>"):
            if words and words[0] in COMMANDS:
                yield words
            words = []
        else:
            words.append(word)


def understood(words: list[str]) -> tuple[str, ...]:
    """Which command a line is of; fails where options, their values or the number of arguments are not as it takes
    them. Files are not looked for."""
    program, *rest = words
    command, path, context = COMMANDS[program], [program], context_of(COMMANDS[program], program)
    while isinstance(command, click.Group):
        opts, rest, _ = command.make_parser(context).parse_args(rest)
        name = rest[0] if rest else ""
        if name not in command.list_commands(context):
            assert command.invoke_without_command, f"{name!r} is no command"
            return tuple(path)
        inner = command.get_command(context, name)
        assert inner is not None
        context, command, rest = context_of(inner, name, context), inner, rest[1:]
        path.append(name)
    opts, rest, _ = command.make_parser(context).parse_args(rest)
    assert not rest, f"too many arguments: {rest}"
    for param in command.params:
        value = opts.get(param.name or "")
        missing = value is None or (isinstance(value, tuple | list) and not value) or "UNSET" in repr(value)
        assert not (param.required and missing), f"{param.name} is missing"
        if not missing and not isinstance(param.type, click.Path | click.File):
            param.type_cast_value(context, value)
    return tuple(path)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_examples_that_are_its_own_and_can_be_typed(path: tuple[str, ...]) -> None:
    lines = OF_PROGRAM[path[0]].get(" ".join(path[1:]), ())
    assert lines, "cli/examples.py, or of offgrid-node command_examples.py, has none"
    of = [understood(words) for line in lines for words in typed(line)]
    assert path in of


def test_there_are_no_examples_of_what_is_no_command() -> None:
    shown = {f"{program} {name}" for program, examples in OF_PROGRAM.items() for name in examples}
    assert shown == {" ".join(path) for path in LEAVES}


def test_help_shows_them_under_a_heading(capsys: pytest.CaptureFixture[str]) -> None:
    from offgrid_tools.cli import run

    run(["job", "run", "--help"])
    assert "\n  Examples:\n    offgrid job run notes.txt --command wc -- -w\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", ["job run a.txt --modus x", "job run a.txt --mode x", "job run", "quorum ack", "nope"]
)
def test_a_line_that_could_not_be_typed_is_found(wrong: str) -> None:
    with pytest.raises((AssertionError, click.ClickException)):
        understood(["offgrid", *shlex.split(wrong)])
