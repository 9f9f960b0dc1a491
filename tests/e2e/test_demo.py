"""`offgrid-node demo`: the first thing that anybody runs."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import BIN, Done, eventually, grpcurl_as_buf, offgrid_node, run

from offgrid_node.protocol.jobs.needs import INPUT_BYTES_MAX

NODES = ("core", "broker", "host-a", "host-b", "host-c")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Done, Path]]:
    """What `demo --keep` printed, and where its nodes live; those that it left are stopped."""
    text, home = tmp_path_factory.mktemp("walk") / "walk.txt", tmp_path_factory.mktemp("demo") / "d"
    text.write_text("".join(f"step {n} of a long way\n" for n in range(5_000)))
    done = offgrid_node("demo", text, "--keep", "--dir", home)
    stop = re.search(r"^stop it with: kill ((?:\d+ ?)+)$", done.out, re.MULTILINE)
    pids = [int(pid) for pid in stop[1].split()] if stop else []
    try:
        assert done.code == 0, done.said
        assert len(pids) == 4, done.said  # five less the one that was killed
        yield done, home
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: not any(map(lives, pids)), "the nodes stop")
    finally:
        for pid in filter(lives, pids):
            os.kill(pid, signal.SIGKILL)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.xdist_group("demo")
def test_it_shows_a_job_and_the_death_of_its_host(kept: tuple[Done, Path]) -> None:
    done, home = kept
    # item 7: a real file, counted by a host, with a signed receipt that the core has checked
    assert "counted again here: the same" in done.out
    assert done.out.count("lines 5000, words 30000") == 2, done.said
    for fact in ("receipt  signed by host-", "M tokens", " ms, ", "result digest", "checked by the core"):
        assert fact in done.out, done.said
    # item 9: five processes, kill -9 in the middle, another host finishes, and where everything went
    assert {name for name in NODES if re.search(rf"{name} +\S+ +pid \d+", done.out)} == set(NODES), done.said
    victim = re.search(r"(host-\w) has it; kill -9 \d+", done.out)
    finisher = re.search(r"attempt \d+: (host-\w)\s+completed", done.out)
    assert victim is not None, done.said
    assert finisher is not None, done.said
    assert victim[1] != finisher[1]
    assert f"attempt 1: {victim[1]}  HostDied" in done.out
    assert re.search(r"core's journal on job 2: #\d+ JOB_CREATED.*JOB_COMPLETED", done.out), done.said
    assert re.search(r"broker's journal on job 2: #\d+ JOB_AWARDED", done.out), done.said
    # a large input and result: acked by weight, the maker killed, read back; and what all of it cost
    for what in ("input", "result"):
        assert re.search(rf"{what} +o-\w{{32}}: [\d,]+ bytes, sealed; acked by .*: 3\.0 of 2\.0", done.out), done.said
    assert re.search(r"host-\w made the result; kill -9 \d+", done.out), done.said
    assert "the result, read back from the others: complete" in done.out
    assert done.out.count("is final, confirmed by") == 4, done.said  # job 3's is shown twice
    assert done.out.count("    balances ") == 3, done.said
    assert "fees: the supply" in done.out
    for name in NODES:
        assert (home / name / "data" / "memory.db").is_dir()


@pytest.mark.soak
@pytest.mark.xdist_group("demo_storage")
def test_with_storage_it_shows_a_folder_that_outlives_its_hosts(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / "empty").write_bytes(b"")
    (folder / "deep" / "large").write_bytes(bytes(range(256)) * 40_000)
    done = offgrid_node("demo", "--storage", "--hosts", "5", folder, timeout_s=500)
    assert done.code == 0, done.said
    assert "deep/large: any 12 of 20 shards give it back" in done.out, done.said
    assert "empty: 4 full copies" in done.out, done.said
    assert len(re.findall(r"host-\d \(kill -9 \d+\) held part of", done.out)) == 2, done.said
    assert done.out.count(": the same, after") == 2, done.said
    assert done.out.rstrip().endswith("done."), done.said


@pytest.mark.xdist_group("demo")
def test_kept_running_its_printed_lines_work(kept: tuple[Done, Path]) -> None:
    lines = [line.strip() for line in kept[0].out.partition("the mesh stays up; try")[2].splitlines()]
    ours = [line.split() for line in lines if line.startswith("offgrid ")]
    theirs = [line for line in lines if line.startswith("grpcurl ")]
    assert len(ours) == 5
    assert len(theirs) == 2
    for words in ours:
        done = run([BIN / words[0], *words[1:]])
        assert done.code == 0, done.said
    listed, jobs = (run(grpcurl_as_buf(line)) for line in theirs)
    assert "offgrid.v1.JobService" in listed.out, listed.said
    assert jobs.out.count("JOB_STATE_COMPLETED") == 3, jobs.said


@pytest.mark.xdist_group("demo_refusals")
class TestAFileThatCannotBeUsed:
    """One sentence and no node started: 2 for what is wrong in the command line."""

    def refused(self, file: Path, why: str, *options: str) -> None:
        done = offgrid_node("demo", file, *options)
        assert done.code == 2, done.said
        assert done.out == ""
        assert str(file) in done.err, done.said
        assert why in done.err, done.said

    def test_missing(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "nothing.txt", "does not exist")

    def test_a_folder(self, tmp_path: Path) -> None:
        self.refused(tmp_path, "is a directory")

    def test_a_folder_to_keep_without_files(self, tmp_path: Path) -> None:
        self.refused(tmp_path, "0 files", "--storage")

    def test_a_file_in_place_of_a_folder_to_keep(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        self.refused(tmp_path / "file", "is not a directory", "--storage")

    def test_too_large(self, tmp_path: Path) -> None:
        file = tmp_path / "large.bin"
        file.write_bytes(bytes(INPUT_BYTES_MAX + 1))
        self.refused(file, f"may have {INPUT_BYTES_MAX}")

    def test_without_an_end(self) -> None:
        self.refused(Path("/dev/zero"), f"may have {INPUT_BYTES_MAX}")

    def test_unreadable(self, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root reads everything")
        file = tmp_path / "secret.txt"
        file.write_text("x")
        file.chmod(0)
        self.refused(file, "is not readable")

    def test_a_folder_for_the_demo_that_holds_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "core").write_text("mine")
        done = offgrid_node("demo", "--dir", tmp_path / "d")
        assert done.code != 0
        assert str(tmp_path / "d" / "core") in done.err + done.out, done.said
