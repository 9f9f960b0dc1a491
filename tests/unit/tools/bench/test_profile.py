"""Which part of the program a sampled stack is counted to."""

from __future__ import annotations

from collections import Counter

import pytest

from offgrid_tools.bench.profile import DISK, OTHER, RATE, name_of, sort_stacks, table

LOOP = ["run (asyncio/runners.py:118)", "BaseEventLoop._run_once (asyncio/base_events.py:1922)"]
TURN = [*LOOP, "Driver._turn (offgrid_node/driver.py:74)", "Runtime.gather (offgrid_node/runtime.py:251)"]
STEP = [*TURN, "Core.on_award (offgrid_node/protocol/jobs/core.py:90)"]
COMMIT = [*TURN[:3], "LmdbStore._write (offgrid_node/storage/lmdb.py:259)", "_mdb_txn_commit (mdb.c:4000)"]


@pytest.mark.parametrize(
    ("frames", "name"),
    [
        (STEP, "machines"),
        ([*STEP, "malloc (libc.so.6)"], "machines"),
        ([*STEP, "__create_fn__.<locals>.__init__ (<string>:4)"], "machines"),
        ([*STEP, "crypto_sign (nacl/bindings/crypto_sign.py:95)", "0x7f32 (_sodium.abi3.so)"], "signing and digests"),
        ([*STEP, "PyUpb_Message_SerializeToString (google/_upb/_message.abi3.so)"], "protobuf"),
        (TURN, "runtime"),
        ([*COMMIT, "pwrite64 (libc.so.6)"], "LMDB"),
        ([*COMMIT, "fdatasync (libc.so.6)"], DISK),
        ([*COMMIT, "mdb_env_write_meta (mdb.c:4700)", "pwrite64 (libc.so.6)"], DISK),
        ([*LOOP, "0x7f32de07f0e4 (grpc/_cython/cygrpc.cpython-311-x86_64-linux-gnu.so)"], "carriers and TLS"),
        ([*LOOP, "EpollSelector.select (selectors.py:468)", "epoll_wait (libc.so.6)"], None),
        (["_worker (concurrent/futures/thread.py:81)", "PyThread_acquire_lock_timed (libpython3.11.so)",
          "0x7f2c (libc.so.6)", "0x7f2d (libc.so.6)"], None),
        (LOOP, "event loop and threads"),
        (["0x7f2c (libc.so.6)"], OTHER),
    ],
)  # fmt: skip
def test_the_innermost_frame_that_is_known_decides(frames: list[str], name: str | None) -> None:
    assert name_of(frames) == name


def test_samples_that_wait_are_left_out() -> None:
    lines = [f"{';'.join(STEP)} 3", f"{';'.join([*LOOP, 'epoll_wait (libc.so.6)'])} 40", f"{';'.join(TURN)} 1"]
    assert sort_stacks(lines) == {"machines": 3, "runtime": 1}


def test_the_table_shares_out_the_processor_time_of_a_job() -> None:
    shown = table({"core": Counter({"machines": 3, "runtime": 1, DISK: RATE})}, {"core": 200.0}, 10)
    rows = dict(line.strip("| ").split(" | ") for line in shown.splitlines())
    assert rows["machines"] == "150"
    assert rows["runtime"] == "50"
    assert rows["**all that computes**"] == "**200**"
    assert rows[DISK] == "10% of the time"
