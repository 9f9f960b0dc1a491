"""The project's own `.venv`: made, filled from the locks and stamped, so that the second run costs nothing.

Two stamps are kept in it: one for the packages (the lock's bytes), one for the project itself (what its build reads).
Only what has changed is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

from offgrid_tools.checkout.installer import InstallFailed, find_pip, pip_install
from offgrid_tools.checkout.progress import Progress

ROOT = Path(__file__).resolve().parents[3]
LOCKS = {"runtime": "locks/runtime.txt", "dev": "locks/dev.txt", "bench": "locks/bench.txt"}
PROFILES = {"runtime": ("runtime",), "dev": ("runtime", "dev"), "bench": ("runtime", "bench")}  # the locks each fulfils
EXTRAS_LOCK = "locks/extras.txt"
PIP_LOCK = "locks/pip.txt"
LOCK_NAME = ".offgrid-lock"
GENERATED_PER_PROTO = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def compiling() -> dict[str, str]:
    """This process's variables without the one by which nothing that was compiled is kept."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Environment:
    """`.venv` below `root`. `ensure` is all that a command needs before it runs something in there."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.folder = root / ".venv"
        self._scripts = self.folder / ("Scripts" if sys.platform == "win32" else "bin")
        self._stamp = self.folder / ".offgrid-stamp.json"

    @property
    def python(self) -> Path:
        return self.program("python")

    def program(self, name: str) -> Path:
        """The path of an installed command, whether or not it is there."""
        return self._scripts / (f"{name}.exe" if sys.platform == "win32" else name)

    def ensure(self, profile: str) -> None:
        """Brings the environment up to `profile` ("runtime", or "dev" or "bench", which contain it).

        Raises InstallFailed, with pip's last words and what to try, when that is not possible.
        """
        if self.is_ready(profile):
            return
        self.folder.mkdir(exist_ok=True)
        with _alone(self.folder / LOCK_NAME):
            self._bring_up(profile)

    def is_ready(self, profile: str) -> bool:
        """Whether `ensure` has nothing to do. Raises InstallFailed when what the locks ask for cannot be read."""
        return self._wanted(profile).items() <= self._stamped().items() and self._generated()

    def _bring_up(self, profile: str) -> None:
        have, wanted = self._stamped(), self._wanted(profile)
        fresh = not self._usable(have)
        if fresh:
            have = {}
        packages = any(have.get(name) != wanted[name] for name in wanted.keys() & LOCKS.keys())
        project = packages or have.get("project") != wanted["project"] or not self._generated()
        progress = Progress(fresh + packages + project)
        if fresh:
            with progress.step("making .venv"):
                for old in self.folder.iterdir():
                    if old.name != LOCK_NAME:
                        _remove(old)
                venv.create(self.folder, symlinks=sys.platform != "win32", with_pip=False)
        if packages:
            self._install_packages(profile, progress)
        if project:
            with progress.step("building the project in place") as step:
                pip_install(self._pip(), ["--no-deps", "--no-build-isolation", "--editable", str(self.root)], step)
        self._stamp.write_text(json.dumps({**have, **self._wanted(profile)}, indent=1), encoding="utf-8")

    def _install_packages(self, profile: str, progress: Progress) -> None:
        lock = self.root / LOCKS[profile]
        count = len(re.findall(r"^[A-Za-z0-9_.-]+==", lock.read_text(encoding="utf-8"), re.MULTILINE))
        with progress.step(f"installing {count} packages") as step:
            pip_install(self._pip(), ["--require-hashes", "--requirement", str(lock)], step, count)

    def _pip(self) -> list[str]:
        return find_pip(self.python, self.root / PIP_LOCK, self.folder)

    def _wanted(self, profile: str) -> dict[str, str]:
        wanted = {
            "root": str(self.root),
            "python": self._python_file(),
            "project": self._digest([*self._build_inputs()]),
        }
        return wanted | {name: self._digest([self.root / LOCKS[name]]) for name in PROFILES[profile]}

    def _build_inputs(self) -> Iterator[Path]:
        yield self.root / "pyproject.toml"
        yield self.root / "tools" / "hatch_build.py"
        yield from sorted((self.root / "proto").rglob("*.proto"))

    def _digest(self, paths: list[Path]) -> str:
        digest = hashlib.sha256()
        for path in paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise InstallFailed(f"{path} cannot be read: {error.strerror}") from error
            digest.update(f"{path.relative_to(self.root).as_posix()} {len(data)}\n".encode() + data)
        return digest.hexdigest()

    def _stamped(self) -> dict[str, str]:
        try:
            stamp = json.loads(self._stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def _python_file(self) -> str:
        """Changes when the Python behind the environment is upgraded; "" when there is none."""
        try:
            stat = self.python.stat()
        except OSError:
            return ""
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def _usable(self, stamped: Mapping[str, str]) -> bool:
        """The environment's Python starts, still finds its packages, and the checkout has not been moved."""
        if not self.python.exists() or stamped.get("root", str(self.root)) != str(self.root):
            return False
        code = "import os, sys, sysconfig; sys.exit(not os.path.isdir(sysconfig.get_path('purelib')))"
        try:
            asked = subprocess.run([str(self.python), "-I", "-c", code], capture_output=True, check=False)
        except OSError:
            return False
        return asked.returncode == 0

    def _generated(self) -> bool:
        protos = (self.root / "proto").rglob("*.proto")
        return all((p.parent / (p.stem + suffix)).exists() for p in protos for suffix in GENERATED_PER_PROTO)

    def clean(self) -> list[Path]:
        """Removes what this tree made (environment, generated code, caches) and returns it; data/ stays."""
        doomed = [self.folder, self.root / "dist"]
        caches = ("mypy", "ruff", "import_linter", "pytest")
        doomed += [self.root / f".{name}_cache" for name in caches] + [self.root / ".hypothesis"]
        for base in ("proto", "node", "transports", "tools", "tests"):
            doomed += [*(self.root / base).rglob("__pycache__")]
        doomed += [p for suffix in GENERATED_PER_PROTO for p in (self.root / "proto").rglob(f"*{suffix}")]
        gone = [path for path in doomed if path.exists()]
        for path in gone:
            _remove(path)
        return gone


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps a second run out while the first one installs; the lock goes with the process, however it ends."""
    with path.open("a+b") as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
