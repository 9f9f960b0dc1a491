"""Which control groups a node finds at its start, and what becomes of those that an earlier life of it left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cgroup_files import ROOT, CgroupFiles

from offgrid_node.executors.cgroup_setup import JOBS_PREFIX, NODE_NAME, Owner, _digest_of, find, own_group
from offgrid_node.executors.cgroups import Bounds, Groups

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")

SERVICE = "/system.slice/offgrid.service"
MOUNTED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
BOUNDS = Bounds(memory_bytes=512 * 2**20, processes=64, cpu_percent=150)


@pytest.fixture
def about(tmp_path: Path) -> Path:
    """A /proc/self of a process that is a service."""
    folder = tmp_path / "self"
    folder.mkdir()
    (folder / "mountinfo").write_text(MOUNTED)
    (folder / "cgroup").write_text(f"0::{SERVICE}\n")
    return folder


def found(tmp_path: Path, about: Path, files: CgroupFiles) -> Groups:
    groups, problem = find(tmp_path, files, about)
    assert groups is not None, problem
    return groups


# ---- where


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "folder"),
    [
        (MOUNTED, f"0::{SERVICE}\n", f"/sys/fs/cgroup{SERVICE}"),
        (MOUNTED, "0::/\n", "/sys/fs/cgroup"),
        # hybrid: the controllers elsewhere, in version 1
        (
            HYBRID,
            "4:memory:/deep/down\n0::/\n",
            "/sys/fs/cgroup/unified",
        ),
        # a part of the tree alone is mounted, as in a container without a namespace of its own
        ("30 23 0:26 /lxc/a /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "0::/lxc/a/b\n", "/sys/fs/cgroup/b"),
        (r"30 23 0:26 / /odd\040place rw - cgroup2 cgroup rw" + "\n", "0::/a\n", "/odd place/a"),
        ("30 23 0:26 /lxc/a /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "0::/lxc/ab\n", None),
        (MOUNTED, "0::/../outside\n", None),
        (MOUNTED, "4:memory:/only\n", None),
        ("35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "0::/\n", None),
        ("", "", None),
    ],
)
def test_where_a_process_is(mountinfo: str, cgroup: str, folder: str | None) -> None:
    assert own_group(mountinfo, cgroup) == (Path(folder) if folder else None)


# ---- at the start


def test_a_service_of_its_own_gets_bounds_and_moves_aside(tmp_path: Path, about: Path) -> None:
    files = CgroupFiles()
    groups, problem = find(tmp_path, files, about)
    assert (groups is not None, problem) == (True, "")
    assert found(tmp_path, about, files).bounds
    assert found(tmp_path, about, files).holds_cpu
    assert files.members[files.base] == set()
    assert files.members[files.base / NODE_NAME] == {os.getpid()}


def test_a_node_that_starts_anew_where_it_had_moved_to_finds_the_same(tmp_path: Path, about: Path) -> None:
    files = CgroupFiles()
    first = found(tmp_path, about, files)
    (about / "cgroup").write_text(f"0::{SERVICE}/{NODE_NAME}\n")
    assert found(tmp_path, about, files)._folder == first._folder


def test_where_somebody_else_is_in_the_same_group_all_stays_as_it_was(tmp_path: Path, about: Path) -> None:
    files = CgroupFiles(others=1)
    groups, problem = find(tmp_path, files, about)
    assert groups is not None
    assert not groups.bounds
    assert "not its own" in problem
    assert os.getpid() in files.members[files.base]
    assert files.base / NODE_NAME not in files.members


@pytest.mark.parametrize(
    ("controllers", "bounds", "cpu", "said"),
    [
        ("cpu memory pids", True, True, ""),
        ("memory pids", True, False, ""),
        ("cpu memory", False, False, "no controller for pids"),
        ("cpu", False, False, "no controller for memory and pids"),
        ("", False, False, "no controller for memory and pids"),
    ],
)
def test_what_the_kernel_holds_is_what_it_has_controllers_for(
    tmp_path: Path, about: Path, controllers: str, bounds: bool, cpu: bool, said: str
) -> None:
    groups, problem = find(tmp_path, CgroupFiles(controllers=controllers), about)
    assert groups is not None
    assert (groups.bounds, groups.holds_cpu) == (bounds, cpu)
    assert said in problem
    assert bool(said) == bool(problem)


def test_a_kernel_that_cannot_kill_a_group_as_one_has_none(tmp_path: Path, about: Path) -> None:
    files = CgroupFiles()
    files.without.add("cgroup.kill")
    groups, problem = find(tmp_path, files, about)
    assert (groups, problem) == (None, "its control groups cannot be killed as one: that needs Linux 5.14")


def test_groups_that_cannot_be_made_are_none(tmp_path: Path, about: Path) -> None:
    class ReadOnly(CgroupFiles):
        def make(self, path: Path) -> None:
            raise OSError(30, "Read-only file system")

    assert find(tmp_path, ReadOnly(), about) == (None, "no control group can be made: Read-only file system")


def test_what_an_earlier_life_left_is_killed_and_no_other_nodes(tmp_path: Path, about: Path) -> None:
    files = CgroupFiles()
    left = found(tmp_path, about, files).make(BOUNDS)
    other_dir = tmp_path / "other"
    other_dir.mkdir()
    others = found(other_dir, about, files).make(BOUNDS)
    files.members[left.folder].add(77)
    files.members[others.folder].add(78)
    files.killed.clear()
    found(tmp_path, about, files)
    assert left.folder in files.killed
    assert left.folder not in files.members
    assert files.members[others.folder] == {78}


def folder_of(owner: Owner, digest: str = "0" * 12) -> Path:
    return ROOT / SERVICE.lstrip("/") / f"{JOBS_PREFIX}{digest}-{owner}"


def left_by(files: CgroupFiles, owner: Owner) -> Path:
    """A folder with one job's group that is empty."""
    folder = folder_of(owner)
    files.make(folder)
    files.make(folder / "1")
    return folder


