"""What a host needs to run jobs: the programs that its config names, a sandbox, an endpoint of language models."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from offgrid_node.config import place_of
from offgrid_node.doctor.findings import Check, Needs, Said, command, fault, not_applicable, warning
from offgrid_node.doctor.restarting import restarted
from offgrid_node.doctor.subject import Subject
from offgrid_node.executors.sandbox import find as find_sandbox

if TYPE_CHECKING:
    from offgrid_node.config import Config

CONNECT_S = 1.5
GATEWAYS_AT_ONCE = 8
STATUS_PATH, TOKEN_VARIABLE = "/v1/status", "OFFGRID_GATEWAY__TOKEN"
INSTALL_SANDBOX = "sudo apt install bubblewrap"


def _programs(subject: Subject) -> Iterator[Said]:
    commands = subject.config.host.process.commands
    if "host" not in subject.config.node.roles or not commands:
        yield not_applicable("this node runs no programs for others")
        return
    for name, program in commands.items():
        if not os.access(program, os.X_OK) or not Path(program).is_file():
            yield fault(f"host.process.commands.{name}: {program} is no program here", command("ls", "-l", program))


def _hooks(subject: Subject) -> Iterator[Said]:
    """By which the node tells people that something is wrong."""
    health = subject.config.health
    if not health.command and not health.webhook:
        yield not_applicable("nobody is told of alerts: health.command, health.webhook")
        return
    if health.command and shutil.which(health.command[0]) is None:
        sentence = f"health.command: {health.command[0]} is no program here, so nobody is told of alerts by it"
        yield fault(sentence, command("ls", "-l", health.command[0]))
    if health.webhook and (why := _behind(health.webhook)):
        place = command("curl", "-sS", place_of(health.webhook))
        yield warning(f"health.webhook: {why}; nobody is told of alerts there", place)


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
    if why := _behind(endpoint):
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


def gateways_tried(subject: Subject) -> Mapping[tuple[str, str], str]:
    """Those of others that the config names, by key and URL: why nobody answers there, "" where somebody does."""
    return subject.once("gateways", lambda: _tried(subject.config))


def _tried(config: Config) -> Mapping[tuple[str, str], str]:
    named = {"jobs.broker_url": (config.jobs.broker_url,), "storage.hosts": config.storage.hosts}
    urls = [(key, url) for key, each in named.items() for url in each if url]
    with ThreadPoolExecutor(max_workers=GATEWAYS_AT_ONCE) as threads:
        return dict(zip(urls, threads.map(lambda each: _behind(each[1]), urls), strict=True))


def _gateways(subject: Subject) -> Iterator[Said]:
    tried = gateways_tried(subject)
    if not tried:
        yield not_applicable("the config names nobody's gateway")
    for (key, url), why in tried.items():
        if why:
            yield fault(f"{key} = {url}: {why}", command("curl", "-sS", f"{url.rstrip('/')}/v1/about"))


def _own_gateway(subject: Subject) -> Iterator[Said]:
    assert subject.status is not None
    url = subject.status.gateway
    if not url:
        yield not_applicable('gateway.listen = "off"')
    elif why := _behind(url):
        about = command("curl", "-sS", f"{url}/v1/about")
        yield warning(f"the node says that its page is at {url}: {why}", about)


def _gateway_token(subject: Subject) -> Iterator[Said]:
    """One that the environment has and the node's start had not, or the other way round, is the common case."""
    assert subject.status is not None
    url, token = subject.status.gateway, subject.config.gateway.token.get_secret_value()
    if not url:
        yield not_applicable('gateway.listen = "off"')
    elif _asked_by_token(url, token) == HTTPStatus.UNAUTHORIZED:
        lacks = "takes another gateway.token than" if token else "wants a gateway.token, and there is none in"
        named = f"unset {TOKEN_VARIABLE}   # or start the node with it" if TOKEN_VARIABLE in subject.environ else ""
        yield warning(
            f"the running node {lacks} its config and this environment have now",
            named or restarted(subject),
        )


def _asked_by_token(url: str, token: str) -> int:
    """The status of the answer; 0: none came."""
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=CONNECT_S)
    try:
        connection.request("GET", STATUS_PATH, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0  # said of the gateway
    finally:
        connection.close()


def _behind(url: str) -> str:
    parts = urlsplit(url)
    return unreached(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


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
    Check("hooks", "people can be told of alerts, as the config says", _hooks),
    Check("sandbox", "jobs can be held in a sandbox", _sandbox),
    Check("llm", "the endpoint of language models answers", _llm),
    Check("dask", "the Dask cluster answers", _dask),
    Check("gateways", "the gateways of others that the config names answer", _gateways),
    Check("own-gateway", "the node's own gateway takes connections", _own_gateway, Needs.RUNNING),
    Check("gateway-token", "the running node takes the token that its config has", _gateway_token, Needs.RUNNING),
)
