"""Gathers what a bundle has, from the node's folder and from the node where it runs, each part for itself: what cannot
be had is told of in its place."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import distributions
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from offgrid.client import OffgridError
from offgrid.json_form import json_of
from offgrid_node import __version__
from offgrid_node.access_files import METRICS_NAME, TOKEN_NAME
from offgrid_node.config import place_of, split_address
from offgrid_node.config.addresses import ANY_HOST
from offgrid_node.debugging.redaction import Redaction
from offgrid_node.debugging.shapes import HIDDEN
from offgrid_node.doctor import diagnose
from offgrid_node.doctor.rights import secrets_of
from offgrid_node.doctor.subject import Subject
from offgrid_node.folder import DOTENV_NAME, Folder
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.recent_log import LOG_NAMES, RECENT_NAME, recent

LOG_BYTES_MAX = 1024 * 1024  # the last of it
NAMES_MAX = 10_000  # of objects, that are hidden
LISTED_MAX = 1_000
FETCH_S = 3.0
SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASS", "SQL_MIRROR", "WEBHOOK", "COMMAND")
ARGV = "command"  # the setting that is a program and its arguments
LABELS = "labels"  # the setting whose values are its owner's own words
PART_CHARS_MIN = 12  # of a path, that is hidden alone, too
KEY_CHARS_MIN = 40  # of a key in text; a node's id beside it is shorter, and no secret
PAGE_BYTES_MAX = 4 * 1024 * 1024
ABOUT = """\
What a helper wants to see of an offgrid-node, gathered by `offgrid debug bundle`. Look through it before you send it.

In it: versions and the platform; the config, without secrets; what the doctor found; of the running node its status
with notices and alerts, its members with their names and addresses, its links and roads, its outbox by object ids; its
figures; the end of its log.

