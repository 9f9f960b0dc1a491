"""The stores on disk when the disk or the process dies under it: real processes, real signals, real failing calls."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.logged import LoggedStore

HERE = Path(__file__).parent
CHILD = [sys.executable, str(HERE / "store_child.py")]
MIB = 1024 * 1024
KILLS = 12  # of a whole node, `soak kills` and `soak state-kills`

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="preloading and mount namespaces are Linux's")


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.endswith("}")]


def run(*arguments: str, before: tuple[str, ...] = (), **environment: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*before, *CHILD, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return lines(done.stdout)


@pytest.mark.parametrize(("mode", "kind"), [("for-ever", LmdbStore), ("for-ever-logged", LoggedStore)])
def test_killed_at_any_moment_nothing_acked_is_lost(
    tmp_path: Path, mode: str, kind: type[LmdbStore | LoggedStore]
) -> None:
    for kill in range(KILLS):
        with subprocess.Popen([*CHILD, mode, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            first = child.stdout.readline()
            timer = threading.Timer(0.03 * kill / KILLS, child.kill)
            timer.start()
            acked = lines(first + child.stdout.read())[-1]["seq"]
            timer.join()
        with contextlib.closing(kind.open(tmp_path, limit_bytes=512 * MIB)) as store:
            held = store.journal_seq // 2
            assert store.journal_seq in (acked, acked + 2)
            assert store.verify() == []
            bodies = [b"%d:" % n + bytes([n % 256]) * (n % 7 * 700) for n in range(held)]
            assert [event for _, event in store.events()] == [e for body in bodies for e in (body, b"+" + body)]
            assert dict(store.scan("jobs")) == {b"%08d" % n: body for n, body in enumerate(bodies)}
            assert store.get("last", b"one") == bodies[-1]


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_file_that_may_not_grow_refuses_and_keeps_what_is_there(tmp_path: Path) -> None:
    [after] = run("file-limit", str(tmp_path / "store"))
    assert (after["type"], after["reason"]) == ("Unavailable", "DiskError")
    assert after["retry_ms"]
    assert after["batches"] > 20
    assert_whole(after)


@linux_only
@pytest.mark.root
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_full_disk_refuses_names_the_cause_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=4m none "$0" && head -c 1000000 /dev/zero > "$0/ballast" && exec "$@"'
    full, later = run(
        "until-refused", str(tmp_path / "store"), before=("unshare", "--mount", "sh", "-c", mount, str(tmp_path))
    )
    assert (full["type"], full["reason"]) == ("Unavailable", "DiskError")
    assert "the disk may be full" in full["message"]
    assert f"bytes free at {tmp_path / 'store'}" in full["message"]
    assert full["batches"] > 10
    assert_whole(full)
    assert later["batches"] == full["batches"] + 1
    assert_whole(later)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, HERE / "fault_shim.c", "-ldl"], check=True)
    return library


@linux_only
@pytest.mark.parametrize("kind", ["sync", "write", "meta", "meta-late"])
def test_a_failing_disk_call_loses_nothing_and_shows_nothing_unconfirmed(tmp_path: Path, shim: Path, kind: str) -> None:
    control = tmp_path / "fault"
    *under, after = run(kind, str(tmp_path / "store"), str(control), LD_PRELOAD=str(shim), OFFGRID_FAULT=str(control))
    for step in under:
        if kind == "meta-late":  # the batch reached the disk before the error: confirmed once it is synced
            assert step["type"] == ""
        else:
            assert (step["type"], step["reason"], step["batches"]) == ("Unavailable", "DiskError", 10)
        assert_whole(step)
    assert_whole(after)
    with contextlib.closing(LmdbStore.open(tmp_path / "store", limit_bytes=MIB * 512)) as store:
        assert store.journal_seq == after["seq"]
        assert store.verify() == []


@linux_only
def test_what_may_not_be_on_the_disk_is_not_served(tmp_path: Path, shim: Path) -> None:
    """The batch is in the file, the disk said no, and says no again when asked to sync it: nobody may see it yet."""
    control = tmp_path / "fault"
    *under, after = run(
        "meta-sync", str(tmp_path / "store"), str(control), LD_PRELOAD=str(shim), OFFGRID_FAULT=str(control)
    )
    assert under == [{"type": "Unavailable", "reading": "Unavailable", "reason": "DiskError"}] * 3
    assert after["seq"] == 2 * 12  # ten, the one that the disk did take, and one after the disk recovered
    assert after["verify"] == []


def assert_whole(step: dict[str, Any]) -> None:
    """The store held exactly the batches that were confirmed."""
    count = step["batches"]
    assert (step["seq"], step["events"], step["rows"]) == (2 * count, 2 * count, count)
    assert step["right"]
    assert step["verify"] == []
