"""What to type so that a node starts, or starts anew: by systemd where that runs it, by `offgrid-node restart` where
`up` made it, else by hand. And so that one comes back whose store is lost."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

from offgrid_node.doctor.findings import command
from offgrid_node.doctor.processes import PROC
from offgrid_node.doctor.subject import Subject
from offgrid_node.folder import MESH_PLAN, backup_folder
from offgrid_node.keys.store import key_path

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


def restored(subject: Subject) -> str:
    """A node that has its keys and no store: from its newest backup and what hosts keep that is newer, or from that
    alone. It comes back in the same folder, where whatever starts it finds it; the old one is kept aside."""
    folder, config = subject.path.absolute(), subject.config
    lost, new = folder.with_name(f"{folder.name}.lost"), folder.with_name(f"{folder.name}.new")
    roles = [word for role in config.node.roles for word in ("--role", role)]
    backups = sorted(backup_folder(config).glob("*.zip"), key=lambda path: path.stat().st_mtime)
    from_backup = ["--backup", backups[-1].absolute()] if backups else []
    via = ["--via", next(iter(config.mesh.peers), "HOST:PORT")]
    key = key_path(subject.folder.keys_path, "node").absolute()
    again = command("offgrid-node", "restore", "--key", key, *from_backup, *via, *roles, "--dir", new)
    if config.storage.memory_db.absolute().is_relative_to(folder):  # else that disk has it still
        again += f" && {command('cp', subject.folder.config_path.absolute(), new)}"
    hint = "" if config.mesh.peers else "   # HOST:PORT: where any other member listens"
    return f"{again} && {command('mv', folder, lost)} && {command('mv', new, folder)}{hint}"


def unit_of(pid: int) -> str:
    """systemd's, if it started the process: the last of its control group (cgroups(7)); "" where it did not."""
    with suppress(OSError):
        units = _UNIT.findall((PROC / str(pid) / "cgroup").read_text("utf-8", "replace"))
        return next((unit for unit in units if "offgrid" in unit), "")
    return ""
