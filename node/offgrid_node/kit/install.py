#!/usr/bin/env python3
"""Installs offgrid-node from the kit that this script belongs to, without an internet.

It needs Python, one of those that the kit is for, and nothing else. It checks each file against the kit's digests,
makes an environment of its own, puts the commands `offgrid-node` and `offgrid` where shells find them, and keeps the
files, so that this machine can hand the kit on: `offgrid-node bundle serve`. Nothing else of the machine is touched.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    Manifest = dict[str, Any]

KIT_SHA256 = ""
"""Of kit.json; whoever makes the kit writes it here."""
FORMAT = 1
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
PIECE_BYTES = 256 * 1024
QUIET_S = 30  # without a byte from who serves the kit
TRIES = 5
WINDOWS = sys.platform == "win32"
SYSTEMS = {"linux": "linux", "win32": "windows", "darwin": "macos"}
MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "x64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
GLIBC_MIN = (2, 28)
CURRENT = "current"  # what the commands, and services, are started by
WHOLE = "whole"  # a file in each environment that was made to its end
KEPT = 2  # environments: this one, and the one before, from which a node may be running
UNPACKED = 4  # times what its wheels are is what an environment takes, as seen
PIP_VARIABLES = ("PIP_", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")


class Refused(Exception):
    """Why it cannot be installed, and what to do, in one sentence for the person at the terminal."""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def this_target() -> str:
    """The name that the kit has for this machine and this Python."""
    system = SYSTEMS.get(sys.platform, sys.platform)
    machine = MACHINES.get(platform.machine().lower(), platform.machine())
    if system == "macos" and machine == "aarch64":
        machine = "arm64"
    return f"{system}-{machine}-{sys.version_info[0]}.{sys.version_info[1]}"


def check_target(target: str, known: list[str]) -> None:
    """Whether the kit is for this machine, and if by another Python only, by which."""
    if target in known:
        return
    platform_name, _, python = target.rpartition("-")
    others = [name.rpartition("-")[2] for name in sorted(known) if name.rpartition("-")[0] == platform_name]
    if not others:
        raise Refused(f"the kit is not for {target}; it is for {', '.join(sorted(known))}")
    here = next((found for found in map(shutil.which, (f"python{other}" for other in reversed(others))) if found), "")
    way = f"run this script by {here}" if here else "install one of them and run this script by it"
    raise Refused(f"the kit is for Python {', '.join(others)}, and this one is {python}; {way}")


def check_room(folder: Path, bytes_needed: int) -> None:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(str(folder)).free
    if free < bytes_needed:
        raise Refused(
            f"{folder} has {free / 1e6:.0f} MB free, and {bytes_needed / 1e6:.0f} MB are needed; "
            "make room, or choose another place by --dir"
        )


def check_machine() -> None:
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise Refused("the kit is for CPython with its lock; run this script by another Python")
    if sys.maxsize < 2**32:
        raise Refused("this Python is a 32-bit one; the kit is for 64-bit ones")
    if sys.platform == "linux":
        name, version = platform.libc_ver()
        if name != "glibc" or tuple(map(int, version.split(".")[:2])) < GLIBC_MIN:
            raise Refused(
                f"the kit needs glibc {GLIBC_MIN[0]}.{GLIBC_MIN[1]} or newer; this Linux has "
                f"{name or 'another C library'} {version}"
            )


class Source:
    """Where the kit's files come from: a folder, or who serves one."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")
        self.remote = place.startswith(("http://", "https://"))
        # What is fetched comes from a machine beside this one, never through a proxy.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def open(self, name: str) -> IO[bytes]:
        if not self.remote:
            return open(os.path.join(self.place, *name.split("/")), "rb")
        stream: IO[bytes] = self._opener.open(f"{self.place}/{name}", timeout=QUIET_S)
        return stream

    def read(self, name: str, limit: int) -> bytes:
        with self.open(name) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise Refused(f"{name} at {self.place} is larger than {limit} bytes: that is no kit")
        return data


def stamp(digest: str) -> bytes:
    """The line by which this script names its kit."""
    return f'KIT_SHA256 = "{digest}"'.encode()


def read_manifest(source: Source, digest: str) -> tuple[Manifest, bytes]:
    """What the kit has, and kit.json as it stands."""
    try:
        data = source.read("kit.json", MANIFEST_BYTES_MAX)
    except OSError as error:
        raise Refused(f"no kit at {source.place}: {reason_of(error)}") from error
    if not digest:
        raise Refused("this install.py belongs to no kit; take the one that lies in the kit")
    if hashlib.sha256(data).hexdigest() != digest:
        raise Refused(
            f"kit.json at {source.place} is not the one that this install.py was made with; take both from one kit"
        )
    manifest: Manifest = json.loads(data.decode())
    if manifest["format"] != FORMAT:
        raise Refused(f"the kit has format {manifest['format']}, and this script reads {FORMAT}")
    return manifest, data


