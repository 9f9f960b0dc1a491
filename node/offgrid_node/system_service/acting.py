"""Writes what a plan says, and runs its commands: for this machine's own service manager."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from offgrid_node.protocol.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    PermissionDenied,
    Unavailable,
)
from offgrid_node.system_service import launchd, systemd, task_scheduler
from offgrid_node.system_service.order import Order, Plan

if TYPE_CHECKING:
    from offgrid_node.config import Config

CURRENT = "current"  # as the kit's install.py calls it
SERIAL_GROUPS = ("dialout", "uucp")  # whose serial ports are: Debian's and Fedora's name, and Arch's
COMMAND_TIMEOUT_S = 900.0  # `restart` waits until the node is ready, which a large store delays

Say = Callable[[str], None]


def order_for(folder: Path, config: Config, name: str, *, user: bool) -> Order:
    """The node of this folder: of the system's manager it is the folder's owner's process, of one's own it is one's
    own. Raises FailedPrecondition where these are not the same, InvalidRequest for a folder that no file can name."""
    folder = folder.resolve()
    if not str(folder).isprintable():  # a line break in it would be a line of the unit
        raise InvalidRequest(f"{str(folder)!r} has signs that cannot be printed; give the folder another name")
    account, home = _owner(folder)
    if user and account != getpass.getuser():
        raise FailedPrecondition(f"{folder} is {account}'s; as {account}: service install --user", reason="OtherOwner")
    schemes = [line.partition(":")[0] for line in config.links.open]
    serial = any(line.partition(":")[2].startswith("/dev/") for line in config.links.open)
    return Order(
        name=name,
        folder=folder,
        command=(*own_command(), "run", "--dir", str(folder)),
        account=account,
        home=home,
        user=user,
        writable=_outside(folder, config),
        groups=_groups(SERIAL_GROUPS)[:1] if serial else (),
        raw_bluetooth=any(scheme == "ble" for scheme in schemes),
    )


def own_command() -> tuple[str, ...]:
    """How this installation's `offgrid-node` is started, whatever the PATH of a service is; where an install kit has
    laid it, by what leads to its newest version after an upgrade, too."""
    scripts, current = Path(sys.executable).parent, Path(sys.prefix).parent / CURRENT
    if current.is_symlink() and current.resolve() == Path(sys.prefix).resolve():
        scripts = current / "bin"
    script = scripts / ("offgrid-node.exe" if sys.platform == "win32" else "offgrid-node")
    return (str(script),) if script.is_file() else (sys.executable, "-P", "-m", "offgrid_node")


def plan_for(order: Order) -> Plan:
    """Of this machine's manager. Raises Unavailable where there is none that we know."""
    if sys.platform == "win32":
        return task_scheduler.plan(order)
    if sys.platform == "darwin":
        return launchd.plan(order, os.getuid())
    if shutil.which("systemctl"):
        return systemd.plan(order)
    raise Unavailable(
        "this machine has no systemd, and no other service manager is known here; have yours run: "
        f"{subprocess.list2cmdline(order.command)}",
        reason="NoServiceManager",
    )


def install(plan: Plan, order: Order, say: Say) -> None:
    """Writes the file, and has the node started, now and from then on.

    Raises AlreadyExists where a service of that name is not this folder's, PermissionDenied where this account may not,
    Unavailable where the manager refuses.
    """
    if (owner := _owner_of(plan)) not in (None, str(order.folder)):
        raise AlreadyExists(
            f"{plan.title} is the service of {_node_in(owner)}; choose another name: --name NAME",
            reason="ServiceExists",
        )
    _check_runs(plan, order)
    try:
        plan.path.parent.mkdir(parents=True, exist_ok=True)
        plan.path.write_bytes(plan.content)
    except PermissionError as error:
        raise _forbidden(plan.path) from error
    say(f"wrote {plan.path}")
    for command in plan.start:
        say(f"  {' '.join(command)}")
        _run(command)
    for hint in plan.hints:
        say(hint)


