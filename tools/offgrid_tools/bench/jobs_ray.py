"""Ray on this machine alone: a head with one worker's processor, driven from here. Nothing is durable or signed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

from offgrid_tools.bench.harness import timed
from offgrid_tools.bench.peers import lacking

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # it calls nobody, and loopback is ours


def echo(content: bytes) -> bytes:
    """The job."""
    return content


class RayCluster:
    """Use it in a `with` block."""

    name = "Ray"

    def __init__(self, folder: Path) -> None:
        """Its own sockets lie in a folder with a short name: theirs may have 107 bytes."""

    @staticmethod
    def missing() -> str:
        return lacking(["ray"])

    def __enter__(self) -> RayCluster:
        os.environ.update(SETTINGS)
        import ray

        self._folder = tempfile.mkdtemp(prefix="ray")
        self._ray: Any = ray
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=self._folder,
            object_store_memory=100_000_000,
        )
        self._echo = ray.remote(echo)
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, count: int, in_flight: int) -> float:
        return timed(lambda: self._run(count, in_flight))

    def _run(self, count: int, in_flight: int) -> None:
        under_way: deque[tuple[bytes, Any]] = deque()
        for number in range(count):
            if len(under_way) == in_flight:
                self._finish(*under_way.popleft())
            content = b"%d" % number
            under_way.append((content, self._echo.remote(content)))
        while under_way:
            self._finish(*under_way.popleft())

    def _finish(self, content: bytes, reference: Any) -> None:
        if self._ray.get(reference) != content:
            raise RuntimeError("Ray has lost a job")
