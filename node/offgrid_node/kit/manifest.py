"""`kit.json`: which files a kit has, their digests, and which of them a target's machine installs.

    {"format": 1, "version": "0.1.0", "pip": "pip-….whl",
     "files": {"NAME": {"bytes": 123, "sha256": "…"}}, "targets": {"linux-x86_64-3.11": ["NAME", …]},
     "extras": ["lora", …], "texts": {"README.txt": "sha256", "install.py": "sha256 of it before it is stamped"}}

Two files hold each other's digest: `install.py` is stamped with that of `kit.json`, which has it unstamped. So the
digest of either says what every byte of a kit is. `install.py`, which stands alone, reads the same form. A kit
may lack wheels: who has fetched what one machine needs hands that on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from offgrid_node.protocol.errors import Corrupt, InvalidRequest

FORMAT = 1
NAME, INSTALLER, README, WHEELS = "kit.json", "install.py", "README.txt", "wheels"
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
SHOWN = 3  # names in a sentence


class Wheel(msgspec.Struct, frozen=True):
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    version: str
    pip: str
    files: Mapping[str, Wheel]
    targets: Mapping[str, Sequence[str]]
    texts: Mapping[str, str]
    extras: Sequence[str] = ()

    def encode(self) -> bytes:
        """The file's bytes; the same for the same content."""
        shape = {
            "format": FORMAT,
            "version": self.version,
            "pip": self.pip,
            "files": {name: {"bytes": wheel.bytes, "sha256": wheel.sha256} for name, wheel in self.files.items()},
            "targets": {name: sorted(wheels) for name, wheels in self.targets.items()},
            "extras": list(self.extras),
            "texts": dict(self.texts),
        }
        return json.dumps(shape, indent=1, sort_keys=True).encode() + b"\n"


def read_manifest(kit: Path) -> Manifest:
    """Of the kit in this folder. Raises InvalidRequest where there is none, or one of another form."""
    path = kit / NAME
    try:
        with path.open("rb") as source:
            shape = json.loads(source.read(MANIFEST_BYTES_MAX))
        if shape["format"] != FORMAT:
            raise InvalidRequest(f"{path} has format {shape['format']}; this version reads {FORMAT}")
        files = {str(name): Wheel(int(it["bytes"]), str(it["sha256"])) for name, it in shape["files"].items()}
        if unplain := next((name for name in files if Path(name).name != name or name.startswith(".")), None):
            raise InvalidRequest(f"{path}: {unplain!r} is no plain file name")
        texts = {name: str(shape["texts"][name]) for name in (README, INSTALLER)}
        extras = tuple(map(str, shape.get("extras", ())))
        return Manifest(str(shape["version"]), str(shape["pip"]), files, dict(shape["targets"]), texts, extras)
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}; make a kit with `offgrid-node bundle`") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"{path} is no manifest of a kit: {error!r}") from error


def sha256_of(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def weigh(path: Path) -> Wheel:
    return Wheel(path.stat().st_size, sha256_of(path))


def lacking(kit: Path, manifest: Manifest) -> tuple[str, ...]:
    """Files that the manifest names and the folder has not."""
    return tuple(name for name in manifest.files if not (kit / WHEELS / name).is_file())


def complete_targets(kit: Path, manifest: Manifest, wrong: Sequence[str] = ()) -> tuple[str, ...]:
    """The targets whose files are all there, and none of them among those that are `wrong`."""
    missing = {*lacking(kit, manifest), *wrong}
    if not missing.isdisjoint((manifest.pip, *manifest.texts)):
        return ()
    return tuple(name for name, wheels in manifest.targets.items() if missing.isdisjoint(wheels))


def damaged(kit: Path, manifest: Manifest) -> tuple[str, ...]:
    """Files that are there and not what the manifest says; every byte is read."""
    there = ((name, kit / WHEELS / name) for name in manifest.files)
    found = [name for name, path in there if path.is_file() and weigh(path) != manifest.files[name]]
    return (*found, *altered(kit, manifest))


def stamp(digest: str) -> bytes:
    """The line of `install.py` that names its kit; with no digest, as it stands before."""
    return f'KIT_SHA256 = "{digest}"'.encode()


def altered(kit: Path, manifest: Manifest) -> tuple[str, ...]:
    """Which of the README and `install.py`, that are read and run by people, are not there as the manifest has them."""
    line = stamp(sha256_of(kit / NAME))
    return tuple(name for name in manifest.texts if not _is_ours(kit / name, line, manifest.texts[name]))


def _is_ours(path: Path, line: bytes, digest: str) -> bool:
    try:
        data = path.read_bytes()
    except OSError:
        return False
    whole = hashlib.sha256(data.replace(line, stamp(""))).hexdigest() == digest
    return whole and data.count(line) == (path.name == INSTALLER)


def check_unaltered(kit: Path, manifest: Manifest) -> None:
    """Raises Corrupt: such a kit is handed to nobody."""
    if wrong := altered(kit, manifest):
        raise changed(kit, wrong)


def changed(kit: Path, names: Sequence[str]) -> Corrupt:
    """What to say of files that are not the manifest's."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    what = "is not what the kit says it is" if len(names) == 1 else "are not what the kit says they are"
    return Corrupt(f"{kit}: {', '.join(names[:SHOWN])}{more} {what}; get the kit anew from who made it")
