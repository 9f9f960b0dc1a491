"""Runs a tree of commands and turns every way to fail into an exit code and one clear sentence; no tracebacks."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from offgrid.command_line import exits
from offgrid.command_line.groups import LazyGroup, did_you_mean
from offgrid.command_line.terminal import HELP_COLUMNS_MIN, help_columns

if TYPE_CHECKING:
    from types import FrameType

STANDARD_OUTPUT = "standard output"
NUMBERS = {"integer": "whole number", "float": "number"}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WRITTEN_TO = "where this writes to, or standard output goes"


class Run:
    """One run of a command. (No dataclass: importing that takes a millisecond of --help.)"""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.argv: Sequence[str] = ()
        self.interrupted = False  # by Ctrl-C: whatever was raised then, or what became of it on its way


class Unasked(click.UsageError):
    """What is final was neither confirmed nor said to be wanted; `hint` is the command that says so."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Ending(NamedTuple):
    """How a command failed: a sentence ("": the lines say it all), further lines, what to do next; `details` are for
    --json."""

    exit_code: int
    message: str
    hint: str = ""
    lines: Sequence[str] = ()
    details: Mapping[str, object] = {}


Explain = Callable[[Exception], Ending]


def run(root: LazyGroup, argv: Sequence[str], of: Run, explain: Explain) -> int:
    """The exit code of the program with these words; standard output has been flushed."""
    program = root.program
    if program.completion in os.environ:
        from offgrid.command_line import shells

        shells.register()
        if program.aid:
            root.aid(root)
        root.main([], prog_name=program.name, obj=of)  # a shell asks what could come next; ends the process
    _have_streams()
    args = list(argv)
    of.argv = argv
    of.json = "--json" in args[: args.index("--") if "--" in args else None]
    try:
        with _noticing_interrupts(of):
            code = _carry_out(root, args, of, explain)
        return code if (trouble := _flushed()) is None else code or _say(program.name, of, of_system(trouble))
    except BrokenPipeError:
        _silence()
        return exits.PIPE_CLOSED


def _have_streams() -> None:
    """Python has none where whoever called has closed it; and the next file to be opened would get its number."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the process ends


@contextmanager
def _noticing_interrupts(of: Run) -> Iterator[None]:
    """A KeyboardInterrupt that hits a library at a bad moment may leave it as something else: the run remembers it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        of.interrupted = True
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # somebody else's matter
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _carry_out(root: LazyGroup, args: list[str], of: Run, explain: Explain) -> int:
    name = root.program.name
    try:
        # Not root.main: it would end the process by itself on a broken pipe.
        with root.make_context(name, args, obj=of, terminal_width=help_columns()) as context:
            returned = root.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, click.Abort):
        return exits.INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return exits.USAGE
    except click.ClickException as error:
        return _say(name, of, Ending(exits.USAGE, _plain(error.format_message()) + _meant(error), _usage_hint(error)))
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last resort: people get a sentence, not a traceback
        if of.interrupted:
            return exits.INTERRUPTED
        if isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None:
            _flushed()
            return _say(name, of, Ending(exits.FAILED, f"{error.strerror}: {WRITTEN_TO}"))
        return _say(name, of, explain(error))
    return returned if isinstance(returned, int) else exits.OK


def _flushed() -> OSError | None:
    """Why what was printed could not be written; then nothing more is. Raises BrokenPipeError."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence()
        return OSError(error.errno, error.strerror, STANDARD_OUTPUT)
    return None


def _silence() -> None:
    """What is left in the buffer would be written again at exit, and fail again, loudly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def of_system(error: OSError) -> Ending:
    """How a command ends that the operating system has refused something."""
    place = f"{error.filename}: " if error.filename else ""
    return Ending(exits.FAILED, f"{place}{error.strerror or error}")


def defect(error: Exception) -> Ending:
    """How a command ends by what should not have happened."""
    said = f"a defect of this command: {type(error).__name__}: {error}"
    return Ending(exits.INTERNAL, said, "please report it together with the command line")


def _say(program: str, of: Run, ending: Ending) -> int:
    """One error on standard error, for people or as JSON."""
    if of.json:
        import json

        message = ending.message or "\n".join(ending.lines)
        said = {"exit_code": ending.exit_code, "message": message, "hint": ending.hint, **ending.details}
        click.echo(json.dumps({"error": said}, ensure_ascii=False), err=True)
        return ending.exit_code
    from offgrid.command_line.terminal import clean

    first = [f"{program}: {ending.message}"] if ending.message else []
    lines = [*first, *ending.lines, *([f"  → {ending.hint}"] if ending.hint else ())]
    text = clean("\n".join(lines), lines=True)
    click.echo(_fitted(text) if sys.stderr.isatty() else text, err=True)
    return ending.exit_code


def _fitted(text: str) -> str:
    """Its lines wrapped to the terminal; what continues one is indented below it."""
    import textwrap

    from offgrid.command_line.terminal import terminal_columns

    width = max(HELP_COLUMNS_MIN, terminal_columns())
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


def _meant(error: click.ClickException) -> str:
    """Which of an option's words a wrong one is close to."""
    of = error.param.type if isinstance(error, click.BadParameter) and error.param is not None else None
    said = re.match(r"'([^']{1,80})' is not one of", error.message)
    if said is None or not isinstance(of, click.Choice):
        return ""
    meant = did_you_mean(said[1], [str(choice) for choice in of.choices])
    return f" {meant[0].upper()}{meant[1:]}" if meant else ""


def _plain(message: str) -> str:
    """Click's words for a number that is none, or is out of bounds, as people say it."""
    message = re.sub(r" is not a valid (integer|float)( range)?\.", lambda of: f" is no {NUMBERS[of[1]]}.", message)
    message = re.sub(r" is not in the range ([^<>=]+)<=x<=([^<>=]+)\.$", r"; \1 to \2 are allowed.", message)
    return re.sub(r" is not in the range x>=([^<>=]+)\.$", r"; \1 or more is allowed.", message)


def _usage_hint(error: click.ClickException) -> str:
    if isinstance(error, Unasked):
        return error.hint
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{context.command_path} --help shows what is possible" if context else ""
