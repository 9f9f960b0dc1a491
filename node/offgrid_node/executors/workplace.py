"""Where jobs have their private folders: one for each run, and nothing left over from an earlier life.

A host that is killed cannot tidy up. So its next start kills what still runs of its jobs, known by the HOME that they
were given (Linux), and empties the work folder. The caller must own the folder: two hosts in one would end each other.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from offgrid_node.executors.stdin import name_input

PREFIX = "offgrid-job-"
PROC = Path("/proc")


class Workplace:
    """The work folder, made (0700) and emptied at once; without one, the system's temporary folder, left as it is."""

    def __init__(self, folder: Path | None) -> None:
        """Raises OSError when the folder cannot be made."""
        self._folder = folder = folder.absolute() if folder else None
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            kill_strays(folder)
            for left in folder.glob(f"{PREFIX}*"):
                _remove(left)

    def make(self) -> tempfile.TemporaryDirectory[str]:
        """A new folder (0700) for one job. Raises OSError when there is no room for it."""
        folder = tempfile.TemporaryDirectory(prefix=PREFIX, dir=self._folder, ignore_cleanup_errors=True)
        try:
            name_input(Path(folder.name))
        except OSError:
            folder.cleanup()
            raise
        return folder


def kill_strays(folder: Path) -> None:
    """Kills every process of ours whose HOME lies below `folder` (Linux; elsewhere it does nothing)."""
    if sys.platform != "linux":
        return
    import signal

    home = b"HOME=" + os.fsencode(folder / PREFIX)
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if any(value.startswith(home) for value in (entry / "environ").read_bytes().split(b"\0")):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:  # it has ended meanwhile, or is another user's
            continue


def _remove(left: Path) -> None:
    """Removes a job's folder, whatever modes the job has given to what is in it."""
    for root, folders, _ in os.walk(left):
        for path in (Path(root, name) for name in folders):
            if not path.is_symlink():
                with suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(left, ignore_errors=True)
