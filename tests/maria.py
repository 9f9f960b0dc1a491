"""A MariaDB server of the tests' own, in a folder of its own (Debian: mariadb-server-core). Tests of it are skipped
where there is none, and marked with `SQL`, so that one worker has them all."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DAEMON, INSTALL = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
PATIENCE_S = 60
SMALL = ("--innodb-use-native-aio=0", "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=4M")
SQL = [
    pytest.mark.xdist_group("sql"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets of the driver's
]


class MariaDB:
    """Asked over a socket, as whoever runs this."""

    def __init__(self, home: Path) -> None:
        if DAEMON is None or INSTALL is None:
            pytest.skip("no mariadbd and mariadb-install-db on this machine")
        self._home = home
        self.socket = home / "s"
        self._run_install(INSTALL)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.query("CREATE DATABASE offgrid", database=None)

    @property
    def url(self) -> str:
        return f"mysql://root@localhost/offgrid?unix_socket={self.socket}"

    def _run_install(self, install: str) -> None:
        """A machine on which it makes no database, say for want of what the kernel gives to all of them, is none for
        these tests."""
        how = ["--no-defaults", f"--datadir={self._home / 'data'}", "--auth-root-authentication-method=normal", *SMALL]
        done = subprocess.run([install, *how], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if done.returncode:
            pytest.skip(f"mariadb-install-db ends with {done.returncode}: {(done.stdout + done.stderr)[-500:]}")

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [
                str(DAEMON),
                "--no-defaults",
                f"--datadir={self._home / 'data'}",
                f"--socket={self.socket}",
                f"--pid-file={self._home / 'pid'}",
                "--bind-address=127.0.0.1",
                f"--port={self.port}",
                "--user=root",
                *SMALL,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: self.query("SELECT 1", database=None) == [(1,)])

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """It takes connections and what is written to them, and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def query(self, text: str, database: str | None = "offgrid") -> list[tuple[Any, ...]]:
        import pymysql

        try:
            connection = pymysql.connect(unix_socket=str(self.socket), user="root", database=database, autocommit=True)
        except pymysql.err.OperationalError:
            return []
        with connection, connection.cursor() as cursor:
            cursor.execute(text)
            return [*cursor.fetchall()]


def until(is_so: Callable[[], bool]) -> None:
    """However long it takes on this machine."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)
