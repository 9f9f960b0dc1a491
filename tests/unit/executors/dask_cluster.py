"""A real Dask cluster, scheduler and one worker in a process of its own, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from urllib.parse import urlsplit

PROGRAM = """
import sys, time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None,
        host="127.0.0.1", scheduler_port=int(sys.argv[1]), protocol="tcp://",
    )
    print(cluster.scheduler_address, flush=True)
    time.sleep(600)
"""


class DaskCluster:
    """A context: it runs inside it."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self.address = ""

    def __enter__(self) -> DaskCluster:
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        argv = [sys.executable, "-c", PROGRAM, str(self._port)]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environ)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Twice is harmless."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port is not None
        return port
