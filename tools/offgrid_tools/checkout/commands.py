"""The table of what `tools/run.py` can do, and how each is started inside the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from offgrid_tools.checkout.environment import Environment, compiling
from offgrid_tools.checkout.installer import InstallFailed

INTERRUPTED = 130
HELP = ("-h", "--help")
Profile = Literal["runtime", "dev", "bench"]
Action = Callable[[Environment, Sequence[str]], int]


@dataclass(frozen=True, slots=True)
class Command:
    """One word of `run.py`. With a `profile` the environment is brought up to it before `action` runs.

    `options` is what `--help` shows while the profile is not there: asking installs nothing. Once it is there, the
    program explains itself if it `explains`.
    """

    arguments: str
    summary: str
    profile: Profile | None
    action: Action
    explains: bool = False
    options: str = ""


def become(argv: Sequence[str]) -> int:
    """Runs a command in place of this process, so that signals reach it and nobody else; returns where it cannot.

    What is compiled is kept, whatever the caller's variables say: nodes, commands and tests start hundreds of
    processes of this checkout, and each would compile every module anew.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform != "win32":
        os.execve(argv[0], [*argv], compiling())  # noqa: S606 - a shell is what must not be here
    with subprocess.Popen(
        [*argv], env=compiling()
    ) as child:  # Windows has no exec: wait, and leave Ctrl-C to the child
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue


def script(name: str, *first: str) -> Action:
    """An action that runs an installed command."""
    return lambda env, rest: become([str(env.program(name)), *first, *rest])


def demo(env: Environment, rest: Sequence[str]) -> int:
    """The node's own, or that of radios, which are emulated here."""
    if "--radio" in rest:
        env.ensure("dev")  # as tests have them, with what reaches such modems and controllers
        return module("offgrid_tools.radio_demo")(env, [word for word in rest if word != "--radio"])
    return script("offgrid-node", "demo")(env, rest)


def module(name: str) -> Action:
    """An action that runs `python -m name`."""
    return lambda env, rest: become([str(env.python), "-m", name, *rest])


def test(env: Environment, rest: Sequence[str]) -> int:
    from offgrid_tools.checkout.checks import compile_tests, pytest_command

    if not rest:
        compile_tests(env)
    return become(pytest_command(env, rest))


def lint(env: Environment, rest: Sequence[str]) -> int:
    from offgrid_tools.checkout.checks import run_checks

    return run_checks(env)


def check(env: Environment, rest: Sequence[str]) -> int:
    """Everything; the tests come last, so that the last line of a good run is pytest's own summary."""
    return lint(env, ()) or test(env, rest)


def lock(env: Environment, rest: Sequence[str]) -> int:
    from offgrid_tools.checkout.locks import write_locks

    return write_locks(env, rest)


def clean(env: Environment, rest: Sequence[str]) -> int:
    for path in env.clean():
        sys.stdout.write(f"removed {path.relative_to(env.root)}\n")
    return 0


SOAK_OPTIONS = """
  PART                         kills, state-kills, settling, epochs, sim, market, vault, talk, mail, cuts, mutants,
                               ledger, ledger-mutants, floods, damages, http, links, relays, unplugs, bluetooth,
                               configs, fuzz, auctions, duty, kits, image, radio-peers, docs, tests; all unless
                               given
  --rounds N                   how often
  --seed N                     the first seed; by the clock unless given
  --dir DIR                    where a mesh of `kills`, `state-kills`, `settling`, `epochs` or `floods` lives, and stays
  --json FILE                  a file for the figures of `kills`, `state-kills`, `settling` or `epochs`
  --pause SECONDS              of `kills`: between what a client does; none unless given
  --receipts N                 of `settling`: how many jobs are paid; 10,000 unless given
  --hosts N                    of `settling`: by how many hosts they are done; 64 unless given
  --interval N                 of `settling`: seconds between settlements; 120 unless given
  --keep                       of `fuzz`: what it comes to is kept in tests/corpus
  --python PATH                of `ledger`: another Python with what this one has; those on the path unless given
"""
BENCH_OPTIONS = """
  GROUP        what to measure; everything unless given
  --json FILE  write the figures there as well
  --quick      fewer rounds: a look, not a measurement
  --profile    say where a job's microseconds go, process by process
  --docs       put the tables into docs/performance.md
  --dir DIR    on the disk to measure; ./data unless given
"""
COMMANDS: dict[str, Command] = {
    "demo": Command("[FILE] [--keep] [--storage] [--radio]", "nodes on this machine, a job or a folder, killed hosts; "
                    "or two and a radio", "runtime", demo, explains=True),
    "test": Command("[PYTEST ARGS]", "the tests", "dev", test, explains=True),
    "lint": Command("", "format, lint, types, import floors, proto lint", "dev", lint),
    "check": Command("[PYTEST ARGS]", "lint and test", "dev", check),
    "soak": Command("[PART] [ARGS]", "long runs: seeds, kills, planted bugs, damaged configs", "dev",
                    module("offgrid_tools.soak"), explains=True, options=SOAK_OPTIONS),
    "sim": Command("--seed N [--json]", "replays one seed of the simulator", "runtime", script("offgrid", "sim"),
                   explains=True),
    "bench": Command("[GROUP ...] [--json FILE]", "measures, beside the best of others", "bench",
                     module("offgrid_tools.bench"), explains=True, options=BENCH_OPTIONS),
    "docs": Command("", "writes docs/reference anew from the code", "dev", module("offgrid_tools.reference")),
    "lock": Command("[--upgrade]", "writes locks/ anew from pyproject.toml", None, lock),
    "clean": Command("", "removes .venv, generated code and caches", None, clean),
}  # fmt: skip


def usage() -> str:
    width = max(len(f"{name} {command.arguments}") for name, command in COMMANDS.items())
    lines = [f"  {f'{name} {command.arguments}':<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "usage: python3 tools/run.py COMMAND [ARGS]\n\n" + "\n".join(lines) + "\n"


def explain(name: str, command: Command) -> str:
    """One command's help, from the table alone."""
    return (
        f"usage: python3 tools/run.py {name} {command.arguments}".rstrip() + f"\n\n{command.summary}\n{command.options}"
    )


def run(argv: Sequence[str], commands: dict[str, Command] | None = None, env: Environment | None = None) -> int:
    """Runs one command of the table and returns its exit code: 2 for a word that is none of them."""
    commands = COMMANDS if commands is None else commands
    if not argv or argv[0] in (*HELP, "help"):
        sys.stdout.write(usage())
        return 0 if argv else 2
    command = commands.get(argv[0])
    if command is None:
        sys.stderr.write(f"run.py: there is no command {argv[0]!r}\n\n{usage()}")
        return 2
    env = env or Environment()
    try:
        if any(word in HELP for word in argv[1:]) and not (
            command.explains and command.profile is not None and env.is_ready(command.profile)
        ):
            sys.stdout.write(explain(argv[0], command))
            return 0
        if command.profile is not None:
            env.ensure(command.profile)
        return command.action(env, argv[1:])
    except InstallFailed as error:
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        sys.stderr.write(f"run.py {argv[0]}: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return INTERRUPTED
    return 1
