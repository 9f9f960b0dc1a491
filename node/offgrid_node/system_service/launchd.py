"""The service as launchd has it (launchd.plist(5)): a daemon of the system, or an agent of one user."""

from __future__ import annotations

import plistlib
from contextlib import suppress
from pathlib import Path
from xml.parsers.expat import ExpatError

from offgrid_node.system_service.order import RESTART_S, Order, Plan

DAEMONS = Path("/Library/LaunchDaemons")
STOP_MAX_S = 60


def plan(order: Order, uid: int) -> Plan:
    """`uid`: the number of the account, in whose domain an agent lives."""
    label = f"node.offgrid.{order.name}"
    folder = order.home / "Library" / "LaunchAgents" if order.user else DAEMONS
    domain = f"gui/{uid}" if order.user else "system"
    path = folder / f"{label}.plist"
    log = order.folder / f"{order.name}.log"
    content = {
        "Label": label,
        "ProgramArguments": list(order.command),
        "WorkingDirectory": str(order.folder),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},  # launchd knows no exit codes that are not worth another try
        "ThrottleInterval": RESTART_S,
        "ExitTimeOut": STOP_MAX_S,
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
        "Umask": 0o077,
        "ProcessType": "Interactive",  # no throttling of what peers wait for
        **({} if order.user else {"UserName": order.account}),
    }
    return Plan(
        title=str(path),
        path=path,
        content=plistlib.dumps(content),
        folder_of=folder_of,
        start=(("launchctl", "bootstrap", domain, str(path)),),
        stop=(("launchctl", "bootout", f"{domain}/{label}"),),
        after_removal=(),
        ask=("launchctl", "print", f"{domain}/{label}"),
        hints=(f"its log: {log}; launchd never shortens it",),
    )


def folder_of(plist: bytes) -> str:
    with suppress(plistlib.InvalidFileException, ExpatError, ValueError, KeyError, TypeError):
        return str(plistlib.loads(plist)["WorkingDirectory"])
    return ""
