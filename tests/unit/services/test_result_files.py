"""Files of a result on their way from a host's executors to the core: packed, sealed, compared, listed."""

from __future__ import annotations

import pytest
from large_bench import Network, Side
from msgspec.structs import replace

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Executed
from offgrid_node.protocol.errors import Fault, InvalidRequest, PeerFault, Unavailable
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.artifacts import FILES_BYTES_MAX, archive_digest, listed, pack, unpack
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX
from offgrid_node.protocol.jobs.receipts import digest_with_files, result_digest
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.services.flow import run
from offgrid_node.services.jobs import results as results_module
from offgrid_node.services.objects.holders import Holders

MARKER = b"a marker that no host may keep"
FILES = (("b/x", MARKER), ("a", bytes(100_000)))
LARGE = MARKER + bytes(INLINE_BYTES_MAX)


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def core(network: Network) -> Side:
    return Side("core", network)


@pytest.fixture
def host(network: Network) -> Side:
    return Side("host", network)


def sealed(host: Side, core: Side, output: bytes, files: tuple[tuple[str, bytes], ...] = FILES) -> Executed:
    done: list[Executed] = []
    end = Executed(core.node_id, "job", 3, output, b"log", 7, "", "", 10, "wasm", files=files)
    host.results().seal(end, core.key.public_key, done.append)
    [outcome] = done
    return outcome


def report_of(end: Executed) -> jobs_pb2.AttemptReport:
    """As the host's machine makes it."""
    result = jobs_pb2.JobResult(exit_code=end.exit_code)
    return jobs_pb2.AttemptReport(
        job_id="job", attempt=3, result=result, sealed=end.sealed, blob=end.blob, files_blob=end.files_blob
    )


def taken(core: Side, host: Side, report: jobs_pb2.AttemptReport) -> tuple[bytes, tuple[ObjectAdded, ...]] | Fault:
    outcomes: list[tuple[bytes, tuple[ObjectAdded, ...]] | Fault] = []
    run(core.adoption.take(host.node_id, report), outcomes.append)
    [outcome] = outcomes
    return outcome


@pytest.mark.parametrize("output", [b"small", LARGE])
def test_files_become_an_object_of_the_core_and_the_digest_covers_them(host: Side, core: Side, output: bytes) -> None:
    end = sealed(host, core, output)
    assert (end.output, end.log, end.files) == (b"", b"", ())
    assert MARKER not in end.sealed + end.files_blob + host.everything()
    report = report_of(end)
    outcome = taken(core, host, report)
    assert not isinstance(outcome, Fault), outcome
    digest, added = outcome
    archive = pack(FILES)
    assert digest == end.digest == digest_with_files(result_digest(7, output), archive_digest(archive))
    assert [each.name for each in added] == (["job.output"] if output is LARGE else []) + ["job.files"]
    result = report.result
    assert (result.files_object, result.files_digest) == (added[-1].body.object_id, archive_digest(archive))
    assert list(result.files) == listed(FILES)
    assert (report.blob, report.files_blob, report.sealed) == (b"", b"", b"")
    assert result.output == (b"" if output is LARGE else output)
    body, read = added[-1].body, list[object]()
    for index in range(body.stripes):
        run(core.reading.stripe(body, core.reading.key_of(added[-1].manifest), index, Holders()), read.append)
    assert unpack(b"".join(part[0] for part in read)) == sorted(FILES)  # type: ignore[index]


def test_what_this_node_leaves_for_itself_becomes_an_object_at_once(core: Side) -> None:
    end = sealed(core, core, b"small")
    assert end.files_added is not None
    assert (end.output, end.sealed, end.blob, end.files_blob, end.added) == (b"small", b"", b"", b"", None)
    assert (end.files_added.name, list(end.result_files)) == ("job.files", listed(FILES))
    assert end.files_digest == archive_digest(pack(FILES))


def test_without_files_a_result_is_what_it_was(host: Side, core: Side) -> None:
    assert sealed(host, core, b"small", ()).digest == result_digest(7, b"small")


def test_an_archive_that_no_host_would_make_is_refused(host: Side, core: Side) -> None:
    for name in ("../up", "/etc/passwd"):
        outcome = taken(core, host, report_of(sealed(host, core, b"", ((name, b"x"),))))
        assert isinstance(outcome, PeerFault)
        assert outcome.reason == "WrongOutput"
    assert core.everything() == b""


def test_when_the_second_of_two_cannot_be_had_nothing_stays(host: Side, core: Side) -> None:
    end = sealed(host, core, LARGE)
    name = Manifest.decode(end.files_blob).object_id
    host.blobs.flip(name, 100)
    assert isinstance(taken(core, host, report_of(end)), PeerFault)
    assert core.everything() == b""


@pytest.mark.parametrize("output", [b"small", LARGE])
def test_what_a_host_cannot_keep_is_not_reported(host: Side, core: Side, output: bytes) -> None:
    host.blobs.refuse(Unavailable("the disk is gone", reason="DiskError"))
    end = sealed(host, core, output)
    assert (end.error, end.files, end.files_blob, end.sealed) == (results_module.NOT_KEPT, (), b"", b"")


def test_too_large_an_archive_is_not_fetched(host: Side, core: Side, network: Network) -> None:
    end = sealed(host, core, b"")
    network.asked.clear()
    huge = replace(Manifest.decode(end.files_blob), size_bytes=2 * FILES_BYTES_MAX).encode()
    outcome = taken(core, host, report_of(end._replace(files_blob=huge)))
    assert isinstance(outcome, InvalidRequest)
    assert network.asked == []
