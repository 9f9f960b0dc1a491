"""Results on their way from executors to their core: nothing in clear at the host, all of it at the core."""

from __future__ import annotations

from typing import Any

import pytest
from large_bench import SALT, STRIPE_BYTES, Network, Side
from log_lines import lines
from msgspec.structs import replace

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.keys import verify
from offgrid_node.protocol.effects import Executed
from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest, PeerFault, Unavailable
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.commands import Arriving
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX, OUTPUT_BYTES_MAX
from offgrid_node.protocol.jobs.receipts import result_digest
from offgrid_node.protocol.objects.manifest import MANIFEST_KIND, Manifest
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.protocol.signing import digest_of
from offgrid_node.services.flow import run
from offgrid_node.services.jobs import adoption as adoption_module
from offgrid_node.services.jobs import results as results_module
from offgrid_node.services.objects.holders import Holders
from offgrid_node.storage.store import Batch

MARKER = b"a marker that no host may keep"
LARGE = MARKER + bytes(INLINE_BYTES_MAX) + MARKER


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def core(network: Network) -> Side:
    return Side("core", network)


@pytest.fixture
def host(network: Network) -> Side:
    return Side("host", network)


def end_for(core: Side, output: bytes, *, error: str = "", log: bytes = MARKER) -> Executed:
    return Executed(core.node_id, "job", 3, output, log, 7, error, "", 10, "wasm")


def sealed(host: Side, core: Side, end: Executed) -> Executed:
    done: list[Executed] = []
    host.results().seal(end, core.key.public_key, done.append)
    [outcome] = done
    return outcome


def report_of(end: Executed) -> jobs_pb2.AttemptReport:
    """As the host's machine makes it."""
    result = jobs_pb2.JobResult(exit_code=end.exit_code, output=end.output, log=end.log)
    return jobs_pb2.AttemptReport(
        job_id=end.job_id, attempt=end.attempt, result=result, sealed=end.sealed, blob=end.blob
    )


def taken(
    core: Side, host: Side, report: jobs_pb2.AttemptReport
) -> list[tuple[bytes, tuple[ObjectAdded, ...]] | Fault]:
    outcomes: list[tuple[bytes, tuple[ObjectAdded, ...]] | Fault] = []
    run(core.adoption.take(host.node_id, report), outcomes.append)
    return outcomes


# ---- small


def test_a_small_result_is_a_letter_that_its_core_opens(host: Side, core: Side) -> None:
    end = sealed(host, core, end_for(core, MARKER))
    assert (end.output, end.log, end.blob) == (b"", b"", b"")
    assert MARKER not in end.sealed
    assert end.digest == result_digest(7, MARKER)
    report = report_of(end)
    assert core.adoption.open(host.node_id, report).blob_key == b""
    assert (report.result.output, report.result.log, report.sealed) == (MARKER, MARKER, b"")


def test_a_letter_is_for_one_attempt_of_one_host(host: Side, core: Side) -> None:
    good = report_of(sealed(host, core, end_for(core, MARKER)))
    for change in ({"job_id": "another"}, {"attempt": 4}, {"sealed": b""}, {"sealed": good.sealed[:-1]}):
        report = jobs_pb2.AttemptReport()
        report.CopyFrom(good)
        for name, value in change.items():
            setattr(report, name, value)
        with pytest.raises(PeerFault, match="not sealed for this core"):
            core.adoption.open(host.node_id, report)
    with pytest.raises(PeerFault, match="not sealed for this core"):
        core.adoption.open(core.node_id, good)


def test_what_this_node_does_for_itself_stays_as_it_is(core: Side) -> None:
    end = end_for(core, MARKER)
    assert sealed(core, core, end) == end


def test_of_what_failed_nothing_but_the_error_is_kept(host: Side, core: Side) -> None:
    end = sealed(host, core, end_for(core, MARKER, error="JobTimeout"))
    assert (end.output, end.log, end.sealed, end.error) == (b"", b"", b"", "JobTimeout")


def test_for_a_core_that_is_gone_nothing_is_kept(host: Side, core: Side) -> None:
    done: list[Executed] = []
    host.results().seal(end_for(core, MARKER), None, done.append)
    assert (done[0].error, done[0].output, done[0].log) == (results_module.NOT_KEPT, b"", b"")


