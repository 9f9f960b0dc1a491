"""What the system grants a node: kinds of file systems, open files, swap; told as /proc tells it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from offgrid_node.doctor import State, machine
from offgrid_node.doctor.machine import file_system_of
from offgrid_node.doctor.running import examine
from offgrid_node.doctor.subject import Subject
from offgrid_node.founding import found

MOUNTS = [
    "25 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw",
    "98 25 0:44 / /mnt/nas rw,relatime shared:51 - nfs4 nas:/export rw,vers=4.2",
    r"99 25 8:17 / /media/USB\040stick rw,nosuid - vfat /dev/sdb1 rw,uid=1000",
]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/ada/node", "ext4"),
        ("/mnt/nas/node", "nfs4"),
        ("/mnt/nas2/node", "ext4"),
        ("/media/USB stick/node", "vfat"),
    ],
)
def test_a_path_lies_on_what_is_mounted_nearest_above_it(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS)[0] == kind


def test_of_two_at_one_place_the_later_is_seen() -> None:
    over = "100 98 0:50 / /mnt/nas rw - ext4 /dev/sdc1 rw"
    assert file_system_of(Path("/mnt/nas/node"), [*MOUNTS, over])[0] == "ext4"


def said(subject: Subject, name: str) -> list[tuple[State, str]]:
    checks = [check for check in machine.CHECKS if check.name == name]
    return [(each.state, each.sentence) for each in examine(subject, checks, 60.0)]


def proc(
    folder: Path, pid: int, *, swap_kb: int = 0, most: int = 1024, used: int = 0, free: str = "MemAvailable: 4000000 kB"
) -> Path:
    """As much of /proc as is asked for, in a folder of its own."""
    (folder / str(pid) / "fd").mkdir(parents=True)
    (folder / str(pid) / "status").write_text(f"Name:\toffgrid-node\nVmSwap:\t{swap_kb:>8} kB\n")
    head = "Limit                     Soft Limit           Hard Limit           Units\n"
    (folder / str(pid) / "limits").write_text(f"{head}Max open files            {most:<20} 1048576 files\n")
    for number in range(used):
        (folder / str(pid) / "fd" / str(number)).touch()
    (folder / "meminfo").write_text(f"MemTotal: 8000000 kB\n{free}\n")
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
@pytest.mark.parametrize(
    ("check", "facts", "state", "sentence"),
    [
        ("open-files", {"most": 1024, "used": 12}, State.OK, "enough files"),
        ("open-files", {"most": 256, "used": 12}, State.WARNING, "the node may have only 256 files open"),
        ("open-files", {"most": 1024, "used": 900}, State.FAULT, "has 900 of 1024 files open"),
        ("memory", {"swap_kb": 20_000}, State.OK, "memory is left"),
        ("memory", {"free": "MemAvailable: 40000 kB"}, State.WARNING, "39 MiB of memory are left"),
        ("memory", {"free": ""}, State.OK, "memory is left"),
        ("memory", {"swap_kb": 400_000}, State.WARNING, "390 MiB of the node lie in swap"),
    ],
)
def test_what_the_running_node_may_have_and_has(
    check: str, facts: dict[str, Any], state: State, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "PROC", proc(tmp_path, 77, **facts))
    subject = cast("Subject", SimpleNamespace(pid=77, node=lambda *words: "offgrid-node", lacks=lambda needs: False))
    [(found_state, found_sentence)] = said(subject, check)
    assert found_state is state
    assert sentence in found_sentence


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
@pytest.mark.parametrize(
    ("kind", "sentence"),
    [("cifs", "network's file system (cifs, "), ("vfat", "file system without owners (vfat, "), ("xfs", "")],
)
def test_a_store_on_a_disk_that_does_not_suit_it(
    kind: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "node"
    found(folder, "home", "attic", ("core",), {})
    (tmp_path / "proc" / "self").mkdir(parents=True)
    line = f"98 25 0:44 / {os.fspath(folder).replace(' ', chr(92) + '040')} rw - {kind} disk rw"
    (tmp_path / "proc" / "self" / "mountinfo").write_text("\n".join([*MOUNTS, line]))
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    [(state, told)] = said(Subject(folder, {}), "file-system")
    assert state is (State.WARNING if sentence else State.OK)
    assert sentence in told
