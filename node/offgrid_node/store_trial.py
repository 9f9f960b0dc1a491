"""A store that ends the process which reads it: LMDB trusts its pages, so that one that is damaged may lead anywhere.

A process that dies of that leaves its last words in a file (`faulthandler`); one that is stopped, killed or loses its
power leaves none. Where it finds some, the next start has the store opened and read whole by a process of its own,
before it opens it itself. Should that die as well, the store is why: the node says so, and what to do, and ends, as
often as it is started. It is never mended in place: what it has can be had from hosts or from a backup.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from offgrid_node.folder import MIB, STORE_FILE, backup_folder
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Corrupt, Fault
from offgrid_node.storage.logged import LoggedStore

if TYPE_CHECKING:
    from offgrid_node.config import Config

LAST_WORDS = "died.txt"  # in the data folder
WORDS_BYTES_MAX = 16 * 1024
PATIENCE_S = 120.0  # with a small store; it reads far more than that many bytes in a second:
BYTES_PER_S = 2 * MIB
READ = "read"
DEADLY = {number for number in signal.Signals if number.name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL")}

_log = logging.getLogger("offgrid")


@contextmanager
def last_words(config: Config) -> Iterator[None]:
    """While the node runs. Raises Corrupt (reason StoreDeadly), where the last one died of its store. A folder that
    takes no file is no reason not to run."""
    path = config.node.data_dir / LAST_WORDS
    try:
        words = path.read_bytes()[:WORDS_BYTES_MAX].decode(errors="replace").strip() if path.exists() else ""
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
    except OSError:
        yield
        return
    with file:
        if words:
            _log.error("the last process of this node died", extra=fields("died", why=words))
            if try_store(config):
                file.truncate(0)
        faulthandler.enable(file, all_threads=False)
        try:
            yield
        finally:
            faulthandler.disable()
    with suppress(OSError):
        path.unlink(missing_ok=True)


def try_store(config: Config, command: Sequence[str] = ()) -> bool:
    """Whether a process of its own has read it; not where it was refused, as it will be to this one, nor where that
    process was ended by others or could not begin. Raises Corrupt (reason StoreDeadly) where it died of what it read.
    `command`: another one in its place."""
    path = config.storage.memory_db
    try:
        patience_s = PATIENCE_S + (path / STORE_FILE).stat().st_size / BYTES_PER_S
    except OSError:
        return False
    words = command or (sys.executable, "-P", "-m", __name__, str(path), str(config.storage.limit_mb * MIB))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    held, holding = os.pipe()  # closed with this process, however it ends
    try:
        done = subprocess.run(words, env=environment, stdin=held, capture_output=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired:
        raise _deadly(config, f"takes more than {patience_s:.0f} s") from None
    except OSError as error:
        _log.warning("the store could not be tried", extra=fields("store_untried", why=error))
        return False
    finally:
        os.close(held)
        os.close(holding)
    if _is_death(done.returncode):
        raise _deadly(config, f"ended the process that did, by {_name_of(done.returncode)}")
    if done.returncode:
        last_words = done.stderr.decode(errors="replace").strip()[-WORDS_BYTES_MAX:]
        said = fields("store_untried", ended=_name_of(done.returncode), why=last_words)
        _log.warning("the store could not be tried", extra=said)
    return done.stdout.decode(errors="replace").strip() == READ


def _is_death(code: int) -> bool:
    """Of what it read: 1 and 2 are Python's own, for what it could say itself; the system ends whoever takes too much
    memory by SIGKILL."""
    return code < 0 and -code in DEADLY if os.name == "posix" else code not in (0, 1, 2)


def _name_of(code: int) -> str:
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"exit code {code:#x}"


def _deadly(config: Config, how: str) -> Corrupt:
    path = config.storage.memory_db
    text = (
        f"{path}: the store is damaged: to read it {how}. Keep this folder, and above all its keys, and bring the node "
        "back in another: offgrid-node restore --via HOST:PORT from what hosts keep of it, or --backup FILE, of which "
        f"the newest may lie in {backup_folder(config)}"
    )
    return Corrupt(text, reason="StoreDeadly", metadata={"path": str(path)})


def end_with_starter() -> None:
    """Else it would have the store, in the way of the next start."""

    def wait() -> None:
        with suppress(OSError):
            while os.read(sys.stdin.fileno(), 1):
                pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(path: str, limit_bytes: str) -> None:
    end_with_starter()
    try:
        store = LoggedStore.open(Path(path), limit_bytes=int(limit_bytes))
        try:
            store.verify()
        finally:
            store.close()
    except Fault:
        return
    sys.stdout.write(READ)


if __name__ == "__main__":
    main(*sys.argv[1:])
