"""What a process of its own does with the node's store while the node serves: it copies it, writes a backup of that
copy, or looks through it.

It reads the store only, and ends with whoever sent it: one line of JSON comes in, and when its standard input ends, so
does it. It says how far it is, and at last how it went, in lines of JSON. `python -m offgrid_node.backups`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict

from offgrid.backup.recovery import Recipient
from offgrid_node.backups.taking import Facts, take_backup
from offgrid_node.protocol import errors
from offgrid_node.protocol.errors import Fault, Internal
from offgrid_node.storage.copying import copy_store, drop_copy
from offgrid_node.storage.lmdb import LmdbStore

COPYING = "copying"
LIMIT_BYTES = 1 << 40
NICE = 10
LINE_BYTES_MAX = 16 * 1024 * 1024  # what is damaged is named in one


class Errand(msgspec.Struct, frozen=True):
    """`target`: where the backup goes (`take_backup`); empty: the store is copied and looked through. `recipient`: for
    whom it is sealed, encoded and in hex."""

    store: str
    target: str = ""
    recipient: str = ""
    facts: Mapping[str, Any] | None = None


class Done(msgspec.Struct, frozen=True):
    """`path`: of the copy, or of the backup; `damaged`: what is wrong in it."""

    path: str
    bytes: int = 0
    journal_seq: int = 0
    damaged: tuple[str, ...] = ()


def go(errand: Errand, say: Callable[[str, int, int], None]) -> Done:
    """Raises Fault."""
    store = Path(errand.store)
    say(COPYING, 0, 0)
    copy = copy_store(store)
    if not errand.target:
        opened = LmdbStore.open(copy, limit_bytes=LIMIT_BYTES)
        try:
            return Done(str(copy), damaged=tuple(opened.verify()))
        finally:
            opened.close()
    try:
        recipient = Recipient.decode(bytes.fromhex(errand.recipient)) if errand.recipient else None
        file, manifest = take_backup(copy, Path(errand.target), Facts(**(errand.facts or {})), recipient, say)
        return Done(str(file), file.stat().st_size, manifest.journal_seq, manifest.damaged)
    finally:
        drop_copy(store)


def main() -> None:
    errand = Errand(**json.loads(_line()))
    threading.Thread(target=_end_with_the_sender, daemon=True).start()
    if sys.platform != "win32":
        with suppress(OSError):
            os.nice(NICE)
    try:
        _tell({"done": asdict(go(errand, _say))})
    except Fault as fault:
        _tell({"fault": {"kind": type(fault).__name__, "message": fault.message, "reason": fault.reason}})


def fault_from(said: Mapping[str, str]) -> Fault:
    kind = getattr(errors, said["kind"], Internal)
    fault: Fault = kind(said["message"], reason=said["reason"])
    return fault


def _line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 65_536)
        if not part:
            sys.exit(1)
        line += part
    return line


def _end_with_the_sender() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _say(doing: str, done: int, total: int) -> None:
    _tell({"doing": doing, "done_bytes": done, "total_bytes": total})


def _tell(said: Mapping[str, object]) -> None:
    print(json.dumps(said), flush=True)  # noqa: T201 - to whoever sent it
