"""What is typed on a machine that is to get a kit over the network: one line, that trusts nobody on the way.

It fetches `install.py`, and runs it if it begins with the digest that the line itself holds.
"""

from __future__ import annotations

from collections.abc import Iterable

DIGEST_SIGNS = 32  # 128 bits: nobody makes another file with these

POSIX = "curl -fsSO {place}/install.py && {sum} install.py | grep ^{digest} && python3 install.py {place}"
WINDOWS = (
    "iwr -UseBasicParsing {place}/install.py -OutFile install.py; "
    "if ((Get-FileHash install.py).Hash -like '{digest}*') {{ py install.py {place} }}"
)


def install_lines(place: str, digest: str, targets: Iterable[str]) -> tuple[str, ...]:
    """A line for each kind of shell that the kit's targets have. `place` is where it is served, `digest` install.py's
    SHA-256, in hex."""
    systems = {name.partition("-")[0] for name in targets}
    short = digest[:DIGEST_SIGNS]
    lines = []
    if "linux" in systems:
        lines.append(POSIX.format(place=place, digest=short, sum="sha256sum"))
    if "macos" in systems:
        lines.append(POSIX.format(place=place, digest=short, sum="shasum -a 256"))
    if "windows" in systems:
        lines.append(WINDOWS.format(place=place, digest=short))
    return tuple(lines)
