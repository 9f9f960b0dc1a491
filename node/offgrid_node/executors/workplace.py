"""Where jobs have their private folders: one for each run, and nothing left over from an earlier life.

A host that is killed cannot tidy up. So its next start kills what still runs of its jobs, known by the HOME that they
were given (Linux), and empties the work folder. The caller must own the folder: two hosts in one would end each other.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from offgrid_node.executors import removal
from offgrid_node.executors.stdin import name_input
from offgrid_node.executors.strays import kill_strays

PREFIX = "offgrid-job-"


class Workplace:
    """The work folder, made (0700) and emptied at once; without one, the system's temporary folder, left as it is."""

    def __init__(self, folder: Path | None) -> None:
        """Raises OSError when the folder cannot be made."""
        self._folder = folder = folder.absolute() if folder else None
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            kill_strays(folder / PREFIX, beginning=True)
            for left in folder.glob(f"{PREFIX}*"):
                removal.remove(left)

    def make(self) -> JobFolder:
        """A new folder (0700) for one job. Raises OSError when there is no room for it."""
        folder = JobFolder(tempfile.mkdtemp(prefix=PREFIX, dir=self._folder))
        try:
            name_input(Path(folder.name))
        except OSError:
            folder.cleanup()
            raise
        return folder


class JobFolder:
    """One job's folder, at the path `name`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def kill_strays(self) -> None:
        """Kills what the job has left running outside of its group (Linux)."""
        kill_strays(self.name)

    def cleanup(self) -> None:
        """Removes it with all that is in it; what cannot be removed is left to the host's next start."""
        removal.remove(Path(self.name))