def read_texts(source: Source, manifest: Manifest, digest: str) -> dict[str, bytes]:
    """What lies beside the wheels, for those whom the kit is handed on to: the README, and this script once more. Each
    must be the manifest's, which has the script as it is before it is stamped."""
    texts = {}
    for name, wanted in manifest["texts"].items():
        data = texts[name] = source.read(name, MANIFEST_BYTES_MAX)
        plain = data.replace(stamp(digest), stamp(""))
        stamped = data.count(stamp(digest)) == 1
        if hashlib.sha256(plain).hexdigest() != wanted or stamped != (name == "install.py"):
            raise altered(source, name)
    return texts


def altered(source: Source, name: str) -> Refused:
    return Refused(f"{name} at {source.place} is not what the kit says it is; get the kit anew from somebody you trust")


def reason_of(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    inner = getattr(error, "reason", None) or error
    return str(getattr(inner, "strerror", None) or inner)


def is_whole(path: Path, entry: Manifest) -> bool:
    """Whether that file is there, every byte of it."""
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(PIECE_BYTES), b""):
            digest.update(piece)
    return digest.hexdigest() == str(entry["sha256"])


def lacking(folder: Path, names: list[str]) -> list[str]:
    return [name for name in names if not (folder / name).exists()]


def fetch(source: Source, name: str, entry: Manifest, folder: Path) -> None:
    """Puts one file of the kit into `folder`, verified, from one moment to the next; what is there already stays."""
    path = folder / name
    if is_whole(path, entry):
        return
    part = folder / (name + ".part")
    digest, size = hashlib.sha256(), 0
    with source.open(f"wheels/{name}") as stream, part.open("wb") as written:
        for piece in iter(lambda: stream.read(PIECE_BYTES), b""):
            size += len(piece)
            if size > entry["bytes"]:
                break
            digest.update(piece)
            written.write(piece)
    if size < entry["bytes"]:
        raise ConnectionError(f"{name} ended after {size} of {entry['bytes']} bytes")
    if digest.hexdigest() != entry["sha256"]:
        part.unlink()
        raise altered(source, name)
    os.replace(part, path)


def fetch_all(source: Source, manifest: Manifest, names: list[str], folder: Path) -> None:
    """All of `names`; a connection that breaks is tried again, and what has come stays."""
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(manifest["files"][name]["bytes"] for name in names)
    come = 0
    for number, name in enumerate(names, 1):
        for attempt in range(TRIES):
            try:
                fetch(source, name, manifest["files"][name], folder)
                break
            except (OSError, EOFError) as error:
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    raise Refused(f"{folder}: {reason_of(error)}; make room, and type the same again") from error
                lost = isinstance(error, (urllib.error.HTTPError, FileNotFoundError)) or not source.remote
                if lost or attempt == TRIES - 1:
                    later = "; the same command goes on where it was" if source.remote else ""
                    raise Refused(f"{name} is not to be had at {source.place}: {reason_of(error)}{later}") from error
                time.sleep(2**attempt / 2)
        come += manifest["files"][name]["bytes"]
        if sys.stdout.isatty():
            sys.stdout.write(f"\r  {number} of {len(names)} files, {come / 1e6:.0f} of {total / 1e6:.0f} MB ")
            sys.stdout.flush()
    if sys.stdout.isatty():
        sys.stdout.write("\r" + " " * 60 + "\r")


def make_environment(folder: Path, wheels: Path, manifest: Manifest, names: list[str]) -> None:
    """An environment in `folder` with those wheels in it, by the pip of the kit."""
    venv.create(str(folder), with_pip=False, symlinks=not WINDOWS)
    python = commands_of(folder) / ("python.exe" if WINDOWS else "python")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(PIP_VARIABLES)}
    variables["PIP_CONFIG_FILE"] = os.devnull
    command = [str(python), str(wheels / manifest["pip"] / "pip"), "install", "--no-index", "--no-deps", "--no-compile"]
    command += [
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-cache-dir",
        *(str(wheels / name) for name in names),
    ]
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        raise Refused("pip could not install the wheels:\n" + done.stdout.decode(errors="replace")[-2000:])
    # As pip would, but on all processors, where there is memory to share: the first start need not.
    for processors in ("0", "1"):
        command = [str(python), "-P", "-m", "compileall", "-q", "-j", processors, str(folder)]
        if not subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
            break
    (folder / WHOLE).touch()


def fresh_place(folder: Path, name: str) -> Path:
    """A path for one more environment: a node may be running from each that is there."""
    for number in range(1, 1000):
        path = folder / (name if number == 1 else f"{name}-{number}")
        if not (path / WHOLE).exists():
            if path.exists():
                shutil.rmtree(path)  # of an installation that was broken off
            return path
    raise Refused(f"{folder} is full of environments; remove it, and install anew")


def make_current(environment: Path) -> Path:
    """The path by which it is started, which stays the same from one installation to the next; on Windows its own."""
    if WINDOWS:
        return environment
    current = environment.parent / CURRENT
    beside = environment.parent / f".{CURRENT}.{os.getpid()}"
    beside.symlink_to(environment.name)
    os.replace(str(beside), str(current))
    return current


