"""What the commands that make jobs take: what to run, on what, and under which terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from offgrid_tools.cli.amounts import Amount, pairs
from offgrid_tools.cli.files import opened, plain
from offgrid_tools.cli.numbers import FiniteRange
from offgrid_tools.cli.times import length_us, stamp_us

if TYPE_CHECKING:
    from offgrid.client.options import FileSource, JobOptions
    from offgrid.v1.jobs_pb2 import JobPayload

INPUT_NAME_CHARS_MAX = 255
READ_BYTES_MAX = 64 * 1024 * 1024  # more than any node takes inline; it says how much it does
WASM_MAGIC = b"\0asm"
WHAT_TO_RUN = "say what to run: --wasm MODULE, --command NAME, --llm MODEL or --builtin NAME"
F = TypeVar("F", bound=Callable[..., object])

PROGRAM = (
    click.option("--wasm", "module", type=click.Path(exists=True, dir_okay=False), metavar="MODULE",
                 help="Run a WebAssembly module, .wasm or .wat."),
    click.option("--command", "command", metavar="NAME", help="Run a command of the host's allow-list."),
    click.option("--llm", "model", metavar="MODEL", help="Ask a language model; the input is the question."),
    click.option("--builtin", "builtin", metavar="NAME",
                 help="Run what every host has: echo gives the input back. To try a mesh out."),
    click.option("--arg", "more_args", multiple=True, metavar="ARG", help="An argument of the program; repeat it."),
    click.option("--system", default="", metavar="TEXT", help="What the language model is told before the question."),
    click.option("--max-tokens", type=click.IntRange(1), help="Of the language model's answer, at most."),
    click.option("--temperature", type=FiniteRange(0, 2), help="Of the language model. [default: its own]"),
)  # fmt: skip
TERMS = (
    click.option("--requires", "requirements", default="", metavar="EXPRESSION",
                 help="What the host must be: 'memory_mb >= 4096 and label.room == \"barn\"'; docs/requirements.md."),
    click.option("--priority", type=click.IntRange(-100, 100), help="Higher goes first, of what waits. [default: 0]"),
    click.option("--deadline", metavar="TIME", help="Give it up then: 10m (from now), 2026-11-20T08:00."),
    click.option("--after", multiple=True, metavar="JOB", help="Not before this job of the same task has completed; "
                 "repeat it."),
    click.option("--input-from", metavar="JOB",
                 help="Its input is this job's output: it goes after that one, and FILE is -."),
    click.option("--replicas", type=click.IntRange(1), help="Run it on so many hosts …"),
    click.option("--quorum", type=click.IntRange(1), help="… of which so many must agree."),
    click.option("--adaptive", is_flag=True, help="With replicas: proven hosts may run it alone, but for spot checks."),
    click.option("--price-max", type=Amount(), metavar="AMOUNT", help="The most to pay per million tokens."),
    click.option("--losses-max", type=click.IntRange(1, 100),
                 help="Hosts that may be lost under it before it is taken for the cause. [default: 8]"),
    click.option("--timeout", type=FiniteRange(0.1, 86_400), metavar="SECONDS",
                 help="How long one attempt may run. [default: as configured]"),
    click.option("--size-tokens", type=click.IntRange(0), default=0, help="[default: estimated]"),
    click.option("--file", "files", multiple=True, metavar="NAME=PATH",
                 help="A file for the job to find in its folder; NAME=o-… is an object. Repeat it."),
    click.option("--output-file", "outputs", multiple=True, metavar="GLOB",
                 help="Files that the job leaves in its folder and that belong to its result; repeat it."),
)  # fmt: skip


def program_options(function: F) -> F:
    """What to run."""
    for decorate in reversed(PROGRAM):
        decorate(function)
    return function


def term_options(function: F) -> F:
    """Under which terms."""
    for decorate in reversed(TERMS):
        decorate(function)
    return function


Program = Callable[[bytes, str], "JobPayload"]
"""Makes the payload of an input and its name."""


def program_of(args: tuple[str, ...], said: Mapping[str, Any]) -> Program:
    """What the program options describe; a module is read once, here. Raises click's usage errors, and OSError for
    files."""
    module, command, model, builtin = (said[name] for name in ("module", "command", "model", "builtin"))
    args = (*said["more_args"], *args)
    _check_program(args, said)
    from offgrid.client import payloads

    if builtin is not None:
        return lambda data, name: payloads.builtin(builtin, input=data, input_name=name)
    if command is not None:
        return lambda data, name: payloads.command(command, args, input=data, input_name=name)
    if model is not None:
        system, most, warmth = said["system"], said["max_tokens"] or 0, said["temperature"]
        return lambda data, name: payloads.llm(
            model, system=system, input=data, input_name=name, max_tokens=most, temperature=warmth
        )
    code = read(module)
    if not _may_be_wasm(code):
        text = 'is no WebAssembly: neither a module, which begins with "\\0asm", nor its text, which begins with "("'
        raise click.UsageError(f"--wasm: {module} {text}")
    return lambda data, name: payloads.wasm(code, args, input=data, input_name=name)


def _may_be_wasm(code: bytes) -> bool:
    """Whether it begins as a module does, or a module's text behind blanks and comments."""
    if code.startswith(WASM_MAGIC):
        return True
    text = code.lstrip()
    while text.startswith((b";;", b"(;")):
        end = b"\n" if text.startswith(b";;") else b";)"
        text = text.partition(end)[2].lstrip()
    return text.startswith(b"(")


