"""The machines that a kit is for: system, processor and Python, as the tags of wheels (PEP 425, PEP 600) and markers
(PEP 508) name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = ("ble", "dask", "lora", "otel", "parquet", "sql")  # of pyproject.toml
GLIBC_MINOR_MAX = 28  # of glibc 2: Debian 10, RHEL 8 and newer


def _manylinux(machine: str) -> tuple[str, ...]:
    newest_first = (f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR_MAX, 4, -1))
    return (*newest_first, *(f"manylinux{year}_{machine}" for year in ("2014", "2010", "1")))


class Platform(NamedTuple):
    """A system on a processor: the platform tags of wheels that run there, and what markers ask about it."""

    tags: tuple[str, ...]
    sys_platform: str
    machine: str
    system: str
    os_name: str


PLATFORMS: Mapping[str, Platform] = {
    "linux-x86_64": Platform(_manylinux("x86_64"), "linux", "x86_64", "Linux", "posix"),
    "linux-aarch64": Platform(_manylinux("aarch64"), "linux", "aarch64", "Linux", "posix"),
    "windows-x86_64": Platform(("win_amd64",), "win32", "AMD64", "Windows", "nt"),
    "macos-arm64": Platform(("macosx_12_0_arm64",), "darwin", "arm64", "Darwin", "posix"),
}


class Target(NamedTuple):
    """One of those, and a Python of it: `linux-x86_64-3.11`."""

    platform_name: str
    python: str

    @property
    def name(self) -> str:
        return f"{self.platform_name}-{self.python}"

    @property
    def platform(self) -> Platform:
        return PLATFORMS[self.platform_name]

    @property
    def markers(self) -> dict[str, str]:
        """What PEP 508's markers find there."""
        platform = self.platform
        return {
            "implementation_name": "cpython",
            "os_name": platform.os_name,
            "platform_machine": platform.machine,
            "platform_python_implementation": "CPython",
            "platform_system": platform.system,
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": platform.sys_platform,
        }


def targets(platforms: Iterable[str], pythons: Sequence[str]) -> tuple[Target, ...]:
    """Each platform with each Python; both are names of the tables above."""
    return tuple(Target(platform, python) for platform in platforms for python in pythons)
