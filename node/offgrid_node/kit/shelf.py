"""What of a kit is handed to others: the files that its manifest names, as long as every byte is what it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from offgrid_node.kit import manifest as form

Stamp = tuple[int, int, int]


class Shelf:
    """By names as `install.py` asks for them. Raises Corrupt where the kit's texts are not what it says they are.

    A file is read before it is handed out first, and again whenever its time, size or place on the disk has changed.
    """

    def __init__(self, kit: Path) -> None:
        manifest = form.read_manifest(kit)
        form.check_unaltered(kit, manifest)
        texts = {name: form.weigh(kit / name) for name in (form.NAME, form.INSTALLER, form.README)}
        self._kit = kit
        self._files: Mapping[str, form.Wheel] = texts | {
            f"{form.WHEELS}/{name}": wheel for name, wheel in manifest.files.items()
        }
        self._seen: dict[str, tuple[Stamp, bool]] = {}

    def path_of(self, name: str) -> Path | None:
        """None for what the kit has not. Raises Corrupt for a file that is not what the kit says it is."""
        if name not in self._files or not (path := self._kit / name).is_file():
            return None
        if not self._is_whole(name, path):
            raise form.changed(self._kit, [name])
        return path

    def check(self) -> None:
        """Reads all that is there. Raises Corrupt, naming the files."""
        there = ((name, path) for name in self._files if (path := self._kit / name).is_file())
        if wrong := [name for name, path in there if not self._is_whole(name, path)]:
            raise form.changed(self._kit, wrong)

    def _is_whole(self, name: str, path: Path) -> bool:
        stat = path.stat()
        now = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if name not in self._seen or self._seen[name][0] != now:
            self._seen[name] = (now, form.weigh(path) == self._files[name])
        return self._seen[name][1]
