"""A job's control group: what is asked of the kernel for it, and what is done when the kernel says no."""

from __future__ import annotations

import pytest
from cgroup_files import ROOT, CgroupFiles

from offgrid_node.executors.cgroups import JOIN, Bounds, Group, Groups

BOUNDS = Bounds(memory_bytes=512 * 2**20, processes=64, cpu_percent=150)


def groups_of(files: CgroupFiles) -> Groups:
    """In a folder that has all controllers that there are."""
    controllers = frozenset(files.handed[files.base])
    files.asked[files.base] |= controllers
    folder = files.base / "jobs"
    files.make(folder)
    files.asked[folder] |= controllers
    return Groups(folder, controllers, files)


def settings(files: CgroupFiles, group: Group) -> dict[str, str]:
    return files.settings[group.folder]


def test_a_jobs_group_has_its_bounds_before_anything_is_in_it() -> None:
    files = CgroupFiles()
    files.without.add("memory.swap.max")
    group = groups_of(files).make(BOUNDS)
    assert settings(files, group) == {
        "cgroup.max.descendants": "0",
        "memory.max": str(512 * 2**20),
        "memory.oom.group": "1",
        "pids.max": "256",  # threads count as well
        "cpu.max": "150000 100000",
    }
    assert group.bounds == BOUNDS


def test_swap_is_no_way_around_the_bound() -> None:
    files = CgroupFiles()
    assert settings(files, groups_of(files).make(BOUNDS))["memory.swap.max"] == "0"


def test_all_processors_are_no_setting() -> None:
    files = CgroupFiles()
    assert "cpu.max" not in settings(files, groups_of(files).make(Bounds(2**30, 64)))


def test_without_controllers_a_group_is_for_killing_and_counting() -> None:
    files = CgroupFiles(controllers="")
    group = groups_of(files).make(BOUNDS)
    assert settings(files, group) == {"cgroup.max.descendants": "0"}
    assert group.bounds is None


@pytest.mark.parametrize("missing", ["memory.max", "pids.max", "cpu.max", "memory.oom.group"])
def test_a_group_that_cannot_be_as_it_must_is_none(missing: str) -> None:
    """Never weaker in silence: the job fails instead."""
    files = CgroupFiles()
    groups = groups_of(files)
    files.without.add(missing)
    before = set(files.members)
    with pytest.raises(OSError, match="No such file"):
        groups.make(BOUNDS)
    assert set(files.members) == before


def test_killing_ends_all_and_removing_leaves_nothing() -> None:
    files = CgroupFiles()
    group = groups_of(files).make(BOUNDS)
    files.members[group.folder] |= {5, 6}
    assert sorted(group.pids()) == ["5", "6"]
    group.kill()
    assert group.pids() == []
    group.remove()
    assert group.folder not in files.members
    group.remove()  # twice is harmless


def test_what_the_kernel_counted_is_told() -> None:
    files = CgroupFiles()
    group = groups_of(files).make(BOUNDS)
    assert (group.cpu_us(), group.memory_peak_bytes(), group.over()) == (0, 0, "")
    said = settings(files, group)
    said["cpu.stat"] = "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n"
    said["memory.peak"] = "99\n"
    said["memory.events"] = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 1\n"
    assert (group.cpu_us(), group.memory_peak_bytes()) == (1234, 99)
    assert group.over() == "its processes took more than the 536870912 bytes of memory that are allowed"


def test_a_program_is_put_inside_before_it_begins() -> None:
    group = Group(ROOT / "jobs/7", None, CgroupFiles())
    assert group.joining(["/bin/wc", "-w"]) == [
        "/bin/sh",
        "-c",
        JOIN,
        "/sys/fs/cgroup/jobs/7/cgroup.procs",
        "/bin/wc",
        "-w",
    ]
