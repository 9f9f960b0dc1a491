"""The ports that the node is to listen on, while it does not run."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from offgrid_node.config import split_address
from offgrid_node.config.http_ports import AUTO, OFF, auto_ports
from offgrid_node.discovery.addresses import join_address
from offgrid_node.doctor.findings import Check, Needs, Said, command, fault
from offgrid_node.doctor.processes import listener_on
from offgrid_node.doctor.restarting import started
from offgrid_node.doctor.subject import Subject
from offgrid_node.folder import MESH_PLAN

if TYPE_CHECKING:
    from offgrid_node.config import Config

TRIED_MAX, LOOPBACK = 100, "127.0.0.1"
MEANINGS = {
    errno.EADDRNOTAVAIL: "no network of this machine has that address",
    errno.EACCES: "this user may not listen there",
}


def taken(config: Config) -> Iterator[tuple[str, Said]]:
    """Each key that names an address which cannot be had, and what to say of that. For `join`, too."""
    proposed = list[str]()
    if config.gateway.listen == AUTO:
        yield from _auto(config)
    for key, address in _listening(config).items():
        host, port = split_address(address, port_min=0)
        if not port or (error := why_not(host, port)) is None:
            continue
        free = next_free(config, key, proposed)
        proposed.append(free or address)
        if error.errno == errno.EADDRINUSE:
            who = listener_on(port)
            sentence = f"{key} = {address}: the port is taken" + (f" by {who}" if who else "")
        else:
            sentence = f"{key} = {address}: {MEANINGS.get(error.errno or 0, error.strerror)}"
            free = join_address("0.0.0.0", 0) if error.errno == errno.EADDRNOTAVAIL else free  # noqa: S104 - a hint
        section, _, name = key.partition(".")
        yield key, fault(sentence, f"OFFGRID_{section.upper()}__{name.upper()}={free}" if free else "")


def next_free(config: Config, key: str, but: Collection[str] = ()) -> str:
    """The address of that key with the next free port that no other key has, nor one of `but`; "" if none is near."""
    listening = _listening(config)
    host, port = split_address(listening[key], port_min=0)
    others = {split_address(address, port_min=0)[1] for address in (*listening.values(), *but)}
    ports = (each for each in range(port + 1, min(port + TRIED_MAX, 65_536)) if each not in others)
    return next((join_address(host, each) for each in ports if why_not(host, each) is None), "")


def _auto(config: Config) -> Iterator[tuple[str, Said]]:
    """It takes the next free one of some: seldom are none left."""
    ports = auto_ports(config.node.roles)
    if all(why_not(LOOPBACK, port) is not None for port in ports):
        sentence = f'gateway.listen = "auto": all ports from {ports[0]} to {ports[-1]} are taken'
        yield "gateway.listen", fault(sentence, "OFFGRID_GATEWAY__LISTEN=off")


def why_not(host: str, port: int) -> OSError | None:
    """Tried by binding as the node would, without listening: then it may begin there at the same time (Linux). None
    where that may be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def _listening(config: Config) -> dict[str, str]:
    """host:port by key."""
    found = {
        "mesh.listen": config.mesh.listen,
        "mesh.door": config.mesh.door,
        "gateway.listen": config.gateway.listen,
        "metrics.listen": config.metrics.listen,
    }
    return {key: address for key, address in found.items() if address not in ("", AUTO, OFF)}


def _look(key: str, subject: Subject) -> Iterator[Said]:
    # One after another: two that try would be in each other's way.
    tried = subject.once("ports", lambda: dict(taken(subject.config)))
    if (said := tried.get(key)) is not None:
        yield Said(said.state, said.sentence, _elsewhere(subject, tried.values()))


def _elsewhere(subject: Subject, tried: Iterable[Said]) -> str:
    """Starts the node on other ports than all of those; `offgrid-node up` chooses such by itself."""
    if (subject.path.absolute().parent / MESH_PLAN).is_file():
        return started(subject)
    settings = [said.command for said in tried]
    return " ".join([*settings, started(subject)]) if all(settings) else command("ss", "-ltnp")


def _check(name: str, key: str) -> Check:
    return Check(name, f"{key} can be had", lambda subject: _look(key, subject), Needs.STOPPED)


CHECKS = (
    _check("mesh-port", "mesh.listen"),
    _check("door-port", "mesh.door"),
    _check("gateway-port", "gateway.listen"),
    _check("metrics-port", "metrics.listen"),
)