def test_more_than_fits_a_letter_is_refused(host: Side, core: Side) -> None:
    secret = jobs_pb2.ResultSecret(output=bytes(INLINE_BYTES_MAX + 1))
    context = results_module.report_context(host.node_id, core.node_id, "job", 3)
    letter = host.letters.seal(core.key.public_key, context, secret.SerializeToString())
    with pytest.raises(InvalidRequest, match="output: 65537 bytes"):
        core.adoption.open(host.node_id, jobs_pb2.AttemptReport(job_id="job", attempt=3, sealed=letter))


# ---- large


def test_a_large_output_is_sealed_at_the_host_and_an_object_of_the_core(host: Side, core: Side) -> None:
    end = sealed(host, core, end_for(core, LARGE))
    assert (end.output, end.log) == (b"", b"")
    assert MARKER not in end.sealed + end.blob + host.everything()
    report = report_of(end)
    [(digest, (added,))] = taken(core, host, report)
    assert digest == end.digest == result_digest(7, LARGE)
    body = added.body
    assert (body.owner, body.size_bytes, body.stripes) == (core.node_id, len(LARGE), -(-len(LARGE) // STRIPE_BYTES))
    assert Manifest.decode(added.manifest.signed.body) == body
    signed = added.manifest.signed
    assert verify(core.key.public_key, digest_of(MANIFEST_KIND, SALT, signed.body), signed.signature)
    assert (report.result.output_object, report.result.output_bytes) == (body.object_id, len(LARGE))
    assert (report.result.output, report.result.log, report.sealed, report.blob) == (b"", MARKER, b"", b"")
    assert core.blobs.size(body.object_id) == body.sealed_bytes
    assert not core.blobs.all_staged()
    assert MARKER not in core.everything()
    stripes: list[object] = []
    for index in range(body.stripes):
        run(core.reading.stripe(body, core.reading.key_of(added.manifest), index, Holders()), stripes.append)
    assert b"".join(part[0] for part in stripes if isinstance(part, tuple)) == LARGE


def test_the_host_itself_has_no_key_to_what_it_keeps(host: Side, core: Side) -> None:
    end = sealed(host, core, end_for(core, LARGE))
    manifest = objects_pb2.Manifest()
    manifest.signed.body = end.blob
    with pytest.raises(Fault, match="does not open"):
        host.reading.key_of(manifest)
    with pytest.raises(PeerFault):
        host.adoption.open(host.node_id, report_of(end))


def test_what_this_node_does_for_itself_is_an_object_at_once(core: Side) -> None:
    end = sealed(core, core, end_for(core, LARGE))
    assert end.added is not None
    assert (end.output, end.log, end.sealed, end.blob) == (b"", MARKER, b"", b"")
    assert end.added.body.size_bytes == len(LARGE)
    assert core.blobs.size(end.added.body.object_id)
    assert end.digest == result_digest(7, LARGE)


def test_a_host_whose_disk_refuses_reports_that_and_leaves_nothing(host: Side, core: Side) -> None:
    host.blobs.refuse(Unavailable("the disk is gone", reason="DiskError"))
    end = sealed(host, core, end_for(core, LARGE))
    assert (end.error, end.output, end.sealed, end.blob) == (results_module.NOT_KEPT, b"", b"", b"")
    host.blobs.refuse(None)
    assert host.everything() == b""


def test_a_report_that_comes_again_meanwhile_shares_the_pull(host: Side, core: Side, network: Network) -> None:
    end = sealed(host, core, end_for(core, LARGE))
    network.holds = True
    first, second = taken(core, host, report_of(end)), taken(core, host, report_of(end))
    while network.held:
        network.held.pop(0)()
    assert [outcome[0] for outcome in (*first, *second) if isinstance(outcome, tuple)] == [end.digest] * 2
    assert len(network.asked) == len(set(network.asked))


def test_a_report_that_comes_again_later_asks_the_host_for_nothing(host: Side, core: Side, network: Network) -> None:
    end = sealed(host, core, end_for(core, LARGE))
    taken(core, host, report_of(end))
    network.asked.clear()
    [(digest, _)] = taken(core, host, report_of(end))
    assert (digest, network.asked) == (end.digest, [])


def test_a_report_that_comes_again_while_the_first_fails_keeps_what_it_found(host: Side, core: Side) -> None:
    """The second waits in the inbox, which outlives a commit that fails, and is accepted: the blob is the only copy."""
    end = sealed(host, core, end_for(core, LARGE))
    first, second = report_of(end), report_of(end)
    with core.adoption.vouch(host.node_id, second):
        with core.adoption.vouch(host.node_id, first):
            [(_, (added,))] = taken(core, host, first)
            taken(core, host, second)
        core.adoption.drop(added)
        assert core.blobs.size(added.body.object_id)
        row = objects_pb2.ObjectRow(object=objects_pb2.Object(local=True))
        core.store.commit(Batch(writes={(OBJECTS, added.body.object_id.encode()): row.SerializeToString()}))
    assert core.blobs.size(added.body.object_id)


def test_what_an_earlier_report_brought_is_synced_before_it_is_relied_on(host: Side, core: Side) -> None:
    end = sealed(host, core, end_for(core, LARGE))
    taken(core, host, report_of(end))
    core.blobs.fail_sync(0)
    [outcome] = taken(core, host, report_of(end))
    assert isinstance(outcome, Unavailable)
    assert isinstance(taken(core, host, report_of(end))[0], tuple)


def test_a_pull_that_breaks_off_leaves_nothing_and_can_be_begun_again(host: Side, core: Side, network: Network) -> None:
    end = sealed(host, core, end_for(core, bytes(10 * STRIPE_BYTES)))
    gone = Unavailable("gone", reason="NotConnected")
    network.answer = lambda node, answer: gone if len(network.asked) > 5 else answer
    assert taken(core, host, report_of(end)) == [gone]
    assert core.everything() == b""
    network.answer = lambda node, answer: answer
    assert isinstance(taken(core, host, report_of(end))[0], tuple)


class TestAnOutputThatTheCoreHasNoRoomFor:
    """Stays at its host, which reports it again, and the core's owner is told."""

    @pytest.fixture
    def end(self, host: Side, core: Side) -> Executed:
        end = sealed(host, core, end_for(core, bytes(10 * STRIPE_BYTES)))
        core.blobs._limit = 9 * STRIPE_BYTES
        return end

    def test_is_not_fetched_in_vain(self, host: Side, core: Side, network: Network, end: Executed) -> None:
        [fault] = taken(core, host, report_of(end))
        assert isinstance(fault, Exhausted)
        assert fault.reason == "DiskFull"
        assert (network.asked, core.everything()) == ([], b"")

    def test_is_told_of_once_in_the_log_and_in_the_notices_as_long_as_it_is_awaited(
        self, host: Side, core: Side, end: Executed, caplog: pytest.LogCaptureFixture
    ) -> None:
        taken(core, host, report_of(end))
        taken(core, host, report_of(end))
        [notice] = core.adoption.notices
        assert notice.startswith("the result of job job cannot be kept here: its 400160 bytes are too much")
        assert f"{host.node_id} keeps that of attempt 3, and brings it again" in notice
        (line,) = lines(caplog)
        assert "event=result_refused" in line
        assert notice[:80] in line
        told, again = [event for event in core.told if isinstance(event, Arriving) and event.trouble]
        assert told == again, "each time gives its host time to bring it once more"
        assert (told.host, told.key) == (host.node_id, ("job", 3))
        assert told.trouble.startswith("its output cannot be kept here: its 400160 bytes")
        core.ended.add(("job", 3))
        assert core.adoption.notices == ()

    def test_is_taken_over_as_soon_as_there_is_room(self, host: Side, core: Side, end: Executed) -> None:
        taken(core, host, report_of(end))
        core.blobs._limit = 11 * STRIPE_BYTES
        assert isinstance(taken(core, host, report_of(end))[0], tuple)
        assert core.adoption.notices == ()

    def test_is_told_of_as_well_when_the_disk_fills_up_meanwhile(
        self, host: Side, core: Side, network: Network, end: Executed
    ) -> None:
        core.blobs._limit = 11 * STRIPE_BYTES

        def fill(node: str, answer: object) -> object:
            core.blobs._limit = 2 * STRIPE_BYTES
            return answer

        network.answer = fill  # type: ignore[assignment]
        assert isinstance(taken(core, host, report_of(end))[0], Exhausted)
        assert "the disk under memory is full" in core.adoption.notices[0]
        assert core.everything() == b""

    def test_is_not_said_of_a_disk_that_its_host_complains_of(
        self, host: Side, core: Side, network: Network, end: Executed
    ) -> None:
        core.blobs._limit = 11 * STRIPE_BYTES
        network.answer = lambda node, answer: Exhausted("buy a larger disk", reason="DiskFull")
        taken(core, host, report_of(end))
        assert core.adoption.notices == ()

    def test_is_remembered_for_so_many_attempts_only(
        self, host: Side, core: Side, end: Executed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adoption_module, "REFUSED_MAX", 1)
        taken(core, host, report_of(end))
        later = end_for(core, bytes(10 * STRIPE_BYTES))._replace(attempt=4)
        taken(core, host, report_of(sealed(host, core, later)))
        [notice] = core.adoption.notices
        assert "attempt 4" in notice


@pytest.mark.parametrize("lie", ["flip", "short", "swap", "gone", "other"])
def test_what_is_not_the_reported_output_is_refused(lie: str, host: Side, core: Side, network: Network) -> None:
    end = sealed(host, core, end_for(core, LARGE))
    [name] = host.blobs.names()
    if lie == "flip":
        host.blobs.flip(name, STRIPE_BYTES + 100)
    elif lie == "gone":
        host.blobs.delete(name)
    elif lie == "short":
        network.answer = lambda node, answer: objects_pb2.ReadReplicaResponse(data=answer.data[:-1])  # type: ignore[attr-defined]
    elif lie == "swap":
        end = end._replace(blob=replace(Manifest.decode(end.blob), nonce=bytes(16)).encode())
    else:
        end = end._replace(blob=replace(Manifest.decode(end.blob), roots=(bytes(32),)).encode())
        other = Manifest.decode(end.blob).object_id
        host.blobs.append("x", 0, host.blobs.read(name, 0, host.blobs.size(name) or 0))
        host.blobs.finish("x", other)
    [outcome] = taken(core, host, report_of(end))
    assert isinstance(outcome, PeerFault)
    assert core.everything() == b""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"size_bytes": INLINE_BYTES_MAX}, InvalidRequest),
        ({"size_bytes": OUTPUT_BYTES_MAX + 1}, InvalidRequest),
        ({"stripe_bytes": 2 << 20, "size_bytes": 3 << 20}, InvalidRequest),
        ({"stripe_bytes": 1, "size_bytes": 1 << 25}, InvalidRequest),
        ({"sealed_size": bytes(24)}, InvalidRequest),  # a result is not padded
    ],
)
def test_blobs_out_of_bounds_are_not_pulled(
    change: dict[str, Any], fault: type[Fault], host: Side, core: Side, network: Network
) -> None:
    end = sealed(host, core, end_for(core, LARGE))
    [outcome] = taken(core, host, report_of(end._replace(blob=replace(Manifest.decode(end.blob), **change).encode())))
    assert isinstance(outcome, fault)
    assert network.asked == []


def test_a_blob_of_another_node_is_refused(host: Side, core: Side) -> None:
    end = sealed(host, core, end_for(core, LARGE))
    forged = replace(Manifest.decode(end.blob), owner=core.node_id).encode()
    [outcome] = taken(core, host, report_of(end._replace(blob=forged)))
    assert isinstance(outcome, PeerFault)


def test_what_the_machine_refused_is_dropped_unless_a_row_names_it(host: Side, core: Side) -> None:
    [(_, (added,))] = taken(core, host, report_of(sealed(host, core, end_for(core, LARGE))))
    core.adoption.drop(added)
    assert core.everything() == b""
    [(_, (added,))] = taken(core, host, report_of(sealed(host, core, end_for(core, LARGE))))
    row = objects_pb2.ObjectRow(object=objects_pb2.Object(local=True))
    core.store.commit(Batch(writes={(OBJECTS, added.body.object_id.encode()): row.SerializeToString()}))
    core.adoption.drop(added)
    assert core.blobs.size(added.body.object_id)
