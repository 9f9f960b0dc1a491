"""What `--help` of `offgrid-node`'s commands shows as examples: lines that can be typed, as a test holds."""

from __future__ import annotations

from collections.abc import Mapping

HEADING = "\b\nExamples:\n"

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "init": (
        "offgrid-node init --mesh home",
        "offgrid-node init --mesh home --role core --set mesh.listen=0.0.0.0:7500",
    ),
    "join": ("offgrid-node join og1:…", "offgrid-node join og1:… --role host --no-run --timeout 120"),
    "run": ("offgrid-node run --dir attic", "offgrid-node run --accept-stale"),
    "words": ("offgrid-node words", "offgrid-node words --root", "offgrid-node words --enter"),
    "rotate identity": (
        "offgrid-node rotate identity",
        "offgrid-node rotate identity --root-key /media/stick/mesh_root.key",
    ),
    "rotate root": ("offgrid-node rotate root", "offgrid-node rotate root --root-words"),
    "rotate take": ("offgrid-node rotate take key_change", "offgrid-node rotate take root_change --instead"),
    "config check": ("offgrid-node config check offgrid.toml",),
    "demo": ("offgrid-node demo", "offgrid-node demo notes.txt --keep", "offgrid-node demo --storage --hosts 6"),
    "admin add": ("offgrid-node admin add attic", "offgrid-node admin add attic --root-words"),
    "admin remove": ("offgrid-node admin remove attic --root-key /media/stick/mesh_root.key",),
    "bundle": ("offgrid-node bundle --to /media/stick/offgrid-kit",),
    "bundle check": ("offgrid-node bundle check /media/stick/offgrid-kit",),
    "bundle serve": ("offgrid-node bundle serve /media/stick/offgrid-kit",),
    "bundle deb": ("offgrid-node bundle deb /media/stick/offgrid-kit -o offgrid-node.deb",),
    "debug bundle": ("offgrid-node debug bundle -o trouble.zip",),
    "docs": ("offgrid-node docs --out offgrid-docs",),
    "doctor": ("offgrid-node doctor", "offgrid-node doctor --dir attic --all"),
    "migrate": ("offgrid-node migrate --dry-run", "offgrid-node migrate"),
    "restore": (
        "offgrid-node restore --words --via 192.168.1.20:7500 --dir attic",
        "offgrid-node restore --backup FILE --words --dir attic",
    ),
    "service install": ("offgrid-node service install --dir attic", "offgrid-node service install --user --print"),
    "service status": ("offgrid-node service status",),
    "service uninstall": ("offgrid-node service uninstall",),
    "up": (
        "offgrid-node up --nodes 5",
        "offgrid-node up --nodes 3 --dir try --set host.wasm.enabled=false",
    ),
    "down": ("offgrid-node down", "offgrid-node down host-a", "offgrid-node down --purge --yes"),
    "restart": ("offgrid-node restart", "offgrid-node restart host-a host-b"),
}


def epilog_of(path: str) -> str | None:
    """The section of a command's help; None of one that has none."""
    lines = EXAMPLES.get(path)
    return HEADING + "\n".join(f"  {line}" for line in lines) if lines else None
