"""Writes locks/: every version and hash, for every platform, with no index and no path of this machine inside.

runtime.txt  what a node needs, and what building it in place needs; `demo` installs this
dev.txt      the same pins and the tools of `test` and `check`
extras.txt   the same pins and what all extras need, of which an install kit takes those that are wanted
bench.txt    the same pins and what `bench` measures ours beside
pip.txt      pip itself, for a Python that has none
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence

from offgrid_tools.checkout.environment import EXTRAS_LOCK, LOCKS, PIP_LOCK, Environment
from offgrid_tools.checkout.installer import InstallFailed

OLDEST_PYTHON = "3.11"
ALWAYS = (
    "--universal",
    "--python-version",
    OLDEST_PYTHON,
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--custom-compile-command",
    "python3 tools/run.py lock",
    "--quiet",
)
FOREIGN = re.compile(r"\w+://|--(?:extra-)?index-url|--find-links")


def find_uv(env: Environment) -> str:
    """uv of the environment, else of the machine."""
    inside = env.program("uv")
    found = str(inside) if inside.exists() else shutil.which("uv")
    if found is None:
        raise InstallFailed("lock needs uv: `python3 tools/run.py test --version` installs it from locks/dev.txt")
    return found


def write_locks(env: Environment, arguments: Sequence[str]) -> int:
    """Compiles the locks; `arguments` (such as --upgrade) go to `uv pip compile`. Returns uv's exit code."""
    project = tomllib.loads((env.root / "pyproject.toml").read_text(encoding="utf-8"))
    build = "\n".join(project["build-system"]["requires"])
    # dev first: it is the narrower problem, and the runtime lock then takes its pins
    work = (
        (LOCKS["dev"], ["pyproject.toml", "-", "--group", "dev"], build),
        (LOCKS["bench"], ["pyproject.toml", "-", "--group", "bench", "--constraint", LOCKS["dev"]], build),
        (LOCKS["runtime"], ["pyproject.toml", "-", "--constraint", LOCKS["dev"]], build),
        (EXTRAS_LOCK, ["pyproject.toml", "--all-extras", "--constraint", LOCKS["dev"]], ""),
        (PIP_LOCK, ["-"], "pip"),
    )
    uv = find_uv(env)
    (env.root / "locks").mkdir(exist_ok=True)
    for output, inputs, stdin in work:
        command = [uv, "pip", "compile", *ALWAYS, *inputs, "--output-file", output, *arguments]
        done = subprocess.run(command, cwd=env.root, input=stdin, text=True, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            return done.returncode
        text = (env.root / output).read_text(encoding="utf-8")
        if foreign := FOREIGN.search(text):
            sys.stderr.write(f"{output} names a place of this machine: {foreign[0]}\n")
            return 1
        pins = len(re.findall(r"^[A-Za-z0-9_.-]+==", text, re.MULTILINE))
        sys.stdout.write(f"{output}: {pins} packages\n")
    return 0
