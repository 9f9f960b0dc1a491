"""The machines that a kit is for, as wheels and markers name them."""

from __future__ import annotations

import sys

import pytest
from packaging.markers import default_environment

from offgrid_node.kit.targets import PLATFORMS, Target, targets


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_linux_takes_wheels_for_any_glibc_up_to_its_own_the_newest_first(machine: str) -> None:
    tags = PLATFORMS[f"linux-{machine}"].tags
    by_glibc = [f"manylinux_2_{minor}_{machine}" for minor in range(28, 4, -1)]  # 2.5 is the oldest of PEP 600
    assert list(tags) == [*by_glibc, *(f"manylinux{old}_{machine}" for old in ("2014", "2010", "1"))]


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="kits are for CPython")
@pytest.mark.parametrize("platform", PLATFORMS)
def test_markers_have_the_names_and_where_it_is_this_machine_the_values_that_pip_finds(platform: str) -> None:
    python = ".".join(map(str, sys.version_info[:2]))
    markers, here = Target(platform, python).markers, {**default_environment()}
    assert markers.keys() <= here.keys()
    asked = ("sys_platform", "platform_machine")
    if [markers[key] for key in asked] == [here[key] for key in asked]:
        del markers["python_full_version"]  # a kit is for all of them
        assert markers.items() <= here.items()


def test_each_platform_comes_with_each_python() -> None:
    made = targets(["macos-arm64", "linux-x86_64"], ["3.11", "3.13"])
    assert [target.name for target in made] == [
        "macos-arm64-3.11", "macos-arm64-3.13", "linux-x86_64-3.11", "linux-x86_64-3.13",
    ]  # fmt: skip
