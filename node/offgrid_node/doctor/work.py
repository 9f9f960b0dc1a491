"""What a host needs to run jobs: the programs that its config names, a sandbox, an endpoint of language models."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from offgrid_node.doctor.findings import Check, Said, command, fault, not_applicable, warning
from offgrid_node.doctor.subject import Subject
from offgrid_node.executors.sandbox import find as find_sandbox

CONNECT_S = 1.5
INSTALL_SANDBOX = "sudo apt install bubblewrap"


def _programs(subject: Subject) -> Iterator[Said]:
    commands = subject.config.host.process.commands
    if "host" not in subject.config.node.roles or not commands:
        yield not_applicable("this node runs no programs for others")
        return
    for name, program in commands.items():
        if not os.access(program, os.X_OK) or not Path(program).is_file():
            yield fault(f"host.process.commands.{name}: {program} is no program here", command("ls", "-l", program))


def _sandbox(subject: Subject) -> Iterator[Said]:
    host = subject.config.host
    asked = {
        "host.process": host.process.sandbox if host.process.commands else "rlimits",
        "host.python": host.python.sandbox if host.python.enabled else "rlimits",
    }
    wanting = {key: kind for key, kind in asked.items() if kind != "rlimits"}
    if "host" not in subject.config.node.roles or not wanting:
        yield not_applicable("nothing of this node asks for a sandbox")
        return
    sandbox, why = find_sandbox()
    for key, kind in wanting.items() if sandbox is None else ():
        if kind == "bwrap":
            yield fault(f'{key}.sandbox = "bwrap", and {why}: none of those jobs is run', INSTALL_SANDBOX)
        else:
            yield warning(f"{why}: jobs of {key} are held by limits alone", INSTALL_SANDBOX)


def _llm(subject: Subject) -> Iterator[Said]:
    endpoint = subject.config.host.llm.endpoint
    if "host" not in subject.config.node.roles or not endpoint:
        yield not_applicable("this node offers no language models")
        return
    parts = urlsplit(endpoint)
    if why := unreached(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)):
        models = command("curl", "-sS", f"{endpoint.rstrip('/')}/models")
        yield fault(f"host.llm.endpoint = {endpoint}: {why}", models)


def _dask(subject: Subject) -> Iterator[Said]:
    scheduler = subject.config.host.dask.scheduler
    if "host" not in subject.config.node.roles or not scheduler:
        yield not_applicable("this node passes nothing to a Dask cluster")
        return
    parts = urlsplit(scheduler)
    if parts.port and (why := unreached(parts.hostname or "", parts.port)):
        yield fault(f"host.dask.scheduler = {scheduler}: {why}", "dask scheduler")


def unreached(host: str, port: int, connect: Callable[..., socket.socket] = socket.create_connection) -> str:
    """Why nobody answers there, "" where somebody does."""
    try:
        connect((host, port), timeout=CONNECT_S).close()
    except TimeoutError:
        return f"no answer from {host}:{port} within {CONNECT_S:g} s"
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    return ""


CHECKS = (
    Check("programs", "the programs for jobs are there", _programs),
    Check("sandbox", "jobs can be held in a sandbox", _sandbox),
    Check("llm", "the endpoint of language models answers", _llm),
    Check("dask", "the Dask cluster answers", _dask),
)