def remove_older(folder: Path) -> None:
    """All environments but the newest KEPT, and what installations left that were broken off."""
    found = [path for path in folder.glob("env-*") if path.is_dir()]
    whole = sorted((path for path in found if (path / WHOLE).exists()), key=lambda path: (path / WHOLE).stat().st_mtime)
    for path in found:
        if path not in whole[-KEPT:]:
            shutil.rmtree(str(path), ignore_errors=True)


def commands_of(environment: Path) -> Path:
    return environment / ("Scripts" if WINDOWS else "bin")


def link_commands(environment: Path, folder: Path) -> list[Path]:
    """Puts the two commands into `folder`; returns those that another program's file keeps out."""
    scripts = commands_of(environment)
    folder.mkdir(parents=True, exist_ok=True)
    kept_out = []
    for name in ("offgrid-node", "offgrid"):
        link = folder / (f"{name}.cmd" if WINDOWS else name)
        if link.exists() and not leads_to(link, environment.parent):
            kept_out.append(link)
            continue
        if not WINDOWS and link.resolve() == (scripts / name).resolve():
            continue
        if WINDOWS:
            link.write_text(f'@"{scripts / name}.exe" %*\n')
            continue
        beside = folder / f".{name}.{os.getpid()}"
        beside.symlink_to(scripts / name)
        os.replace(beside, link)
    return kept_out


def leads_to(command: Path, folder: Path) -> bool:
    """Whether it is one that an installation in `folder` has put there."""
    if WINDOWS:
        return command.read_text(errors="replace").startswith(f'@"{folder}{os.sep}')
    return command.is_symlink() and folder.resolve() in command.resolve().parents


def default_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "offgrid-node"
    if os.geteuid() == 0:
        return Path("/opt/offgrid-node")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "offgrid-node"


def default_commands(folder: Path) -> Path:
    if sys.platform == "win32":
        return folder / "commands"
    return Path("/usr/local/bin") if os.geteuid() == 0 else Path.home() / ".local" / "bin"


def arguments(argv: list[str], beside: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="install.py", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "source",
        nargs="?",
        default=beside,
        metavar="KIT",
        help="the kit: a folder, or the address of who serves it, http://HOST:PORT"
        + (f" [default: {beside}]" if beside else ""),
    )
    parser.add_argument("--dir", type=Path, default=default_folder(), help="where it goes [default: %(default)s]")
    parser.add_argument(
        "--commands",
        type=Path,
        help="where the two commands go [default: ~/.local/bin; of root "
        "/usr/local/bin; on Windows the folder `commands` of --dir]",
    )
    parser.add_argument(
        "--whole", action="store_true", help="keep the files for all other machines as well, to hand them on"
    )
    parser.add_argument("--no-hints", action="store_true", help="say nothing of what to type next")
    given = parser.parse_args(argv)
    if not given.source:
        parser.error("say where the kit is: python3 - http://HOST:PORT")
    return given


def install(given: argparse.Namespace, digest: str) -> None:
    began = time.monotonic()
    check_machine()
    source = Source(given.source)
    manifest, encoded = read_manifest(source, digest)
    target = this_target()
    check_target(target, list(manifest["targets"]))
    texts = read_texts(source, manifest, digest)
    folder = given.dir.absolute()
    wheels = folder / "kit" / "wheels"
    names = manifest["targets"][target]
    wanted = sorted(manifest["files"]) if given.whole else sorted({*names, manifest["pip"]})
    total = sum(manifest["files"][name]["bytes"] for name in wanted)
    unpacked = UNPACKED * sum(manifest["files"][name]["bytes"] for name in names)
    check_room(folder, unpacked + sum(manifest["files"][name]["bytes"] for name in lacking(wheels, wanted)))
    say(f"offgrid-node {manifest['version']} for {target}, from {source.place}")
    fetch_all(source, manifest, wanted, wheels)
    say(f"  {len(wanted)} files, {total / 1e6:.0f} MB, verified")
    for name, data in {**texts, "kit.json": encoded}.items():
        (folder / "kit" / name).write_bytes(data)
    environment = fresh_place(folder, f"env-{digest[:12]}-{target.rpartition('-')[2]}")
    make_environment(environment, wheels, manifest, names)
    current = make_current(environment)
    remove_older(folder)
    for path in wheels.iterdir():
        if path.name not in manifest["files"]:
            path.unlink()
    commands = given.commands or default_commands(folder)
    for path in link_commands(current, commands):
        say(f"  {path} is another program's, and stays; ours is {commands_of(current) / path.stem}")
    say(f"  installed in {folder} in {time.monotonic() - began:.0f} s; commands in {commands}")
    if given.no_hints:
        return
    if str(commands) not in os.environ.get("PATH", "").split(os.pathsep):
        say(f"  {commands} is not on your PATH: add it, or type {commands / 'offgrid-node'}")
    say("next: offgrid-node join og1:...    or, to look first: offgrid-node demo")


def main(argv: list[str]) -> int:
    beside = Path(globals().get("__file__", "-")).resolve().parent  # "-": piped into Python
    given = arguments(argv, str(beside) if (beside / "kit.json").is_file() else None)
    try:
        install(given, KIT_SHA256)
    except Refused as error:
        sys.stderr.write(f"install.py: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"install.py: {error.filename or given.source}: {reason_of(error)}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on where it was\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
