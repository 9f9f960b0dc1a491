"""Runs the tree of commands and turns every way to fail into an exit code and one clear sentence; no tracebacks."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from offgrid_tools.cli import exits
from offgrid_tools.cli.lazy import COMPLETION, ROOT_NAME
from offgrid_tools.cli.root import ROOT
from offgrid_tools.cli.settings import Settings

if TYPE_CHECKING:
    from types import FrameType

    from offgrid.client.errors import OffgridError

HELP_COLUMNS_MIN, HELP_COLUMNS_MAX = 50, 100
LOOK_FIRST = "it may have been carried out all the same: look before you send it again"


def run(argv: Sequence[str]) -> int:
    """The exit code of `offgrid ARGV`; standard output has been flushed."""
    if COMPLETION in os.environ:
        from offgrid_tools.cli.completing import aid

        aid(ROOT)
        ROOT.main([], prog_name=ROOT_NAME, obj=Settings())  # a shell asks what could come next; ends the process
    args = list(argv)
    settings = Settings(json="--json" in args[: args.index("--") if "--" in args else None])
    try:
        with _noticing_interrupts(settings):
            code = _carry_out(args, settings)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would be written again at exit, and fail again, loudly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.PIPE_CLOSED
    return code


@contextmanager
def _noticing_interrupts(settings: Settings) -> Iterator[None]:
    """A KeyboardInterrupt that hits a library at a bad moment may leave it as something else: the run remembers it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        settings.interrupted = True
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


def _carry_out(args: list[str], settings: Settings) -> int:
    try:
        # Not ROOT.main: it would end the process by itself on a broken pipe.
        with ROOT.make_context(ROOT_NAME, args, obj=settings, terminal_width=_help_columns()) as context:
            returned = ROOT.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, click.Abort):
        return exits.INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return exits.USAGE
    except click.ClickException as error:
        return _say(settings, exits.USAGE, error.format_message() + _meant(error), hint=_usage_hint(error))
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last resort: people get a sentence, not a traceback
        if settings.interrupted:
            return exits.INTERRUPTED
        return _failed(settings, error)
    return returned if isinstance(returned, int) else exits.OK


def _help_columns() -> int:
    """How wide help is set. (click would import shutil for this, four milliseconds of --help.)"""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError):
        columns = HELP_COLUMNS_MAX
    return max(HELP_COLUMNS_MIN, min(columns, HELP_COLUMNS_MAX) - 2)


def _failed(settings: Settings, error: Exception) -> int:
    from offgrid.client.errors import OffgridError

    if isinstance(error, OffgridError):
        in_credits = _in_credits(error)
        violations = [{"field": v.field, "description": v.description} for v in error.violations]
        return _say(
            settings,
            exits.BY_CODE.get(error.code, exits.INTERNAL),
            in_credits or error.message,
            hint=_hint(error),
            code=error.code,
            reason=error.reason,
            violations=violations if settings.json or not in_credits else [],
            retry_ms=error.retry_ms,
        )
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return _say(settings, exits.FAILED, f"{place}{error.strerror or error}")
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return _say(settings, exits.USAGE, "the command line has bytes that are not UTF-8 where the node needs text")
    return _say(
        settings,
        exits.INTERNAL,
        f"a defect of this command: {type(error).__name__}: {error}",
        hint="please report it together with the command line",
    )


def _in_credits(error: OffgridError) -> str:
    """The node's sentence with amounts as people write them, where it names amounts apart; else ""."""
    if not any(name.endswith("_micro") for name in error.metadata):
        return ""
    from offgrid_tools.cli.amounts import refusal_in_credits

    return refusal_in_credits(error.reason, error.metadata)


def _say(settings: Settings, exit_code: int, message: str, *, hint: str = "", **details: object) -> int:
    """One error on standard error, for people or as JSON."""
    if settings.json:
        import json

        document = {"error": {"exit_code": exit_code, "message": message, "hint": hint, **details}}
        click.echo(json.dumps(document, ensure_ascii=False), err=True)
        return exit_code
    from offgrid_tools.cli.output import clean

    lines = [f"offgrid: {message}"]
    violations = details.get("violations")
    if isinstance(violations, list):
        lines += [f"  {v['field']}: {v['description']}" for v in violations if v["description"] not in message]
    if hint:
        lines.append(f"  → {hint}")
    text = clean("\n".join(lines), lines=True)
    click.echo(_fitted(text) if sys.stderr.isatty() else text, err=True)
    return exit_code


def _fitted(text: str) -> str:
    """Its lines wrapped to the terminal; what continues one is indented below it."""
    import textwrap

    from offgrid_tools.cli.output import terminal_columns

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
    import difflib

    close = difflib.get_close_matches(said[1].lower(), [str(choice) for choice in of.choices], 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{context.command_path} --help shows what is possible" if context else ""


def _hint(error: object) -> str:
    """What to do next, by the error's reason, else by its code."""
    reason, code = getattr(error, "reason", ""), getattr(error, "code", "")
    by_reason = {
        "NoNode": "start one (`offgrid-node init --mesh NAME`, then `offgrid-node run`) or say where it is: "
        "--node-dir DIR or --socket PATH",
        "NoContext": "`offgrid context ls` shows which there are",
        "NoAnswer": "is it running? start it with `offgrid-node run`",
        "ConnectionLost": LOOK_FIRST,
        "WatchEnded": "once the node is back, `offgrid job show` and `watch` tell what came of it",
        "NotANode": "--node-dir DIR or --socket PATH say where the node is",
        "SocketDenied": "run this as the user who runs the node",
        "BrokerUnavailable": "`offgrid peers` shows who is alive; --mode auto falls back to this node itself",
        "NoHostsAvailable": "`offgrid market` shows who offers what",
        "LedgerNotOpen": "an admin's node opens it, once: `offgrid ledger open`",
        "EconomyOff": "economy.enabled in offgrid.toml turns it on",
        "InsufficientFunds": "`offgrid balance` shows what there is",
        "RowsDamaged": "all else is sound; of these a backup of the node's folder tells, or what hosts keep of its "
        "journal (docs/operations.md)",
        "NoSuchNode": "`offgrid peers` shows the members",
        "NotAMember": "`offgrid peers` shows the members",
        "JobNotFound": "`offgrid job list` shows which there are",
        "TaskNotFound": "`offgrid task list` shows which there are",
        "MissionNotFound": "`offgrid mission list` shows which there are",
        "ScheduleNotFound": "`offgrid schedule list` shows which there are",
        "QuorumNotFound": "`offgrid quorum list` shows which there are",
        "SessionNotFound": "`offgrid state sessions` shows which there are",
        "TransactionNotFound": "`offgrid tx list` shows which there are",
        "MailNotFound": "`offgrid mail sent` shows which there are",
        "MessageNotFound": "`offgrid mail inbox` shows which there are",
        "ObjectNotFound": "`offgrid ls` shows this node's own, `offgrid ls --shared` what it may read and no more",
    }
    by_code = {
        "DEADLINE_EXCEEDED": LOOK_FIRST,
        "UNIMPLEMENTED": "node and command are of different versions: `offgrid --version`, `offgrid status`",
    }
    return by_reason.get(reason) or by_code.get(code, "")