def _check_program(args: tuple[str, ...], said: Mapping[str, Any]) -> None:
    model, builtin = said["model"], said["builtin"]
    ways = {"--wasm": said["module"], "--command": said["command"], "--llm": model, "--builtin": builtin}
    given = [option for option, value in ways.items() if value is not None]
    if not given:
        raise click.UsageError(WHAT_TO_RUN)
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} are different things to run: give one of them")
    if args and (builtin is not None or model is not None):
        raise click.UsageError(
            f"what is {'built in' if builtin is not None else 'asked of a model'} takes no arguments"
        )
    if model is None and (said["system"] or said["max_tokens"] is not None or said["temperature"] is not None):
        raise click.UsageError("--system, --max-tokens and --temperature are for --llm MODEL")


def payload_of(file: str, args: tuple[str, ...], said: Mapping[str, Any]) -> JobPayload:
    """Of one job. Raises as `program_of` and `input_of`."""
    return program_of(args, said)(input_of(file, said), input_name(file))


def options_of(said: Mapping[str, Any]) -> JobOptions:
    """The terms that were given. Raises click's usage errors."""
    options: JobOptions = {"size_tokens": said["size_tokens"]}
    if said["requirements"]:
        options["requirements"] = said["requirements"]
    if said["priority"] is not None:
        options["priority"] = said["priority"]
    if said["deadline"] is not None:
        options["deadline"] = _deadline(said["deadline"])
    if said["after"]:
        options["after"] = said["after"]
    if said["input_from"]:
        options["input_from"] = said["input_from"]
    if said["price_max"] is not None:
        options["price_max_micro"] = said["price_max"]
    if said["losses_max"] is not None:
        options["losses_max"] = said["losses_max"]
    if said["timeout"] is not None:
        options["timeout_s"] = said["timeout"]
    if said["files"]:
        options["files"] = {name: _source(text) for name, text in pairs("--file", said["files"]).items()}
    if said["outputs"]:
        options["outputs"] = said["outputs"]
    return _with_replicas(options, said)


def _with_replicas(options: JobOptions, said: Mapping[str, Any]) -> JobOptions:
    replicas, quorum = said["replicas"] or 1, said["quorum"]
    if replicas == 1 and (quorum is not None or said["adaptive"]):
        raise click.UsageError("--quorum and --adaptive are for --replicas 2 or more")
    if quorum is not None and quorum > replicas:
        raise click.BadParameter(f"{quorum} of {replicas} executions cannot agree", param_hint="--quorum")
    if replicas > 1:
        options["replicas"], options["quorum"] = replicas, quorum or replicas // 2 + 1
        options["adaptive"] = said["adaptive"]
    return options


def _deadline(text: str) -> Any:
    from datetime import UTC, datetime, timedelta

    try:
        length = length_us(text)
        return timedelta(microseconds=length) if length else datetime.fromtimestamp(stamp_us(text) / 1e6, UTC)
    except (ValueError, OverflowError, OSError) as error:
        text = f"{text!r} is no time; 10m (from now) and 2026-11-20T08:00 are"
        raise click.BadParameter(text, param_hint="--deadline") from error


def _source(text: str) -> FileSource:
    if text.startswith("o-") and not Path(text).exists():
        return text
    if not Path(text).is_file():
        raise click.BadParameter(f"{text}: there is no such file", param_hint="--file")
    return Path(text)


def input_of(path: str, said: Mapping[str, Any]) -> bytes:
    """What FILE holds, where the input is not another job's output."""
    if not said["input_from"]:
        return read(path)
    if path != "-":
        raise click.UsageError("--input-from takes the place of FILE: say - for it")
    return b""


def read(path: str) -> bytes:
    """A file's bytes, or those of standard input (-)."""
    with opened(path) as file:
        data = file.read(READ_BYTES_MAX + 1)
    if len(data) > READ_BYTES_MAX:
        raise click.UsageError(f"{path} is larger than {READ_BYTES_MAX} bytes, too large for a job's payload")
    return data


def input_name(path: str) -> str:
    return "" if path == "-" else plain(Path(path).name)[:INPUT_NAME_CHARS_MAX]
