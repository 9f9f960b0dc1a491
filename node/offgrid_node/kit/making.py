"""Fills a kit: wheels of the package index, each by a hash of the locks, the project's own, and what installs them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from offgrid_node import __version__
from offgrid_node.kit import manifest as form
from offgrid_node.kit.extras import pins_for
from offgrid_node.kit.locked import pins_of, read_lock
from offgrid_node.kit.manifest import Manifest, weigh
from offgrid_node.kit.own_wheel import own_wheel
from offgrid_node.kit.shelf import Shelf
from offgrid_node.kit.targets import Target
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest, Unavailable

README = """\
offgrid-node {version}: an install kit for machines without an internet.

    python3 install.py                 installs it for you, below your home; --help says more
    offgrid-node join og1:...          makes this machine a member of a mesh
    offgrid-node bundle serve          hands this kit to the next machine

Python {pythons} must be there; nothing is fetched from anywhere.

For: {platforms}

Whoever gives you this kit can run what they like on your machine, so take it from somebody you trust. That it is the
kit they meant, every byte of it, one digest tells; compare it with theirs before you run anything:

    sha256sum install.py               (Windows: certutil -hashfile install.py SHA256)
"""

Say = Callable[[str], None]


def make_kit(folder: Path, wanted: Sequence[Target], say: Say, extras: Sequence[str] = ()) -> Manifest:
    """A kit for those targets, each with these extras, in `folder`, which must be new or empty. It takes its place
    whole or not at all.

    Raises Unavailable where the index has not what the locks name, with pip's own words.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FailedPrecondition(f"{folder} is not empty; name a folder that is to hold the kit", reason="NotEmpty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        kit = Path(scratch) / "kit"
        (kit / form.WHEELS).mkdir(parents=True)
        made = _filled(kit, wanted, say, extras)
        if folder.exists():
            folder.rmdir()
        kit.rename(folder)
    return made


def copy_kit(kit: Path, folder: Path) -> None:
    """The very same kit once more. Raises FailedPrecondition where `folder` has something in it already, Corrupt where
    the kit is not what it says it is."""
    Shelf(kit).check()
    if folder.exists() and any(folder.iterdir()):
        raise FailedPrecondition(f"{folder} is not empty; name a folder that is to hold the kit", reason="NotEmpty")
    shutil.copytree(kit, folder, dirs_exist_ok=True)


def seal_kit(
    kit: Path, version: str, pip: str, targets: Mapping[str, Sequence[str]], extras: Sequence[str] = ()
) -> Manifest:
    """Writes what is beside the wheels, all of which are there: a README, `kit.json`, and the `install.py` that holds
    its digest."""
    platforms = sorted({name.rpartition("-")[0] for name in targets})
    pythons = sorted({name.rpartition("-")[2] for name in targets}, key=lambda text: [*map(int, text.split("."))])
    readme = README.format(version=version, pythons=" or ".join(pythons), platforms=", ".join(platforms)).encode()
    script = (Path(__file__).parent / form.INSTALLER).read_text(encoding="utf-8").encode()
    files = {path.name: weigh(path) for path in sorted((kit / form.WHEELS).iterdir())}
    texts = {form.README: hashlib.sha256(readme).hexdigest(), form.INSTALLER: hashlib.sha256(script).hexdigest()}
    made = Manifest(version, pip, files, targets, texts, tuple(extras))
    encoded = made.encode()
    stamped = script.replace(form.stamp(""), form.stamp(hashlib.sha256(encoded).hexdigest()))
    for name, data in ((form.NAME, encoded), (form.README, readme), (form.INSTALLER, stamped)):
        (kit / name).write_bytes(data)
        (kit / name).chmod(0o644)
    kit.chmod(0o755)  # others read it, whatever the umask is, and do not change it
    return made


def _filled(kit: Path, wanted: Sequence[Target], say: Say, extras: Sequence[str]) -> Manifest:
    wheels = kit / form.WHEELS
    own = own_wheel(wheels).name
    say(f"own wheel: {own}")
    pins = pins_for(extras)
    targets: dict[str, Sequence[str]] = {}
    with _pip() as pip:
        pip_name = _downloaded(pip, wheels, [pin.requirement for pin in pins_of(read_lock("pip"))], ())
        for target in wanted:
            lines = [pin.requirement for pin in pins if pin.wanted_at(target)]
            names = _downloaded(pip, wheels, lines, _of(target))
            targets[target.name] = (*names, own)
            say(f"{target.name}: {len(names) + 1} wheels")
    return seal_kit(kit, __version__, pip_name[0], targets, extras)


def _of(target: Target) -> tuple[str, ...]:
    tags = (word for tag in target.platform.tags for word in ("--platform", tag))
    return (*tags, "--python-version", target.python, "--implementation", "cp")


def _downloaded(pip: Sequence[str], wheels: Path, requirements: Sequence[str], of: Sequence[str]) -> tuple[str, ...]:
    """Fetches these into `wheels`, where they are not there yet, and returns their file names."""
    with tempfile.TemporaryDirectory(prefix="offgrid-pip-", dir=wheels.parent) as scratch:
        listed = Path(scratch) / "requirements.txt"
        listed.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [*pip, "download", "--no-deps", "--require-hashes", "--only-binary=:all:", *of]
        command += ["--find-links", str(wheels), "--dest", scratch, "--progress-bar", "off", "-r", str(listed)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            said = [
                line.partition(" (from versions")[0] for line in done.stderr.splitlines() if line.startswith("ERROR")
            ]
            raise Unavailable(
                f"pip could not fetch the wheels: {' '.join(said[:3]) or done.stderr.strip()[-500:]}; its index is "
                "what PIP_INDEX_URL or pip's configuration names",
                reason="NoIndex",
            )
        found = sorted(path for path in Path(scratch).iterdir() if path.suffix == ".whl")
        for path in found:
            path.replace(wheels / path.name)
        return tuple(path.name for path in found)


@contextmanager
def _pip() -> Iterator[tuple[str, ...]]:
    """A command line that runs pip: of this environment, else of a fresh one that has Python's own."""
    here = (sys.executable, "-P", "-m", "pip")
    if subprocess.run([*here, "--version"], capture_output=True, check=False).returncode == 0:
        yield here
        return
    with tempfile.TemporaryDirectory(prefix="offgrid-pip-") as scratch:
        try:
            venv.create(scratch, with_pip=True, symlinks=sys.platform != "win32")
        except (subprocess.CalledProcessError, OSError) as error:
            raise Unavailable(
                "there is no pip here that could fetch wheels; install one (Debian: apt install python3-venv; uv: "
                "uv pip install pip)",
                reason="NoPip",
            ) from error
        folder = "Scripts" if sys.platform == "win32" else "bin"
        yield (str(Path(scratch) / folder / "python"), "-P", "-m", "pip")


def check_covers(kit: Path, wanted: Sequence[str], extras: Sequence[str]) -> None:
    """Raises InvalidRequest where a kit has not all files of a target in `wanted`, or lacks one of the extras."""
    manifest = form.read_manifest(kit)
    if without := [name for name in extras if name not in manifest.extras]:
        raise InvalidRequest(
            f"the kit in {kit}, from which this node was installed, is without {', '.join(without)}; make one with it "
            "where there is a package index"
        )
    whole = form.complete_targets(kit, manifest)
    if missing := [name for name in wanted if name not in whole]:
        raise InvalidRequest(
            f"the kit in {kit} is not whole for {', '.join(missing)}; fetch it with `install.py --whole`, or make one "
            "where there is a package index"
        )
