"""The attempts to escape are skipped where bubblewrap does not work. So a sandbox of ours that is broken must not look
like a machine that has none: this fails where bubblewrap is installed and does not work, unless the system forbids it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from offgrid_node.executors import confine, sandbox

# How bubblewrap says that the system lets nobody make such namespaces or mounts: in a container, by sysctl, AppArmor.
FORBIDDEN = (
    "No permissions to create new namespace",
    "No permissions to create a new namespace",
    "Creating new namespace failed",
    "setting up uid map: Permission denied",
    "setting up uid map: Operation not permitted",
    "Can't mount proc on /newroot/proc: Operation not permitted",
    "Failed to make / slave: Operation not permitted",
    "loopback: Failed RTM_NEWADDR: Operation not permitted",
)
BARE = ("--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "--", "/bin/true")


def installed() -> bool:
    return sys.platform == "linux" and any(path.is_file() for path in sandbox.BWRAP_PATHS)


def forbidden(problem: str) -> bool:
    return any(words in problem for words in FORBIDDEN)


@pytest.mark.skipif(not installed(), reason="bubblewrap is not installed")
def test_where_bubblewrap_is_installed_the_sandbox_works_unless_the_system_forbids_it() -> None:
    found, problem = sandbox.find()
    if found is None and forbidden(problem):
        pytest.skip(problem)
    assert found is not None, problem


@pytest.mark.skipif(not installed(), reason="bubblewrap is not installed")
def test_where_bubblewrap_alone_works_nothing_of_ours_breaks_it() -> None:
    """Whatever the words: what a bare bubblewrap may do, ours may."""
    bwrap = next(path for path in sandbox.BWRAP_PATHS if path.is_file())
    bare = subprocess.run([str(bwrap), *BARE], check=False, capture_output=True, text=True, timeout=10)
    if bare.returncode or confine.find_prlimit() is None:
        pytest.skip(bare.stderr.strip() or "util-linux is not installed")
    assert sandbox.find()[1] == ""


def test_a_defect_of_ours_is_no_restriction(monkeypatch: pytest.MonkeyPatch) -> None:
    if not installed():
        pytest.skip("bubblewrap is not installed")
    monkeypatch.setattr(sandbox, "SYSTEM_FOLDERS", ())
    found, problem = sandbox.find()
    assert found is None
    assert not forbidden(problem)
