"""Where jobs have their private folders: one for each run, and nothing left over from an earlier life.

With it goes the control group that its processes run in, where there are such (cgroups.py).

A host that is killed cannot tidy up. So its next start kills what still runs of its jobs, known by the HOME that they
were given (Linux), and empties the work folder. The caller must own the folder: two hosts in one would end each other.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from offgrid_node.executors import removal
from offgrid_node.executors.cgroups import Bounds, Group, Groups
from offgrid_node.executors.stdin import name_input
from offgrid_node.executors.strays import kill_strays

PREFIX = "offgrid-job-"
# How the bounds of all of a job's processes together are held: by the kernel, by looking ten times a second.
CGROUP, WATCHED = "cgroup", "watched"


class Workplace:
    """The work folder, made (0700) and emptied at once; without one, the system's temporary folder, left as it is."""

    def __init__(self, folder: Path | None, bounds: Bounds, groups: Groups | None = None) -> None:
        """`bounds` are each job's, held where `groups` can. Raises OSError when the folder cannot be made."""
        self._bounds, self._groups = bounds, groups
        self._folder = folder = folder.absolute() if folder else None
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            kill_strays(folder / PREFIX, beginning=True)
            for left in folder.glob(f"{PREFIX}*"):
                removal.remove(left)

    @property
    def limits(self) -> str:
        """How a job's bounds are held by its group; empty: it has none."""
        if self._groups is None:
            return ""
        return CGROUP if self._groups.bounds else WATCHED

    @property
    def holds_cpu(self) -> bool:
        return self._groups is not None and self._groups.holds_cpu

    def make(self) -> JobFolder:
        """A new folder (0700) for one job. Raises OSError when there is no room for it, or no group."""
        folder = JobFolder(tempfile.mkdtemp(prefix=PREFIX, dir=self._folder))
        try:
            name_input(Path(folder.name))
            folder.group = self._groups.make(self._bounds) if self._groups else None
        except OSError:
            folder.cleanup()
            raise
        return folder


class JobFolder:
    """One job's folder, at the path `name`, and the control group of its processes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.group: Group | None = None

    def joining(self, argv: list[str]) -> list[str]:
        """`argv`, in the job's group if it has one."""
        return self.group.joining(argv) if self.group else argv

    def kill_strays(self) -> None:
        """Kills what the job has left running outside of its process group (Linux)."""
        if self.group is not None:
            self.group.kill()
        else:
            kill_strays(self.name)

    def cleanup(self) -> None:
        """Removes it with all that is in it; what cannot be removed is left to the host's next start."""
        if self.group is not None:
            self.group.remove()
        removal.remove(Path(self.name))
