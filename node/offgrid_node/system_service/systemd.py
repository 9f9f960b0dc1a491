"""The service as systemd has it (systemd.service(5), systemd.exec(5)), of the system or of one user.

What hardening leaves open, and why: a kernel that shows less of /proc, a closed set of devices or of system calls, and
read-only control groups would each keep the node from holding jobs (bubblewrap mounts a /proc of its own, groups are
bounded by the node) or from its radios and graphics cards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offgrid_node.system_service.order import NEVER_AGAIN, RESTART_S, Order, Plan

SYSTEM_UNITS = Path("/etc/systemd/system")
BOOTED = Path("/run/systemd/system")  # sd_booted(3)
START_MAX_S, STOP_MAX_S = 600, 60  # a large store is read before the node is ready
WATCHDOG_S = 120
FOLDER = "WorkingDirectory="
FAMILIES = "AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_BLUETOOTH"


def plan(order: Order) -> Plan:
    unit = f"{order.name}.service"
    folder = order.home / ".config" / "systemd" / "user" if order.user else SYSTEM_UNITS
    control = ("systemctl", "--user") if order.user else ("systemctl",)
    log = f"journalctl --user -u {unit} -f" if order.user else f"journalctl -u {unit} -f"
    linger = (
        "it runs while you are logged in; to have it run from boot on, without you: loginctl enable-linger",
    ) * order.user
    return Plan(
        title=str(folder / unit),
        path=folder / unit,
        content=unit_file(order).encode(),
        folder_of=folder_of,
        start=((*control, "daemon-reload"), (*control, "enable", unit), (*control, "restart", unit)),
        stop=((*control, "disable", "--now", unit),),
        after_removal=((*control, "daemon-reload"),),
        ask=(*control, "--no-pager", "--lines=0", "status", unit),
        hints=(f"its log: {log}", *linger),
        runs_where=BOOTED,
    )


def folder_of(unit: bytes) -> str:
    lines = unit.decode(errors="replace").splitlines()
    found = [line.removeprefix(FOLDER) for line in lines if line.startswith(FOLDER)]
    return found[-1].replace("%%", "%") if found else ""


def unit_file(order: Order) -> str:
    sections = {
        "Unit": (
            f"Description=offgrid-node in {_text(str(order.folder))}",
            "After=network.target",
        ),
        "Service": (*_running(order), *(() if order.user else _hardening(order))),
        "Install": (f"WantedBy={'default' if order.user else 'multi-user'}.target",),
    }
    return "\n\n".join("\n".join((f"[{name}]", *lines)) for name, lines in sections.items()) + "\n"


def _running(order: Order) -> Sequence[str]:
    return (
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join(_word(word).replace('$', '$$') for word in order.command)}",
        f"{FOLDER}{_text(str(order.folder))}",
        *(() if order.user else (f"User={order.account}",)),
        "Restart=on-failure",
        f"RestartSec={RESTART_S}",
        f"RestartPreventExitStatus={' '.join(map(str, NEVER_AGAIN))}",
        f"TimeoutStartSec={START_MAX_S}",
        f"TimeoutStopSec={STOP_MAX_S}",
        f"WatchdogSec={WATCHDOG_S}",
        "KillMode=mixed",
        "# The node bounds its jobs by control groups of its own.",
        "Delegate=memory pids cpu",
        "UMask=0077",
        "NoNewPrivileges=yes",
    )


def _hardening(order: Order) -> Sequence[str]:
    capabilities = "CAP_NET_ADMIN CAP_NET_RAW" if order.raw_bluetooth else ""
    held = order.account != "root"
    writable = " ".join(_word(str(path)) for path in (order.folder, *order.writable))
    return (
        "# Read-only but for the node's own folders; homes as well, where programs and models may lie.",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        f"ReadWritePaths={writable}",
        "PrivateTmp=yes",
        "ProtectKernelModules=yes",
        "LockPersonality=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "SystemCallArchitectures=native",
        f"RestrictAddressFamilies={FAMILIES}",
        *((f"CapabilityBoundingSet={capabilities}", f"AmbientCapabilities={capabilities}") if held else ()),
        *((f"SupplementaryGroups={' '.join(order.groups)}",) if order.groups else ()),
    )


def _text(text: str) -> str:
    """A line's value: systemd's specifiers as themselves."""
    return text.replace("%", "%%")


def _word(word: str) -> str:
    """One word of a command line or of a list of paths, as systemd.syntax(7) quotes it; "$" is a sign of the former
    alone."""
    safe = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{safe}"' if any(sign in word for sign in " \t\"'\\;") or not word else safe
