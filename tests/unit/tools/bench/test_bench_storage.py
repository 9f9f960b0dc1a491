"""The parts of `bench storage`: what a code may lose, each step alone, whose time is whose, figures and their goals."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from offgrid_node.coding.choice import choose
from offgrid_node.protocol.objects.manifest import Code
from offgrid_tools.bench import storage, storage_bounds, storage_memory
from offgrid_tools.bench.carriers import measure_carriers
from offgrid_tools.bench.document import DOCUMENT
from offgrid_tools.bench.figures import read_goals
from offgrid_tools.bench.processes import own_pid
from offgrid_tools.bench.profile import name_of
from offgrid_tools.bench.storage_bounds import cut, measure_bounds, rows_of, slowest
from offgrid_tools.bench.storage_ours import losable as losable_of

BULK = ["_worker (concurrent/futures/thread.py:81)", "run (offgrid_node/services/bulk.py:90)"]


@pytest.mark.parametrize(
    ("code", "hosts", "losable"),
    [
        (Code(1, 3), 3, 2),
        (Code(1, 1), 1, 0),
        (Code(12, 20), 20, 8),
        (Code(12, 20), 10, 4),
        (Code(12, 20), 6, 2),
        (Code(12, 20), 2, 0),
    ],
)
def test_as_many_hosts_may_be_lost_as_leave_enough_shards(code: Code, hosts: int, losable: int) -> None:
    assert losable_of(code, hosts) == losable


def test_rows_are_the_stripe_filled_up() -> None:
    assert [bytes(row) for row in cut(b"abcdefg", 3)] == [b"abc", b"def", b"g\0\0"]
    assert cut(b"abc", 1) == [b"abc"]


def test_hosts_take_in_what_the_code_makes_of_it() -> None:
    stripes = [b"%d" % number for number in range(6)]
    assert len(rows_of(stripes, Code(1, 3))) == 18
    assert len(rows_of(stripes, Code(12, 20))) == 10


@pytest.mark.parametrize("code", [Code(1, 3), Code(2, 3)])
def test_each_step_is_measured_alone(code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_bounds, "ROUNDS", 1)
    bounds = measure_bounds(tmp_path, code, 3 << 20, 2)
    steps = {"encrypt", "hash", "fsync", "transfer"} | ({"encode"} if code.needed > 1 else set())
    assert bounds.keys() == steps | {"together"}
    assert all(rate > 0 for rate in bounds.values())
    assert [*tmp_path.iterdir()] == [], "nothing is left over"
    assert {f"bound_{name}_mb_per_s" for name in bounds} <= read_goals()["storage"].keys()


def test_pieces_are_carried_by_what_nodes_use_and_by_grpc() -> None:
    (figure,) = measure_carriers(pieces=2, rounds=1)
    assert figure.value > 0
    assert figure.peer_value is not None
    assert figure.name in read_goals()["storage"]


def test_the_parity_that_is_timed_is_the_coders() -> None:
    stripe = os.urandom(100)
    assert choose().coder.encode(2, 3, cut(stripe, 2), [0, 1]) == [stripe[:50], stripe[50:]]


def test_the_slowest_is_the_bound() -> None:
    assert slowest({"encrypt": 3.0, "fsync": 1.0, "hash": 2.0, "together": 0.5}) == ("fsync", 1.0)


ADD = "add (offgrid_node/services/objects/uploads.py:156)"
SEAL = ["add (offgrid_node/services/objects/sealing.py:70)", "seal_stripe (offgrid_node/keys/stripes.py:40)"]
HASH = "hash_shards (offgrid_node/protocol/objects/shards.py:90)"
DIGEST = [
    "stripe_digest (offgrid_node/protocol/objects/manifest.py:110)",
    "digest_of (offgrid_node/protocol/signing.py:1)",
]
RUST = "0x7f32 (cryptography/_rust.abi3.so)"


@pytest.mark.parametrize(
    ("frames", "name"),
    [
        ([*BULK, ADD, "blake2b_update (_blake2.so)"], "digest of the plaintext"),
        ([*BULK, ADD, *SEAL, RUST], "seal and open"),
        ([*BULK, HASH, *DIGEST], "row digests"),
        ([*BULK, HASH, "add (offgrid_node/protocol/objects/shards.py:60)", RUST], "possession"),
        ([*BULK, "_write_at (offgrid_node/storage/blobs.py:300)", "write (libc.so.6)"], "files"),
        ([*BULK, "encode (offgrid_node/coding/isal.py:60)"], "code"),
    ],
)
def test_a_puts_own_work_is_told_apart(frames: list[str], name: str) -> None:
    assert name_of(frames, storage.FLOORS) == name


def test_every_figure_has_a_goal_and_every_table_a_place() -> None:
    for module, group in ((storage, "storage"), (storage_memory, "storage1gb")):
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        first = [call.args[0] for call in calls if call.func.id in ("Figure", "grown")]  # type: ignore[attr-defined]
        named = {argument.value for argument in first if isinstance(argument, ast.Constant)}
        assert named
        assert named <= read_goals()[group].keys()
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"<!-- bench {name} -->\n" in text for name in ("storage", "storage profile", "storage1gb"))


def test_what_comes_back_as_something_else_is_no_figure() -> None:
    assert storage.read(lambda wanted: b"data", "o-1", b"data") >= 0
    with pytest.raises(RuntimeError, match="o-1 came back"):
        storage.read(lambda wanted: b"other", "o-1", b"data")


def test_what_grew_is_told_over_idle() -> None:
    idle = storage_memory.peaks({"here": own_pid()}, lambda: None)
    most = storage_memory.peaks({"here": own_pid()}, lambda: None)
    figure = storage_memory.grown("put_rss_mb_over_idle", idle, most)
    assert most.keys() == idle.keys()
    assert figure.value == most["here"] - idle["here"]