def uninstall(plan: Plan, order: Order, say: Say) -> bool:
    """Ends the service and removes its file; the node's folder stays. False where there was none.

    Raises FailedPrecondition where a service of that name is not this folder's, PermissionDenied where this account may
    not.
    """
    owner = _owner_of(plan)
    if owner is None:
        return False
    if owner != str(order.folder):
        way = f"; to remove it: --dir {_typed(owner)}" if owner else ""
        raise FailedPrecondition(f"{plan.title} is the service of {_node_in(owner)}{way}", reason="OtherService")
    for command in plan.stop:
        subprocess.run(command, capture_output=True, check=False)
    try:
        plan.path.unlink(missing_ok=True)
    except PermissionError as error:
        raise _forbidden(plan.path) from error
    say(f"removed {plan.title}")
    for command in plan.after_removal:
        subprocess.run(command, capture_output=True, check=False)
    return True


def status(plan: Plan, order: Order) -> int:
    """What the manager says of it, on the terminal; its exit code. Raises Unavailable where it does not run."""
    _check_runs(plan, order)
    try:
        return subprocess.run(plan.ask, timeout=COMMAND_TIMEOUT_S, check=False).returncode
    except OSError as error:
        raise _missing(plan.ask, error) from error


def _check_runs(plan: Plan, order: Order) -> None:
    if plan.runs_where is not None and not plan.runs_where.exists():
        raise Unavailable(
            f"systemd does not run this machine (there is no {plan.runs_where}: a container, WSL 1, another init); "
            f"have what starts its services run: {subprocess.list2cmdline(order.command)}",
            reason="NoServiceManager",
        )


def _owner_of(plan: Plan) -> str | None:
    """The folder whose service there is by that name, "" where it names none; None where there is no service."""
    try:
        if not plan.show:
            return plan.folder_of(plan.path.read_bytes())
        shown = subprocess.run(plan.show, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
        return plan.folder_of(shown.stdout) if shown.returncode == 0 else None
    except FileNotFoundError as error:
        if plan.show:
            raise _missing(plan.show, error) from error
        return None


def _typed(path: str) -> str:
    """As a shell takes it for one word."""
    return subprocess.list2cmdline([path]) if sys.platform == "win32" else shlex.quote(path)


def _node_in(folder: str | None) -> str:
    return f"the node in {folder}" if folder else "no node that it names"


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=COMMAND_TIMEOUT_S, check=False
        )
    except OSError as error:
        raise _missing(command, error) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise Unavailable(f"`{' '.join(command)}` ended with {done.returncode}: {said}", reason="ServiceManager")


def _missing(command: Sequence[str], error: OSError) -> Unavailable:
    return Unavailable(f"{command[0]} cannot be run: {error.strerror}", reason="ServiceManager")


def _forbidden(path: Path) -> PermissionDenied:
    return PermissionDenied(f"{path} may not be written; as root (sudo), or for your account alone: --user")


def _outside(folder: Path, config: Config) -> tuple[Path, ...]:
    """Folders that the node writes to and that do not lie in its own."""
    storage = config.storage
    paths = [config.node.data_dir, storage.memory_db, storage.chunk_dir, storage.summary_dir]
    paths += [Path(path) for path in (config.jobs.drop_dir, config.state.backup_dir) if path]
    return tuple(dict.fromkeys(path for path in paths if not path.is_relative_to(folder)))


if sys.platform == "win32":

    def _owner(folder: Path) -> tuple[str, Path]:
        return getpass.getuser(), Path.home()

    def _groups(names: Sequence[str]) -> tuple[str, ...]:
        return ()

else:
    import grp
    import pwd

    def _owner(folder: Path) -> tuple[str, Path]:
        """The folder's owner and that account's home."""
        uid = folder.stat().st_uid
        try:
            entry = pwd.getpwuid(uid)
        except KeyError as error:
            raise FailedPrecondition(
                f"{folder} is nobody's: this machine has no user {uid}", reason="NoOwner"
            ) from error
        return entry.pw_name, Path(entry.pw_dir)

    def _groups(names: Sequence[str]) -> tuple[str, ...]:
        """Those that this machine has."""
        known = {entry.gr_name for entry in grp.getgrall()}
        return tuple(name for name in names if name in known)
