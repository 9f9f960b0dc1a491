"""A kit as a Debian package (deb(5)): an `ar` archive of two tar files, made by the standard library, so on any system.

The package holds the kit's files for one Debian machine, and its `postinst` runs their `install.py` where they lie:
what is installed is what the kit's digests say, whichever way it came. Python's own upgrades trigger that anew. The
package makes an account and a folder for a node; what a node has written there it never removes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

from offgrid_node.kit import manifest as form
from offgrid_node.protocol.errors import InvalidRequest

ARCHITECTURES = {"linux-x86_64": "amd64", "linux-aarch64": "arm64"}
HOME = "usr/lib/offgrid-node"  # the environment beside the kit, of which so no second copy is made
PLACE, DOCUMENTS = f"{HOME}/kit", "usr/share/doc/offgrid-node"
COMMANDS = ("offgrid", "offgrid-node")
ACCOUNT, NODE = "offgrid-node", "/var/lib/offgrid-node"
MADE = "Sun, 02 Feb 2020 00:00:00 +0000"  # of all files, as hatchling has it: the same kit makes the same package
MAINTAINER = "offgrid-node <offgrid-node@offgrid-node.invalid>"
CONTROL = """\
Package: offgrid-node
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Depends: {pythons}, passwd
Section: net
Priority: optional
Installed-Size: {kilobytes}
Description: several machines act as one, with or without an internet
 One daemon with any mix of the roles core, broker and host. This package
 brings all that it needs and fetches nothing.
"""
CHANGELOG = """\
offgrid-node ({version}) unstable; urgency=medium

  * What has changed says `offgrid-node docs`, on its page CHANGELOG.

 -- {maintainer}  {made}
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: offgrid-node

Files: *
Copyright: 2026 the authors of offgrid-node
License: GPL-3+
 On Debian systems the text of the licence is in /usr/share/common-licenses/GPL-3.

Files: {place}/wheels/*
Copyright: the authors of each package
License: of-each-wheel
 Each wheel but offgrid_node's is another project's and brings its licence along, in the folder of its name that
 ends with .dist-info.
"""
_UNITS = "$(grep -ls '^ExecStart=/{home}/' /etc/systemd/system/*.service || true)"
INSTALL = (
    """\
#!/bin/sh
set -e
case "$1" in configure | triggered) ;; *) exit 0 ;; esac
python3 /{place}/install.py --dir /{home} --commands /usr/bin --no-hints
getent passwd {account} > /dev/null ||
    useradd --system --user-group --home-dir {node} --no-create-home --shell /usr/sbin/nologin {account}
[ -d {node} ] || install -d -o {account} -g {account} -m 750 {node}
if [ -d /run/systemd/system ]; then
    for unit in """
    + _UNITS
    + """; do systemctl try-restart "${{unit##*/}}" || true; done
fi
if [ "$1" = configure ] && [ -z "$2" ]; then
    echo "next: sudo -u {account} offgrid-node init --mesh home --dir {node}    or, where there is a mesh, join og1:..."
    echo "      sudo offgrid-node service install --dir {node}"
fi
"""
)
REMOVE = (
    """\
#!/bin/sh
set -e
[ "$1" = remove ] || exit 0
if [ -d /run/systemd/system ]; then
    for unit in """
    + _UNITS
    + """; do systemctl disable --now "${{unit##*/}}" || true; done
fi
rm -rf /{home}/env-* /{home}/current
"""
)
PURGE = (
    """\
#!/bin/sh
set -e
[ "$1" = purge ] || exit 0
for unit in """
    + _UNITS
    + """; do rm -f "$unit"; done
rmdir {node} 2> /dev/null || true
if [ -d {node} ]; then
    echo "{node} stays, with the keys of a node in it, and so does its account {account}; remove them yourself"
elif getent passwd {account} > /dev/null; then
    userdel {account}
fi
"""
)
TRIGGERS = "interest-noawait /usr/bin/python3\n"


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
    kit_files = [(f"{PLACE}/{name}", kit / name) for name in (form.NAME, form.INSTALLER, form.README)]
    kit_files += [(f"{PLACE}/{form.WHEELS}/{name}", kit / form.WHEELS / name) for name in names]
    words = {"place": PLACE, "home": HOME, "account": ACCOUNT, "node": NODE, "made": MADE}
    words |= {"version": manifest.version, "maintainer": MAINTAINER}
    texts = {"changelog.gz": _compressed(CHANGELOG.format(**words).encode(), 9)}
    texts["copyright"] = COPYRIGHT.format(**words).encode()
    files = [(name, path.read_bytes()) for name, path in kit_files]
    files += [(f"{DOCUMENTS}/{name}", data) for name, data in texts.items()]
    control = CONTROL.format(
        architecture=ARCHITECTURES[platform],
        pythons=_depends([name.rpartition("-")[2] for name in targets]),
        kilobytes=sum(len(data) for _, data in files) // 1024,
        **words,
    )
    sums = "".join(f"{_md5(data)}  {name}\n" for name, data in files)
    about = [("control", control, 0o644), ("md5sums", sums, 0o644), ("triggers", TRIGGERS, 0o644)]
    scripts = {"postinst": INSTALL, "prerm": REMOVE, "postrm": PURGE}
    about += [(name, script.format(**words), 0o755) for name, script in scripts.items()]
    commands = [(f"usr/bin/{name}", f"../{HOME.removeprefix('usr/')}/current/bin/{name}") for name in COMMANDS]
    data = _folder_entries([name for name, _ in (*files, *commands)]) + [_entry(name, it) for name, it in files]
    data += [_link(name, to) for name, to in commands]
    members = [
        ("debian-binary", b"2.0\n"),
        (
            "control.tar.gz",
            _tar(_folder_entries(()) + [_entry(name, text.encode(), mode) for name, text, mode in about]),
        ),
        ("data.tar.gz", _tar(data)),
    ]
    with target.open("xb") as archive:
        archive.write(b"!<arch>\n")
        for name, content in members:
            archive.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            archive.write(content + b"\n" * (len(content) % 2))


def _depends(pythons: Sequence[str]) -> str:
    """The oldest that the kit is for, and below what comes after its newest: `python3` is what runs the script."""
    numbers = sorted(tuple(map(int, python.split("."))) for python in pythons)
    (major, newest), oldest = numbers[-1], numbers[0][1]
    return f"python3 (>= {major}.{oldest}), python3 (<< {major}.{newest + 1})"


Entry = tuple[tarfile.TarInfo, bytes]


def _entry(name: str, data: bytes, mode: int = 0o644) -> Entry:
    info = tarfile.TarInfo(f"./{name}")
    info.size, info.mode, info.uname, info.gname = len(data), mode, "root", "root"
    info.mtime = parsedate_to_datetime(MADE).timestamp()
    return info, data


def _link(name: str, to: str) -> Entry:
    info, data = _entry(name, b"", 0o777)
    info.type, info.linkname = tarfile.SYMTYPE, to
    return info, data


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
    return _compressed(plain.getvalue(), 1)


def _compressed(data: bytes, level: int) -> bytes:
    return gzip.compress(data, level, mtime=0)


def _md5(data: bytes) -> str:
    """What dpkg compares files with; nothing is trusted for it."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
