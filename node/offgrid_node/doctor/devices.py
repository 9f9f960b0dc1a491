"""What the packet links need of this machine: modems on serial ports, and the packages that speak to them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from offgrid_node.doctor.findings import Check, Needs, Said, command, fault, not_applicable, warning
from offgrid_node.doctor.processes import holder_of
from offgrid_node.doctor.subject import Subject
from offgrid_transports.line import TCP
from offgrid_transports.registry import LinkSpec, TransportRegistry
from offgrid_transports.transport import BadSpec

SERIAL = frozenset({"lora", "meshcore", "meshtastic"})
PACKAGES = {"ble": ("bumble", "ble"), **dict.fromkeys(sorted(SERIAL), ("serialx", "lora"))}
PORTS = ("/dev/serial/by-id/*", "/dev/ttyACM*", "/dev/ttyUSB*", "/dev/cu.usb*")


def _links(subject: Subject) -> Iterator[Said]:
    links = subject.config.links.open
    if not links:
        yield not_applicable("the node has no packet links")
        return
    registry = TransportRegistry.installed()
    for text in links:
        try:
            spec = registry.check(text)
        except BadSpec as error:
            check = command("offgrid-node", "config", "check", subject.folder.config_path)
            yield fault(f"links.open: {error}", check)
            continue
        module, extra = PACKAGES.get(spec.scheme, ("", ""))
        if module and find_spec(module) is None:
            yield fault(f"{text} needs the package {module}", f"pip install 'offgrid-node[{extra}]'")
        elif spec.scheme in SERIAL and not spec.target.startswith(TCP):
            yield from serial_port(subject, spec)


def serial_port(subject: Subject, spec: LinkSpec) -> Iterator[Said]:
    """Without opening it, which would reset many a modem."""
    if sys.platform == "win32":
        return
    device = Path(spec.target)
    if not device.exists():
        found = [str(path) for pattern in PORTS for path in sorted(Path("/").glob(pattern[1:]))]
        there = f"there are: {', '.join(found[:5])}" if found else "there is no serial port on this machine"
        yield fault(f"{device} is not there: is the modem plugged in? {there}", "ls -l /dev/serial/by-id/")
    elif not os.access(device, os.R_OK | os.W_OK):
        yield fault(f"{device} may not be used by this user", _admission(device))
    elif who := holder_of(device, subject.pid):
        yield fault(f"{device} is in use by {who}", command("fuser", "-v", device))


def _admission(device: Path) -> str:
    if sys.platform == "win32":
        return ""
    import grp
    import pwd

    status = device.stat()
    try:
        group, user = grp.getgrgid(status.st_gid).gr_name, pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return command("ls", "-l", device)
    return f"{command('sudo', 'usermod', '-aG', group, user)} && newgrp {group}"


def _open_links(subject: Subject) -> Iterator[Said]:
    told = subject.asked.links.list().links
    if not told:
        yield not_applicable("the node has no packet links")
    for link in told:
        trouble = next((each.value for each in link.figures if each.name == "trouble" and each.value), "")
        if not link.up:
            yield warning(f"{link.link} is down{': ' + trouble if trouble else ''}", subject.operator("link", "list"))
        if link.left and not any(each.left_ms for each in link.left):
            yield fault(
                f"{link.link} has used up the airtime that its band's rules allow in an hour: nothing is sent",
                subject.operator("link", "airtime"),
            )


CHECKS = (
    Check("links", "what links.open names can be opened", _links),
    Check("airtime", "the open links are up, and may send", _open_links, Needs.RUNNING),
)
