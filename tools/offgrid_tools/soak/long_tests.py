"""The tests that `test` leaves out, marked `soak`, and those that draw their own examples (Hypothesis), which draw far
more here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from offgrid_tools.walks.stage import ROOT

CHOICE = ("-m", "soak or hypothesis", "--hypothesis-profile=soak", "--timeout=7200")
WORKERS = 4


def soak_tests(rounds: int, say: Callable[[str], None]) -> list[str]:
    """Runs them `rounds` times and says what pytest does; returns which rounds failed."""
    command = [sys.executable, "-m", "pytest", "-n", str(WORKERS), "--dist", "loadgroup", *CHOICE]
    broken: list[str] = []
    for number in range(rounds):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as pytest:
            for line in pytest.stdout or ():
                say(line.rstrip("\n"))
        if pytest.returncode:
            broken.append(f"round {number}: pytest ended with {pytest.returncode}, as said above")
    return broken
