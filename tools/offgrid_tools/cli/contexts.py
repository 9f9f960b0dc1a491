"""Nodes by name: what `--context`, OFFGRID_CONTEXT and `offgrid context use` choose from.

They stand in contexts.json in the user's config folder, which nobody else may read (0600): {"current": NAME,
"contexts": {NAME: {"node_dir": DIR}, {"socket": ADDRESS} or {"url": URL, "token": TOKEN}}}. What --socket or
--node-dir says goes before any context.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from offgrid.client.errors import OffgridError
from offgrid.file_lock import lock

FILE_NAME = "contexts.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
NONE = "none"  # as a name: as if there were no contexts
FILE_BYTES_MAX = 1 << 20
LOCK_S, LOOK_S = 10.0, 0.02  # how long another command is waited for that changes them, and how often it is looked
PLACES = ("node_dir", "socket", "url")


class Contexts:
    """All of a user's, and which one is in force unless another is said ("": none)."""

    def __init__(self, path: Path, current: str = "", by_name: dict[str, Mapping[str, str]] | None = None) -> None:
        self.path, self.current = path, current
        self.by_name = {} if by_name is None else by_name

    def address_of(self, name: str) -> str:
        """What `connect` takes, without the token. Raises OffgridError (NoContext)."""
        if name not in self.by_name:
            raise OffgridError("NOT_FOUND", "NoContext", self._unknown(name))
        return next(self.by_name[name][place] for place in PLACES if place in self.by_name[name])

    def token_of(self, name: str) -> str:
        return self.by_name[name].get("token", "")

    def write(self) -> None:
        """Replaces the file; nobody but the user can read it at any moment. The lock has to be held."""
        new = self.path.with_name(f"{FILE_NAME}.{os.getpid()}")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump({"current": self.current, "contexts": self.by_name}, file, indent=2, ensure_ascii=False)
            file.write("\n")
        new.replace(self.path)

    def _unknown(self, name: str) -> str:
        import difflib

        close = difflib.get_close_matches(name, self.by_name, 1)
        return f"there is no context {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def load() -> Contexts:
    """Raises OffgridError (BadContexts) for a file that is none."""
    path = _config_folder() / FILE_NAME
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(FILE_BYTES_MAX))
        by_name = {str(name): _checked(said) for name, said in document["contexts"].items()}
        return Contexts(path, str(document["current"]), by_name)
    except FileNotFoundError:
        return Contexts(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"{path} is not what `offgrid context` writes ({error}); mend it or move it away"
        raise OffgridError("INVALID_ARGUMENT", "BadContexts", text) from None


@contextmanager
def changing() -> Iterator[Contexts]:
    """What is changed within is written, unless it raises; what another command changes meanwhile is not lost. Raises
    OffgridError: BadContexts, ContextsBusy."""
    path = _config_folder() / FILE_NAME
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(os.fdopen(os.open(path.with_name(f"{FILE_NAME}.lock"), os.O_RDWR | os.O_CREAT, 0o600), "wb")) as held:
        until = time.monotonic() + LOCK_S
        while True:
            try:
                lock(held.fileno())
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    text = f"another command has been changing {path} for {LOCK_S:g} s; try again"
                    raise OffgridError("UNAVAILABLE", "ContextsBusy", text) from None
                time.sleep(LOOK_S)
            except OSError:  # a file system without locks
                break
        contexts = load()
        yield contexts
        contexts.write()


def chosen(name: str) -> tuple[str | None, str]:
    """Address and token of the context of this name, else of the one that is in force; None where there is none. Raises
    OffgridError."""
    if name == NONE or (not name and not (_config_folder() / FILE_NAME).exists()):
        return None, ""
    contexts = load()
    name = name or contexts.current
    return (contexts.address_of(name), contexts.token_of(name)) if name else (None, "")


def _checked(said: object) -> Mapping[str, str]:
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise TypeError("a context is an object of texts")
    places, others = {*said} & {*PLACES}, {*said} - {*PLACES}
    if len(places) != 1 or not others <= ({"token"} if "url" in said else set()):
        raise ValueError(f"a context has one of {', '.join(PLACES)}, and a token beside a url")
    return said


def _config_folder() -> Path:
    """Where this system's users keep what programs remember for them."""
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "offgrid"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "offgrid"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "offgrid"
