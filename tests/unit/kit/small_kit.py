"""A kit of a few kilobytes: a project that has two commands and does nothing, and a pip that can only unpack."""

from __future__ import annotations

import zipfile
from pathlib import Path

from offgrid_node.kit import manifest as form
from offgrid_node.kit.making import seal_kit
from offgrid_node.kit.manifest import Manifest

OWN, PIP, OTHER = "offgrid_node-0.1.0-py3-none-any.whl", "pip-0-py3-none-any.whl", "lib-1-win.whl"
UNPACK = """\
import pathlib, sys, zipfile
scripts = pathlib.Path(sys.executable).parent
site = next(p for p in map(pathlib.Path, sys.path) if p.name == "site-packages")
for wheel in (word for word in sys.argv if word.endswith(".whl")):
    zipfile.ZipFile(wheel).extractall(site)
for name in ("offgrid-node", "offgrid"):
    command = scripts / name
    command.write_text(f"#!{sys.executable}\\nimport small_node\\n")
    command.chmod(0o755)
"""


def make_small_kit(kit: Path, target: str) -> Manifest:
    """For `target`, and another one that has a file more."""
    wheels = kit / form.WHEELS
    wheels.mkdir(parents=True)
    _zip(wheels / OWN, {"small_node.py": "print('offgrid-node, version 0.1.0')"})
    _zip(wheels / PIP, {"pip/__main__.py": UNPACK})
    _zip(wheels / OTHER, {"lib.py": ""})
    return seal_kit(kit, "0.1.0", PIP, {target: (OWN,), "windows-x86_64-3.99": (OWN, OTHER)})


def _zip(path: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
