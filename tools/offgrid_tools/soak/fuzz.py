"""Every parser and whole nodes fed for a while with what no sane peer sends, guided by what of the code it reaches.

By atheris (libFuzzer), which is installed into a folder for it where there is a wheel; elsewhere the same targets are
fed mutations of what was kept. Inputs that reach more than those of tests/corpus are kept there with `keep`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from offgrid_tools.fuzz import corpus
from offgrid_tools.fuzz.mutation import INPUT_BYTES_MAX
from offgrid_tools.fuzz.running import Found, feed, reach, search, shorter
from offgrid_tools.fuzz.targets import TARGETS
from offgrid_tools.soak.chance import chance

ATHERIS = "atheris==3.0.0"
INSTALL_S = 600
INPUT_S, MEMORY_MB = 20, 2_048  # that one input, and one target, may take
KEPT_MAX = 48  # inputs of a target beside its finds, the short ones first
KEPT_BYTES_MAX = 1_500
TRIES_A_SECOND = 100  # where atheris is not to be had
SUMMARY = re.compile(r"cov: (\d+) .*exec/s: (\d+)")


def soak_fuzz(seed: int, seconds: int, say: Callable[[str], None], *, keep: bool = False) -> list[str]:
    """Each target for so long; returns what was found. `keep`: the corpus of this checkout grows by it."""
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="offgrid-fuzz-") as folder:
        tools = Path(folder) / "tools"
        why = _install(tools)
        say(f"   {ATHERIS} cannot be had, so nothing guides the search: {why}" if why else f"   guided by {ATHERIS}")
        for target in TARGETS:
            inputs = corpus.kept(target) or [b""]
            try:
                for data in inputs:
                    feed(target, data)
                if why:
                    search(target, chance(f"{seed}/{target}"), inputs, seconds * TRIES_A_SECOND)
                    continue
                reached, told = _guided(target, inputs, Path(folder), tools, seed, seconds)
                say(f"   {target:16} {told}, {len(reached)} inputs")
                if keep:
                    _keep(target, reached)
            except Found as found:
                data = shorter(found)
                broken.append(f"{target} does not stand {data.hex()}: {found.what}")
                say(f"   {target:16} {found.what}")
                if keep:
                    told_before = corpus.finds(target)
                    corpus.write(target, corpus.kept(target), [*told_before, (_in_a_line(found.what), data)])
    return broken


def _install(folder: Path) -> str:
    """Why it cannot be had; empty where it is."""
    python = folder.parent / "venv" / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(folder.parent / "venv")],
        [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--target", str(folder), ATHERIS],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        except OSError as error:
            return str(error)
        if done.returncode:
            return _in_a_line(done.stderr)
    return ""


def _guided(
    target: str, inputs: Iterable[bytes], folder: Path, tools: Path, seed: int, seconds: int
) -> tuple[list[bytes], str]:
    """All inputs that reached more than those before, and what the search came to. Raises Found."""
    place = folder / target
    place.mkdir()
    for data in inputs:
        (place / sha256(data).hexdigest()).write_bytes(data)
    bounds = [f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_S}", f"-rss_limit_mb={MEMORY_MB}"]
    bounds += [f"-artifact_prefix={folder / target}.find.", f"-seed={seed & 0x7FFFFFFF}"]
    said = _run(tools, target, [str(place), *bounds, f"-max_total_time={seconds}"])
    for find in sorted(folder.glob(f"{target}.find.*")):
        data = find.read_bytes()
        feed(target, data)
        raise Found(target, data, f"by itself it is stood, in the search it was not: {_in_a_line(said)}")
    numbers = SUMMARY.findall(said)
    told = f"{numbers[-1][0]} branches, {numbers[-1][1]} inputs a second" if numbers else _in_a_line(said)
    return [path.read_bytes() for path in place.iterdir()], told


def _run(tools: Path, target: str, arguments: Sequence[str]) -> str:
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(tools)])
    command = [sys.executable, "-m", "offgrid_tools.fuzz.guided", target, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env={**os.environ, "PYTHONPATH": path}
    )
    return done.stderr


def _keep(target: str, reached: Iterable[bytes]) -> None:
    """Of each line that is reached one input that does, the short ones first."""
    least, lines = list[bytes](), set[tuple[str, int]]()
    for data in sorted((data for data in reached if len(data) <= KEPT_BYTES_MAX), key=len):
        more = reach(target, data) - lines
        if more and len(least) < KEPT_MAX:
            least.append(data)
            lines |= more
    corpus.write(target, least, corpus.finds(target))


def _in_a_line(said: str) -> str:
    return " ".join(said.split())[-300:]