def dead() -> Owner:
    """A process's number that is nobody's any more."""
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    return Owner.ourselves()._replace(pid=ended.pid)


def test_the_folder_of_a_node_that_is_gone_is_removed(tmp_path: Path, about: Path) -> None:
    files = CgroupFiles()
    folder = left_by(files, dead())
    found(tmp_path, about, files)
    assert folder not in files.members
    assert folder / "1" not in files.killed


def test_a_number_that_is_another_process_by_now_is_no_owner(tmp_path: Path, about: Path) -> None:
    files, ourselves = CgroupFiles(), Owner.ourselves()
    folder = left_by(files, ourselves._replace(began=ourselves.began - 1))
    found(tmp_path, about, files)
    assert folder not in files.members


@pytest.mark.parametrize("in_sight", [True, False])
def test_the_folder_of_a_node_that_may_live_stays(tmp_path: Path, about: Path, in_sight: bool) -> None:
    files = CgroupFiles()
    folder = left_by(files, Owner.ourselves() if in_sight else dead()._replace(namespace=1))
    found(tmp_path, about, files)
    assert folder / "1" in files.members


def test_what_still_runs_of_a_node_that_is_gone_is_its_own_to_end(tmp_path: Path, about: Path) -> None:
    files = CgroupFiles()
    folder = left_by(files, dead())
    files.members[folder / "1"].add(77)
    found(tmp_path, about, files)
    assert files.members[folder / "1"] == {77}


def test_a_name_that_says_no_owner_is_left_alone(tmp_path: Path, about: Path) -> None:
    files = CgroupFiles()
    folder = ROOT / SERVICE.lstrip("/") / f"{JOBS_PREFIX}{'0' * 12}-1-x-2"
    files.make(folder)
    found(tmp_path, about, files)
    assert folder in files.members


def test_an_earlier_life_under_another_number_is_ended_as_well(tmp_path: Path, about: Path) -> None:
    files = CgroupFiles()
    folder = folder_of(dead(), _digest_of(tmp_path))
    files.make(folder)
    files.make(folder / "1")
    files.members[folder / "1"].add(77)
    found(tmp_path, about, files)
    assert folder / "1" in files.killed
    assert folder not in files.members


def test_the_folder_goes_when_the_node_does(tmp_path: Path, about: Path) -> None:
    files = CgroupFiles()
    groups = found(tmp_path, about, files)
    groups.close()
    assert groups._folder not in files.members


def test_every_node_has_a_folder_of_its_own(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert _digest_of(tmp_path) != _digest_of(other)
