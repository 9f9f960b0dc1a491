"""The same seeds of the ledger's simulator by other Pythons: an equal seed gives an equal trace in each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from offgrid_tools.ledgersim.main import Case, simulate

MINORS = range(11, 20)  # of Python 3: python3.11 is the oldest that this runs by
SEEDS_MAX = 12  # that others run as well
TIMEOUT_S = 1_800
PACKAGES = ("offgrid", "offgrid_node", "offgrid_tools")
CODE = """
import platform, sys
from offgrid_tools.ledgersim.main import simulate
print(platform.python_version(), flush=True)
for case in sys.argv[1:]:
    seed, level, witnesses = case.split(",")
    report = simulate(int(seed), level, witnesses=int(witnesses))
    print(report.trace, report.violation, flush=True)
"""


def on_path() -> list[Path]:
    """Pythons of other minor versions than the one that runs this."""
    names = [f"python3.{minor}" for minor in MINORS if minor != sys.version_info.minor]
    return [Path(found) for name in names if (found := shutil.which(name)) is not None]


def compare(pythons: Sequence[Path], cases: Sequence[Case], say: Callable[[str], None]) -> list[str]:
    """Runs these cases by each of them, or by what is on the path where none is named; returns what differs. One that
    cannot run them is said, and wrong only if it was named."""
    broken: list[str] = []
    expected = [_line(case) for case in cases] if pythons or on_path() else []
    tried = 0
    for python in pythons or on_path():
        version, lines, failed = _run(python, cases)
        if failed:
            say(f"   {python}: not tried: {failed}")
            broken += [f"{python} cannot run the simulator: {failed}"] if pythons else []
            continue
        tried += 1
        pairs = zip(cases, expected, lines, strict=True)
        differ = [f"seed {case.seed} of the {case.level} level" for case, here, there in pairs if here != there]
        say(f"   Python {version} at {python}: {len(cases) - len(differ)} of {len(cases)} traces are the same")
        broken += [f"{what} has another trace by Python {version}" for what in differ]
    if not tried:
        say("   no other Python has what the simulator needs: traces are compared with none; name one by --python")
    return broken


def _line(case: Case) -> str:
    report = simulate(case.seed, case.level, witnesses=case.witnesses)
    return f"{report.trace} {report.violation}"


def _run(python: Path, cases: Iterable[Case]) -> tuple[str, list[str], str]:
    """Its version, a line for each case, and why it could not run them."""
    wanted = [f"{case.seed},{case.level},{case.witnesses}" for case in cases]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(_roots()), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [str(python), "-c", CODE, *wanted], env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", [], str(error)
    version, *lines = done.stdout.splitlines() or [""]
    if done.returncode or len(lines) != len(wanted):
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return version, [], said[-1] if said[0].startswith("Traceback") else said[0]
    return version, lines, ""


def _roots() -> list[str]:
    """Where this project's own packages lie: what else is needed the other Python must have itself."""
    specs = [spec for name in PACKAGES if (spec := find_spec(name)) is not None]
    found = (str(Path(place).parent) for spec in specs for place in spec.submodule_search_locations or ())
    return [*dict.fromkeys(found)]
