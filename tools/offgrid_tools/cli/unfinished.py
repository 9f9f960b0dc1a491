"""What lets the same put, given again after it was cut off, go on where it was and make no second object.

A put of files has a seed for its request ids. It is kept beside, in the user's state folder, until the put has ended:
the same command over the same files, unchanged, finds it again. Where nothing can be kept a put begins anew.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from offgrid_tools.cli.trees import Found

SEED_BYTES = 10
SEED_CHARS = 2 * SEED_BYTES
AGE_MAX_S = 30 * 24 * 3600  # a put that nobody goes on with for so long is forgotten


@contextmanager
def seed_for(files: Sequence[Found], options: str) -> Iterator[str]:
    """ "" where it cannot be kept. `options` is whatever else makes it this put. The seed is forgotten when the block
    ends well."""
    note = _note_of(files, options)
    seed = _kept(note) or secrets.token_hex(SEED_BYTES)
    yield seed if note is not None and _keep(note, seed) else ""
    if note is not None:
        with suppress(OSError):
            note.unlink()


def _note_of(files: Sequence[Found], options: str) -> Path | None:
    """None where a part of it cannot be read a second time."""
    said = hashlib.blake2b(options.encode("utf-8", "surrogateescape"), digest_size=16)
    for file in files:
        try:
            status = Path(file.path).stat()
        except OSError:
            return None
        whole = os.path.abspath(file.path), file.name, status.st_size, status.st_mtime_ns
        said.update(repr(whole).encode("utf-8", "surrogateescape"))
    return _folder() / said.hexdigest()


def _folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "offgrid" / "puts"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "offgrid" / "puts"


def _kept(note: Path | None) -> str:
    if note is None:
        return ""
    try:
        text = note.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
    return text if len(text) == SEED_CHARS and text.isalnum() else ""


def _keep(note: Path, seed: str) -> bool:
    """Whether that went."""
    with suppress(OSError):
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in note.parent.iterdir():
            if time.time() - old.stat().st_mtime > AGE_MAX_S:
                old.unlink()
        note.write_text(seed, "ascii")
        return True
    return False
