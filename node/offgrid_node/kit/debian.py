"""A kit as a Debian package (deb(5)): an `ar` archive of two tar files, made by the standard library, so on any system.

The package holds the kit's files for one Debian machine, and its `postinst` runs their `install.py`: what is installed
is what the kit's digests say, whichever way it came. A node's folder is none of its business, also when it is removed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from offgrid_node.kit import manifest as form
from offgrid_node.protocol.errors import InvalidRequest

ARCHITECTURES = {"linux-x86_64": "amd64", "linux-aarch64": "arm64"}
PLACE, ENVIRONMENT, COMMANDS = "usr/share/offgrid-node/kit", "/opt/offgrid-node", "/usr/bin"
CONTROL = """\
Package: offgrid-node
Version: {version}
Architecture: {architecture}
Maintainer: offgrid-node <offgrid-node@localhost>
Depends: {pythons}
Section: net
Priority: optional
Installed-Size: {kilobytes}
Description: several machines act as one, with or without an internet
 One daemon with any mix of the roles core, broker and host. This package
 brings all that it needs and fetches nothing.
"""
INSTALL = """\
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
exec python3 /{place}/install.py --dir {environment} --commands {commands}
"""
REMOVE = """\
#!/bin/sh
set -e
[ "$1" = remove ] || exit 0
rm -rf {environment}/kit {environment}/env-*
rmdir --ignore-fail-on-non-empty {environment} 2>/dev/null || true
for name in offgrid offgrid-node; do
    case "$(readlink {commands}/$name)" in {environment}/*) rm -f {commands}/$name ;; esac
done
"""


def write_deb(kit: Path, platform: str, target: Path) -> None:
    """Makes the package `target` of the kit's files for that platform, one of ARCHITECTURES, and all its Pythons.

    Raises InvalidRequest where the kit is not whole for it, or holds a file that it does not vouch for.
    """
    manifest = form.read_manifest(kit)
    targets = [name for name in form.complete_targets(kit, manifest) if name.rpartition("-")[0] == platform]
    if not targets:
        raise InvalidRequest(f"the kit in {kit} is not whole for {platform}")
    if wrong := form.damaged(kit, manifest):
        raise InvalidRequest(f"{kit}: {', '.join(wrong)} is not what the kit says it is")
    names = sorted({manifest.pip, *(wheel for name in targets for wheel in manifest.targets[name])})
    files = [(f"{PLACE}/{name}", kit / name) for name in (form.NAME, form.INSTALLER, form.README)]
    files += [(f"{PLACE}/{form.WHEELS}/{name}", kit / form.WHEELS / name) for name in names]
    words = {"place": PLACE, "environment": ENVIRONMENT, "commands": COMMANDS}
    control = CONTROL.format(
        version=manifest.version,
        architecture=ARCHITECTURES[platform],
        pythons=_depends([name.rpartition("-")[2] for name in targets]),
        kilobytes=sum(path.stat().st_size for _, path in files) // 1024,
    )
    sums = "".join(f"{_md5(path)}  {name}\n" for name, path in files)
    about = [("control", control, 0o644), ("md5sums", sums, 0o644)]
    about += [("postinst", INSTALL.format(**words), 0o755), ("prerm", REMOVE.format(**words), 0o755)]
    members = [
        ("debian-binary", b"2.0\n"),
        (
            "control.tar.gz",
            _tar(_folder_entries(()) + [_entry(name, text.encode(), mode) for name, text, mode in about]),
        ),
        ("data.tar.gz", _tar(_folder_entries([name for name, _ in files]) + [_of_file(*file) for file in files])),
    ]
    with target.open("xb") as archive:
        archive.write(b"!<arch>\n")
        for name, data in members:
            archive.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
            archive.write(data + b"\n" * (len(data) % 2))


def _depends(pythons: Sequence[str]) -> str:
    """The oldest that the kit is for, and below what comes after its newest: `python3` is what runs the script."""
    numbers = sorted(tuple(map(int, python.split("."))) for python in pythons)
    (major, newest), oldest = numbers[-1], numbers[0][1]
    return f"python3 (>= {major}.{oldest}), python3 (<< {major}.{newest + 1})"


Entry = tuple[tarfile.TarInfo, bytes]


def _entry(name: str, data: bytes, mode: int = 0o644) -> Entry:
    info = tarfile.TarInfo(f"./{name}")
    info.size, info.mode, info.uname, info.gname = len(data), mode, "root", "root"
    return info, data


def _of_file(name: str, path: Path) -> Entry:
    return _entry(name, path.read_bytes())


def _folder_entries(names: Sequence[str]) -> list[Entry]:
    """The root, and each folder on the way to a file, once."""
    found = []
    for folder in ("", *sorted({folder for name in names for folder in _folders_of(name)})):
        info, data = _entry(f"{folder}/" if folder else "", b"", 0o755)
        info.type = tarfile.DIRTYPE
        found.append((info, data))
    return found


def _folders_of(name: str) -> Iterator[str]:
    parts = name.split("/")[:-1]
    yield from ("/".join(parts[: number + 1]) for number in range(len(parts)))


def _tar(entries: Sequence[Entry]) -> bytes:
    """Compressed quickly: wheels are compressed already. The same entries make the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as made:
        for info, data in entries:
            made.addfile(info, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), 1, mtime=0)


def _md5(path: Path) -> str:
    """What dpkg compares files with; nothing is trusted for it."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
