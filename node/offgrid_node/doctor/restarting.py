"""What to type so that a node starts, or starts anew: by systemd where that runs it, by `offgrid-node restart` where
`up` made it, else by hand."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

from offgrid_node.doctor.findings import command
from offgrid_node.doctor.processes import PROC
from offgrid_node.doctor.subject import Subject
from offgrid_node.folder import MESH_PLAN

_UNIT = re.compile(r"/([^/\s]+\.service)$", re.MULTILINE)


def started(subject: Subject) -> str:
    """A node that does not run."""
    mesh = subject.path.absolute().parent
    return command("offgrid-node", "up", "--dir", mesh) if (mesh / MESH_PLAN).is_file() else subject.node("run")


def restarted(subject: Subject) -> str:
    """One that runs; by hand, once the old process has ended."""
    folder, pid = subject.path.absolute(), subject.pid
    if (folder.parent / MESH_PLAN).is_file():
        return command("offgrid-node", "restart", "--dir", folder.parent, folder.name)
    if pid is None:
        return f"kill PID; {subject.node('run')}   # PID: the node's process"
    if sys.platform != "win32" and (unit := unit_of(pid)):
        return command("systemctl", *([] if os.geteuid() == 0 else ["--user"]), "restart", unit)
    return f"kill {pid}; while kill -0 {pid} 2>&-; do sleep 1; done; {subject.node('run')}"


def unit_of(pid: int) -> str:
    """systemd's, if it started the process: the last of its control group (cgroups(7)); "" where it did not."""
    with suppress(OSError):
        units = _UNIT.findall((PROC / str(pid) / "cgroup").read_text("utf-8", "replace"))
        return next((unit for unit in units if "offgrid" in unit), "")
    return ""
