"""The example package in docs/ is installed as a stranger would, and the suite runs on it by its own command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import offgrid_transports

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docs" / "example-transport"
PLUGIN = "offgrid_transports.conformance.plugin"  # found by its entry point where offgrid-node is installed


def conformance(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the suite in a process of its own, as its users do."""
    ours = str(Path(offgrid_transports.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*([str(path)] if path else []), ours])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", PLUGIN, "-n", "0"]
    command += ["--pyargs", "offgrid_transports.conformance", *arguments]
    return subprocess.run(command, cwd=path, env=env, capture_output=True, text=True, check=False, timeout=300)


def test_the_example_is_installed_found_and_keeps_every_rule(tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    install = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--no-build-isolation",
    ]
    install += ["--python", sys.executable, "--target", str(installed), str(EXAMPLE)]
    subprocess.run(install, check=True, env={**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache")})
    ends = [f"folder:{tmp_path / 'boxes'}?name={name}" for name in "ab"]
    ran = conformance("--transport", ends[0], "--transport", ends[1], path=installed)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "skipped" not in ran.stdout


def test_without_an_adapter_the_suite_says_what_it_wants(tmp_path: Path) -> None:
    ran = conformance("-x", path=tmp_path)
    assert ran.returncode == 1
    assert "--transport DESCRIPTION" in ran.stdout
