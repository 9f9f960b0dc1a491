"""What only a node's owner may use: the one seam between POSIX file modes and systems that have none.

Whoever can write a node's config can have it run programs, so writing matters as much as reading. On Windows the
profile folder's access list, which everything below inherits, does this work, and nothing is checked here.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

from offgrid_node.protocol.errors import FailedPrecondition

POSIX_MODES = os.name == "posix"
OTHERS_ANY, OTHERS_WRITE = 0o077, 0o022


if sys.platform == "win32":

    def other_owner(path: Path) -> str:
        """There, a profile's folders are its own."""
        return ""

else:
    import pwd

    def other_owner(path: Path) -> str:
        """Whose folder it is where it is another user's than the asker's; "" for one's own, or where there is none."""
        if not path.exists() or (uid := path.stat().st_uid) == os.geteuid():
            return ""
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return f"#{uid}"


def make_private_folder(path: Path) -> None:
    """Makes the folder and its missing parents, each 0700 whatever the umask; one that is there stays as it is."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        if POSIX_MODES:
            folder.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Replaces the file by one of mode 0600, which nobody else can read at any moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def exposed(status: os.stat_result, denied: int) -> str:
    """The mode in octal when it lets others do any of `denied` (bits of a mode), otherwise ""."""
    mode = stat.S_IMODE(status.st_mode)
    return f"{mode:04o}" if POSIX_MODES and mode & denied else ""


def refuse_writable(path: Path) -> None:
    """Raises FailedPrecondition (reason FilesExposed), with the command that helps, when others may write here.

    What does not exist is nobody's to write.
    """
    try:
        mode = exposed(path.stat(), OTHERS_WRITE)
    except FileNotFoundError:
        return
    if mode:
        raise FailedPrecondition(
            f"{path} can be written by others (mode {mode}), who could make this node run their programs. "
            f"Type: chmod go-w {shlex.quote(str(path))}",
            reason="FilesExposed",
        )
