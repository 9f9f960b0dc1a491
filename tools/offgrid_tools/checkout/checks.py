"""The checks beside the tests: format, lint, types, floors, proto lint. They run side by side, quiet when they pass."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from offgrid_tools.checkout.environment import Environment, compiling
from offgrid_tools.checkout.progress import Progress

WORKERS = 2
TEST_WORKERS = 4  # on two cores: one that has started nodes waits for them more than it works
LARGE = ("tests/unit/protocol", "tests/unit/services")  # half of the tests' text
HALVES = (LARGE, ("tests", *(f"--ignore={folder}" for folder in LARGE)))
SOURCES = ("proto", "node", "transports", "tools")


@dataclass(frozen=True, slots=True)
class Check:
    """One step: an installed program, its arguments and the folder (below the root) it runs in."""

    name: str
    argv: tuple[str, ...]
    folder: str = "."


CHECKS = (
    Check("format", ("ruff", "format", "--check", "--quiet", ".")),
    Check("lint", ("ruff", "check", "--quiet", ".")),
    Check("types", ("mypy", "--strict", *SOURCES)),
    Check("for Windows", ("mypy", "--strict", "--platform", "win32", "--cache-dir", ".mypy_cache/win32", *SOURCES)),
    Check("floors", ("lint-imports",)),
    Check("proto lint", ("python", "-m", "offgrid_tools.checkout.proto_lint"), "proto"),
    Check("proto format", ("buf", "format", "--diff", "--exit-code"), "proto"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one check; `said` is everything it printed."""

    check: Check
    passed: bool
    said: str
    seconds: float


def run_check(env: Environment, check: Check) -> Outcome:
    began = time.monotonic()
    program, *arguments = check.argv
    command = [str(env.program(program)), *arguments]
    try:
        done = subprocess.run(
            command, cwd=env.root / check.folder, capture_output=True, text=True, errors="replace", check=False
        )
        passed, said = done.returncode == 0, done.stdout + done.stderr
    except OSError as error:
        passed, said = False, f"{program} cannot be started: {error.strerror}"
    return Outcome(check, passed, said, time.monotonic() - began)


def pytest_command(env: Environment, arguments: Sequence[str]) -> list[str]:
    """pytest by TEST_WORKERS unless the arguments say otherwise; tests of a group stay together, groups in their order:
    those that start nodes before the many small ones, so that no worker is left with a long one."""
    spread = ["-n", str(TEST_WORKERS), "--dist", "loadgroup", "--no-loadscope-reorder"]
    if any(a.startswith(("-n", "--numprocesses", "--pdb")) for a in arguments):
        spread = []
    return [str(env.python), "-m", "pytest", *spread, *arguments]


def compile_tests(env: Environment) -> None:
    """In a fresh checkout: what each worker would make of the tests for itself is made once, a half on each core, and
    kept. What goes wrong here goes wrong again, and is told, where they run."""
    if next((env.root / LARGE[0]).rglob("*.pyc"), None):
        return

    def collect(half: Sequence[str]) -> None:
        command = [str(env.python), "-m", "pytest", "--collect-only", "-qq", *half]
        subprocess.run(command, cwd=env.root, capture_output=True, env=compiling(), check=False)

    with Progress(1).step("compiling the tests"), ThreadPoolExecutor(len(HALVES)) as pool:
        list(pool.map(collect, HALVES))


def run_checks(env: Environment, checks: Sequence[Check] = CHECKS) -> int:
    """Runs every check, all of them even when one fails; 0 only when all pass."""
    failed = False
    with ThreadPoolExecutor(WORKERS) as pool:
        for outcome in pool.map(lambda check: run_check(env, check), checks):
            mark = "ok" if outcome.passed else "FAILED"
            sys.stdout.write(f"{outcome.check.name:<14}{mark:<8}{outcome.seconds:5.1f} s\n")
            if not outcome.passed:
                failed = True
                sys.stdout.write("  " + outcome.said.rstrip().replace("\n", "\n  ") + "\n")
            sys.stdout.flush()
    return 1 if failed else 0
