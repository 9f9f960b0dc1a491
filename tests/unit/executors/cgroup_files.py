"""The kernel's file system of control groups in memory, by the rules of cgroup-v2.rst that matter here."""

from __future__ import annotations

import errno
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = "cpuset cpu io memory pids"


class CgroupFiles:
    """A Files. One group, `own`, which this process is in and which has what the one above hands down."""

    def __init__(
        self, own: str = "/system.slice/offgrid.service", controllers: str = CONTROLLERS, others: int = 0
    ) -> None:
        """`others` processes are in the same group."""
        self.base = ROOT / own.lstrip("/")
        self.members = {self.base: {os.getpid(), *range(1_000_000, 1_000_000 + others)}}
        self.handed = {self.base: set(controllers.split())}
        self.asked: dict[Path, set[str]] = {self.base: set()}
        self.settings: dict[Path, dict[str, str]] = {self.base: {}}
        self.without: set[str] = set()  # files that this kernel does not have
        self.killed: list[Path] = []

    def read(self, path: Path) -> str:
        group, name = path.parent, path.name
        self._there(group)
        if name == "cgroup.controllers":
            return " ".join(sorted(self.handed[group])) + "\n"
        if name == "cgroup.procs":
            return "".join(f"{pid}\n" for pid in self.members[group])
        if name == "cgroup.events":
            return f"populated {int(bool(self.members[group]))}\nfrozen 0\n"
        return self.settings[group].get(name, "") if self._has(group, name) else _fail(errno.ENOENT)

    def write(self, path: Path, text: str) -> None:
        group, name = path.parent, path.name
        self._there(group)
        if name == "cgroup.procs":
            self._move(int(text), group)
        elif name == "cgroup.subtree_control":
            self._hand_down(group, text)
        elif not self._has(group, name):
            _fail(errno.ENOENT)
        elif name == "cgroup.kill":
            self.killed.append(group)
            self.members[group].clear()
        else:
            self.settings[group][name] = text

    def make(self, path: Path) -> None:
        self._there(path.parent)
        if path in self.members:
            _fail(errno.EEXIST)
        self.members[path], self.asked[path], self.settings[path] = set(), set(), {}
        self.handed[path] = set(self.asked[path.parent])

    def remove(self, path: Path) -> None:
        self._there(path)
        if self.members[path] or self.below(path):
            _fail(errno.EBUSY)
        for table in (self.members, self.asked, self.settings, self.handed):
            del table[path]  # type: ignore[attr-defined]

    def below(self, path: Path) -> list[Path]:
        self._there(path)
        return [each for each in self.members if each.parent == path]

    def _move(self, pid: int, group: Path) -> None:
        if self.asked[group]:  # no internal processes
            _fail(errno.EBUSY)
        for members in self.members.values():
            members.discard(pid)
        self.members[group].add(pid)

    def _hand_down(self, group: Path, text: str) -> None:
        asked = {word[1:] for word in text.split()}
        if not asked <= self.handed[group]:
            _fail(errno.ENOENT)
        if self.members[group]:
            _fail(errno.EBUSY)
        self.asked[group] |= asked
        for each in self.below(group):
            self.handed[each] |= asked

    def _has(self, group: Path, name: str) -> bool:
        controller = name.split(".")[0]
        return name not in self.without and (controller == "cgroup" or controller in self.handed[group])

    def _there(self, group: Path) -> None:
        if group not in self.members:
            _fail(errno.ENOENT)


def _fail(number: int) -> str:
    raise OSError(number, os.strerror(number))
