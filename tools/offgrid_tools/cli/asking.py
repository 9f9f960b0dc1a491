"""What is final is asked first, on a terminal; scripts say --yes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from offgrid_tools.cli.settings import settings

F = TypeVar("F", bound=Callable[..., Any])


def yes_option(function: F) -> F:
    """Gives a command its --yes."""
    return click.option("--yes", is_flag=True, help="Do not ask first.")(function)


def be_sure(question: str, why: str, facts: Sequence[tuple[str, str]] = ()) -> None:
    """Asks `question`, which is to end with no mark, below the `facts` that it is about; where nobody can be asked,
    UsageError says `why` it should be. Raises Abort for a no."""
    import shlex
    import sys

    from offgrid.command_line.endings import Unasked
    from offgrid.command_line.terminal import clean

    if settings().json or sys.stdin is None or not sys.stdin.isatty():
        told = "".join(f"\n  {name}: {clean(value)}" for name, value in facts)
        argv = settings().argv
        names = argv.index("--") if "--" in argv else len(argv)
        typed = shlex.join(["offgrid", *argv[:names], "--yes", *argv[names:]])
        raise Unasked(f"{why}; --yes does it without asking{told}", typed)
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        click.echo(f"{name:<{width}}  {clean(value)}", err=True)
    click.confirm(f"{clean(question)}?", prompt_suffix=" ", abort=True, err=True)
