"""pip, wherever it is, installing into the project's environment: always with hashes, never with a shell.

The pip that locks/pip.txt names is fetched, being the one that was tried and the quickest (7 s of processor time where
Debian's takes 11). Without a network it is the pip beside the Python that runs this (22.3 and newer can install into
another environment; Debian's may not install into its own), or the one in ensurepip, which Debian may lack.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from offgrid_tools.checkout.pip_wheel import PipMissing, fetch_pip
from offgrid_tools.checkout.progress import Step

PIP_WITH_PYTHON_OPTION = (22, 3)
TAIL_LINES = 12  # of pip's output, shown when it failed
DROPPED = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV", "PYTHONHOME", "PYTHONPATH")

ADVICE = """\
What may help:
  - behind a proxy: set HTTPS_PROXY; another index: set PIP_INDEX_URL (pip's own configuration is used as well)
  - without a network: PIP_NO_INDEX=1 PIP_FIND_LINKS=/folder/with/wheels (made elsewhere by `pip download -r locks/…`)
  - start afresh: python3 tools/run.py clean"""


class InstallFailed(Exception):
    """The environment could not be made; the message holds pip's last lines and what to try."""


def install_env() -> dict[str, str]:
    """This process's variables without those that would lead pip out of the environment."""
    env = {name: value for name, value in os.environ.items() if name not in DROPPED}
    return {**env, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_PROGRESS_BAR": "off"}


def find_pip(python: Path, lock: Path, folder: Path) -> list[str]:
    """A command line that runs pip for `python`; a pip that had to be fetched is put into `folder`.

    Raises InstallFailed when there is no pip to be had.
    """
    if _has_pip(python):
        return [str(python), "-m", "pip"]
    try:
        return [str(python), str(fetch_pip(lock, folder, install_env()) / "pip")]
    except PipMissing as error:
        missing = error
    if _own_pip() >= PIP_WITH_PYTHON_OPTION:
        return [sys.executable, "-m", "pip", "--python", str(python)]
    if importlib.util.find_spec("ensurepip"):
        made = subprocess.run([str(python), "-m", "ensurepip"], capture_output=True, env=install_env(), check=False)
        if made.returncode == 0:
            return [str(python), "-m", "pip"]
    raise InstallFailed(f"This Python has no pip, and {missing}\n{ADVICE}")


def _own_pip() -> tuple[int, int]:
    """The version of the pip beside the Python that runs this, read and not run; (0, 0) when there is none."""
    spec = importlib.util.find_spec("pip")
    if spec is None or spec.origin is None or importlib.util.find_spec("pip.__main__") is None:
        return (0, 0)
    found = re.search(r"""__version__ = ["'](\d+)\.(\d+)""", Path(spec.origin).read_text(encoding="utf-8"))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _has_pip(python: Path) -> bool:
    site = python.parent.parent
    return any(site.glob("lib/python*/site-packages/pip/__main__.py")) or (site / "Lib/site-packages/pip").is_dir()


def pip_install(pip: Sequence[str], arguments: Sequence[str], step: Step, total: int = 0) -> None:
    """Runs `pip install` and shows which of `total` packages it is at. Raises InstallFailed with its last lines."""
    command = [*pip, "install", *arguments]
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    collected = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=install_env(), errors="replace"
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("WARNING: Location"):
                continue
            tail.append(line.rstrip())
            if line.startswith("Collecting "):
                collected += 1
                name = re.split(r"[=<>~!;\[ ]", line.removeprefix("Collecting ").strip())[0]
                step.detail(f"{collected}/{total} {name}" if total else name)
            elif line.startswith("Installing collected"):
                step.detail("unpacking")
    if running.returncode:
        raise InstallFailed("pip could not install:\n  " + "\n  ".join(tail) + f"\n{ADVICE}")
