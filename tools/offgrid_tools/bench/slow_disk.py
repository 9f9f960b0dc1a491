"""A disk that takes few bytes a second, under one process: slow_disk.c, compiled here and preloaded there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("slow_disk.c")
COMPILER, ENV = "cc", "env"


def missing() -> str:
    """Why there is none on this machine; "" when there is."""
    if sys.platform != "linux":
        return "a slow disk can be had on Linux alone"
    absent = [name for name in (COMPILER, ENV) if shutil.which(name) is None]
    return f"a slow disk needs {' and '.join(absent)}" if absent else ""


class SlowDisk:
    """As fast as it is, until it is told otherwise."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._rate, self._library = folder / "rate", folder / "slow_disk.so"
        subprocess.run(
            [str(shutil.which(COMPILER)), "-O1", "-shared", "-fPIC", "-o", self._library, SOURCE, "-ldl", "-lpthread"],
            check=True,
        )
        self.at(0)

    @property
    def runner(self) -> tuple[str, ...]:
        """What runs a command on it."""
        return str(shutil.which(ENV)), f"LD_PRELOAD={self._library}", f"SLOW_DISK_RATE={self._rate}"

    def at(self, bytes_per_s: int) -> None:
        """0: as fast as it is."""
        new = self._rate.with_suffix(".new")
        new.write_text(str(bytes_per_s), encoding="ascii")
        new.replace(self._rate)
