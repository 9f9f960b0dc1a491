"""The service as Windows' Task Scheduler has it: a task at boot or at logon, which needs no program beside the system's
(a real service would have to speak to the service manager). The form is that of `schtasks /Create /XML`, Task Scheduler
schema 1.2.

Ending a task ends its process at once, as a power cut does: a node loses nothing of what it has acknowledged by that.
"""

from __future__ import annotations

import codecs
import re
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as Xml
from xml.sax.saxutils import unescape

from offgrid_node.system_service.order import Order, Plan

SPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
_FOLDER = re.compile(r"<WorkingDirectory>([^<]*)</WorkingDirectory>")
_PLAIN = re.compile(r"[\w./:\\-]+")
RESTARTS, RESTART = 999, "PT1M"  # the shortest that the scheduler takes


def plan(order: Order) -> Plan:
    path = Path(tempfile.gettempdir()) / f"{order.name}-task.xml"
    task = f"\\{order.name}"
    return Plan(
        title=f"the task {task}",
        path=path,
        content=task_file(order),
        folder_of=folder_of,
        show=("schtasks", "/Query", "/TN", task, "/XML"),
        start=(
            ("schtasks", "/Create", "/F", "/TN", task, "/XML", str(path)),
            ("schtasks", "/Run", "/TN", task),
        ),
        stop=(("schtasks", "/End", "/TN", task), ("schtasks", "/Delete", "/F", "/TN", task)),
        after_removal=(),
        ask=("schtasks", "/Query", "/V", "/FO", "LIST", "/TN", task),
        hints=(f"its log: {order.folder / f'{order.name}.log'}",),
    )


def folder_of(task: bytes) -> str:
    """Of a task as it was written here, or as schtasks prints it: in the terminal's own code page."""
    marked = task.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = task.decode("utf-16" if marked else "oem" if sys.platform == "win32" else "utf-8", errors="replace")
    found = _FOLDER.search(text)
    return unescape(found[1]) if found else ""


def task_file(order: Order) -> bytes:
    """UTF-16 with a byte order mark, as schtasks wants it."""
    Xml.register_namespace("", SPACE)
    task = Xml.Element(f"{{{SPACE}}}Task", version="1.2")
    _add(task, "RegistrationInfo", Description=f"offgrid-node in {order.folder}")
    triggers = _add(task, "Triggers")
    trigger = _add(triggers, "LogonTrigger" if order.user else "BootTrigger", Enabled="true")
    if order.user:
        _add(trigger, UserId=order.account)
    # S4U: as that account from boot on, with no password kept, and so with no rights on other machines' shares.
    principal = _add(
        _add(task, "Principals"),
        "Principal",
        UserId=order.account,
        LogonType="InteractiveToken" if order.user else "S4U",
        RunLevel="LeastPrivilege",
    )
    principal.set("id", "Author")
    settings = _add(
        task,
        "Settings",
        MultipleInstancesPolicy="IgnoreNew",
        DisallowStartIfOnBatteries="false",
        StopIfGoingOnBatteries="false",
        StartWhenAvailable="true",
        ExecutionTimeLimit="PT0S",
    )
    _add(settings, "RestartOnFailure", Interval=RESTART, Count=str(RESTARTS))
    actions = _add(task, "Actions")
    actions.set("Context", "Author")
    # A task has no place for what a program writes, so a shell of the system's sends it to a file. The folder is where
    # the shell begins and no word of its line: between quotes, too, it would take %NAME% in a path for a variable.
    words = ["." if word == str(order.folder) else word for word in order.command]
    line = f'/d /c "{" ".join(_word(word) for word in words)} >> {order.name}.log 2>&1"'
    _add(actions, "Exec", Command="cmd.exe", Arguments=line, WorkingDirectory=str(order.folder))
    text: str = Xml.tostring(task, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-16"?>\n{text}\n'.encode("utf-16")


def _add(parent: Xml.Element, name: str = "", **fields: str) -> Xml.Element:
    """An element `name` in `parent` (or that itself), with elements of text in it, in this order."""
    here = Xml.SubElement(parent, f"{{{SPACE}}}{name}") if name else parent
    for field, text in fields.items():
        Xml.SubElement(here, f"{{{SPACE}}}{field}").text = text
    return here


def _word(word: str) -> str:
    """One word for cmd.exe, which ends words at more signs than programs do (& and ^ among them)."""
    return word if _PLAIN.fullmatch(word) else f'"{word}"'