Not in it: keys, recovery words, tokens, invites, the content of anything, what jobs were given or gave back,{names}
environment variables but for which OFFGRID_* are set. Where something was taken out of a text, [hidden] or a word such
as object-3 stands in its place; "~" is a home folder.
"""

_PLAIN = re.compile(r"[a-z_./-]*")  # an argument that may stand in a log for other reasons
_UNQUOTED = re.compile(r"""(["'])(.*?)\1.*|(?<!["'])\s+#.*""")

Part = Callable[[Subject], Any]


def write_bundle(folder: Path, target: Path, *, with_names: bool, log: str | None) -> tuple[str, ...]:
    """Makes the zip file `target`, which must not exist yet, readable by its owner alone; the names of what is in it.

    `log` is the log's text where it comes from elsewhere. Raises OSError where the file cannot be written.
    """
    subject = Subject(folder)
    try:
        names = {} if with_names else _names_of_objects(subject)
        redaction = Redaction(_secrets(folder, subject), {**names, **_homes(), **_urls(subject)})
        values = {name: redaction.of_value(_had(part, subject)) for name, part in _parts(with_names=with_names).items()}
        parts = {name: json.dumps(value, indent=1, ensure_ascii=False) + "\n" for name, value in values.items()}
        parts["metrics.txt"] = redaction.of(_metrics(subject))
        parts["log.txt"] = redaction.of(_end_of(log.encode(errors="replace")) if log is not None else _log(subject))
    finally:
        subject.close()
    parts["README.txt"] = ABOUT.format(names="" if with_names else " names of objects,")
    made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(made, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in sorted(parts.items()):
            bundle.writestr(name, text)
    return tuple(sorted(parts))


def _parts(*, with_names: bool) -> Mapping[str, Part]:
    parts: dict[str, Part] = {
        "about.json": _about,
        "config.json": _config,
        "doctor.json": _findings,
        "status.json": lambda at: _of_status(json_of(at.asked.mesh.status()), with_names=with_names),
        "peers.json": lambda at: [
            json_of(peer) for peer in islice(at.asked.mesh.peers(include_removed=True), LISTED_MAX)
        ],
        "links.json": lambda at: json_of(at.asked.links.list()),
        "roads.json": lambda at: json_of(at.asked.links.roads()),
        "outbox.json": lambda at: [
            _without_name(json_of(entry)) for entry in islice(at.asked.objects.outbox(), LISTED_MAX)
        ],
    }
    if with_names:
        parts["objects.json"] = lambda at: [json_of(each) for each in islice(at.asked.objects.list(), LISTED_MAX)]
    return parts


def _had(part: Part, subject: Subject) -> Any:
    """What it says, or why it does not: a bundle is made of nodes that are not well."""
    if subject.client is None and part not in (_about, _config, _findings):
        return {"missing": "the node does not run, or cannot be asked"}
    try:
        return part(subject)
    except (OffgridError, Fault) as error:
        return {"missing": error.message}
    except OSError as error:
        return {"missing": str(error)}


def _about(subject: Subject) -> Mapping[str, Any]:
    return {
        "version": __version__,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": sys.version,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "processors": os.cpu_count(),
        "folder": str(subject.path.absolute()),
        "pid": subject.pid,
        "set": sorted(name for name in subject.environ if name.startswith("OFFGRID_")),
        "packages": dict(sorted((found.name, found.version) for found in distributions() if found.name)),
    }


def _config(subject: Subject) -> Any:
    if subject.config_if_any is None:
        return {"problems": [str(problem) for problem in subject.problems] or ["there is none in this folder"]}
    return _of_setting(_settings(subject))


def _of_setting(value: Any, name: str = "") -> Any:
    """Of a program's arguments, of what stands in a URL beside scheme and host and of labels, each may be a secret."""
    if name == LABELS:
        return dict.fromkeys(value, HIDDEN)
    if isinstance(value, dict):
        return {key: _of_setting(within, key) for key, within in value.items()}
    if isinstance(value, list):
        return [*value[:1], *(HIDDEN for _ in value[1:])] if name == ARGV else [_of_setting(each) for each in value]
    if not isinstance(value, str) or "://" not in value or value.rstrip("/") == (place := place_of(value)):
        return value
    return f"{place}/{HIDDEN}"


def _findings(subject: Subject) -> Any:
    return [
        {"check": each.check, "state": str(each.state), "sentence": each.sentence, "command": each.command}
        for each in diagnose(subject.path)
    ]


def _of_status(status: dict[str, Any], *, with_names: bool) -> dict[str, Any]:
    if not with_names and status["objects"] is not None:
        status["objects"] = {key: value for key, value in status["objects"].items() if not key.endswith("_names")}
    return status


def _without_name(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("key", "name")}  # the key is the name


def _metrics(subject: Subject) -> str:
    """Of the gateway, with the config's token, or of the open listener where there is no gateway."""
    import http.client

    try:
        host, port, token = _figures_at(subject)
        connection = http.client.HTTPConnection(host, port, timeout=FETCH_S)
        try:
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"} if token else {})
            answer = connection.getresponse()
            text = answer.read(PAGE_BYTES_MAX).decode(errors="replace")
            return text if answer.status == http.HTTPStatus.OK else f"missing: {answer.status} {text}\n"
        finally:
            connection.close()
    except (Unavailable, OSError, ValueError, http.client.HTTPException) as error:
        return f"missing: {error}\n"


def _figures_at(subject: Subject) -> tuple[str, int, str]:
    """Host, port and token. Raises Unavailable, OSError, ValueError."""
    config, status = subject.config_if_any, subject.status
    if config is None or status is None:
        raise Unavailable("the node does not run, or cannot be asked")
    if status.gateway:
        return *split_address(urlsplit(status.gateway).netloc), config.gateway.token.get_secret_value()
    if not config.metrics.listen:
        raise Unavailable("the node counts nothing: gateway.listen and metrics.listen are off")
    host, port = split_address((config.node.data_dir / METRICS_NAME).read_text("ascii").strip())
    return ANY_HOST.get(host, host), port, ""


def _log(subject: Subject) -> str:
    """What was written to last: of a node that runs in a terminal the last lines lie in its data folder."""
    config = subject.config_if_any
    kept = [config.node.data_dir / RECENT_NAME] if config is not None else []
    found = [path for path in (*(subject.path / name for name in LOG_NAMES), *kept) if path.is_file()]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        if path in kept:
            return _end_of(recent(path.parent))
        with suppress(OSError), path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES_MAX - 1))
            return _end_of(file.read())
    return (
        "missing: no log lies in the folder; where journald has it: "
        "journalctl -u offgrid-node | offgrid debug bundle --log -\n"
    )


def _end_of(log: bytes) -> str:
    """Its last lines, whole ones: half a secret would be known to nobody."""
    end = log if len(log) <= LOG_BYTES_MAX else log[-LOG_BYTES_MAX:].partition(b"\n")[2]
    return end.decode(errors="replace")


def _homes() -> dict[str, str]:
    home = str(Path.home())
    return {home: "~"} if home not in ("/", ".") else {}


def _urls(subject: Subject) -> dict[str, str]:
    """Those of the config that `_of_setting` shortens, and what is left of each wherever it is said, with or without
    its scheme."""
    found = {}
    for url in _texts(_settings(subject)):
        if "://" in url and url.rstrip("/") != (place := place_of(url)):
            found[url.rstrip("/")] = f"{place}/{HIDDEN}"
            found[url.rstrip("/").partition("://")[2]] = f"{place.partition('://')[2]}/{HIDDEN}"
    return found


def _settings(subject: Subject) -> Any:
    return {} if subject.config_if_any is None else subject.config_if_any.model_dump(mode="json")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for within in value.values() if isinstance(value, dict) else value:
            yield from _texts(within)


def _parts_of_path(url: str) -> Iterator[str]:
    """What would be known again alone; the whole path is hidden with its URL."""
    parts = urlsplit(url)
    yield from (part for part in re.split(r"[/?&=;#]", f"{parts.path}?{parts.query}") if len(part) >= PART_CHARS_MIN)


def _names_of_objects(subject: Subject) -> dict[str, str]:
    """Each with the word that takes its place."""
    if subject.client is None:
        return {}
    with suppress(OffgridError):
        told = subject.asked.mesh.status().objects  # of which the doctor speaks
        listed = (each.name for each in islice(subject.asked.objects.list(), NAMES_MAX))
        names = dict.fromkeys(name for name in (*told.gone_names, *told.at_risk_names, *listed) if name)
        return {name: f"object-{number}" for number, name in enumerate(names, 1)}
    return {}


def _secrets(folder: Path, subject: Subject) -> Iterator[str]:
    """Every secret of this node that can be known: of its config, its environment, its keys and its access files. Those
    of files also where they are not in force, or cannot be parsed."""
    config = subject.config_if_any
    if config is not None:
        yield from secrets_of(config)
        yield urlsplit(config.health.webhook).path
        for url in _texts(_settings(subject)):
            yield from _parts_of_path(url) if "://" in url else ()
        yield from (value for value in config.host.labels.values() if len(value) >= PART_CHARS_MIN)
        for word in config.health.command[1:]:
            yield from (part for part in (word, *re.split(r"[:=\s]+", word)) if not _PLAIN.fullmatch(part))
        with suppress(OSError, UnicodeDecodeError):
            yield (config.node.data_dir / TOKEN_NAME).read_text().strip()
    of_environ = [pair for pair in subject.environ.items() if pair[0].startswith("OFFGRID_")]
    lines = [*_lines(folder / DOTENV_NAME), *_lines(Folder(folder).config_path)]
    settings = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    of_files = [(name, value) for name, _, value in settings]
    for name, value in (*of_environ, *of_files):
        if any(word in name.upper() for word in SECRET_NAMES):
            yield _UNQUOTED.sub(r"\2", value.strip())
            yield value.strip().strip("\"'")
    for path in Folder(folder).keys_path.glob("*"):
        yield from (word for line in _lines(path) for word in line.split() if len(word) >= KEY_CHARS_MIN)
        with suppress(Fault, OSError, ValueError):
            yield NodeKey.read(path).recovery_words()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
