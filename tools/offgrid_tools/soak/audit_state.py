"""What must be true of the folder of a node that keeps sessions, whenever it has died: of its backups, of the keys that
are wrapped beside them, and of what deaths broke off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from offgrid.backup import BackupError
from offgrid.backup.container import BackupReader
from offgrid.backup.recovery import Secret
from offgrid.backup.wrapped import WRAPPED_KEYS, unwrap_keys
from offgrid_tools.soak.diary import Page, files_in

LEFT = (".new", ".copy", ".aside", ".draft", ".tmp")
LEFT_MAX_BYTES = 16 * 1024 * 1024


def backups_in(folder: Path) -> Sequence[Path]:
    """Those that it made by itself, the newest last."""
    return sorted(folder.glob("backup-*.zip"))


def audit_backups(folder: Path, secret: Secret, pages: Collection[Page]) -> Iterator[str]:
    """Each is whole; and no key of what was shredded is wrapped beside them."""
    for path in backups_in(folder):
        try:
            with BackupReader.open(path) as reader:
                reader.check()
        except (BackupError, OSError) as error:
            if path.exists():  # it was not its time to go
                yield f"{path}: {error}"
    wrapped = folder / WRAPPED_KEYS
    if wrapped.exists():
        ids = unwrap_keys(wrapped.read_bytes(), secret)
        for page in pages:
            if page.purged and page.session_id in ids:
                yield f"the key of {page.said.name} is wrapped beside the backups still"


def left_in(folder: Path) -> list[Path]:
    """What is written under a passing name, and was broken off."""
    return [path for path in files_in(folder) if path.name.endswith(LEFT) or path.parent.name.endswith(LEFT)]


def audit_left(left: Collection[Path]) -> Iterator[str]:
    """One of each may be there, until the next takes its place."""
    names = Counter(path.name for path in left)
    size = 0
    for path in left:
        with suppress(OSError):  # it was not left: it has its name by now
            size += path.stat().st_size
    if max(names.values(), default=0) > 1 or size > LEFT_MAX_BYTES:
        yield f"{size} bytes are left of what deaths broke off: {dict(names)}"
