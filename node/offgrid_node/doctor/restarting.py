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

_UNIT = re.compile(r"^\d+:[^:\n]*:/(?P<above>\S*/)?(?P<name>[^/\s]*offgrid[^/\s]*\.service)$", re.MULTILINE)
_MANAGER = re.compile(r"(?:^|/)user@(\d+)\.service/")  # of one user's units


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
    if by_systemd := _restarted_unit(pid):
        return by_systemd
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


def _restarted_unit(pid: int) -> str:
    """By the manager whose unit the process is, the system's or a user's, whoever asks; "" where no unit started it."""
    if sys.platform == "win32":
        return ""
    unit, uid = unit_of(pid)
    if not unit:
        return ""
    me = os.geteuid()
    if uid is None:
        return command(*([] if me == 0 else ["sudo"]), "systemctl", "restart", unit)
    as_its_user = [] if me == uid else ["sudo", "-u", f"#{uid}", f"XDG_RUNTIME_DIR=/run/user/{uid}"]
    return command(*as_its_user, "systemctl", "--user", "restart", unit)


def unit_of(pid: int) -> tuple[str, int | None]:
    """systemd's, if it started the process: the last of its control group (cgroups(7)), "" where it did not; and the
    user whose manager has it, None where the system's has."""
    with suppress(OSError):
        found = _UNIT.search((PROC / str(pid) / "cgroup").read_text("utf-8", "replace"))
        if found:
            manager = _MANAGER.search(found["above"] or "")
            return found["name"], int(manager[1]) if manager else None
    return "", None
