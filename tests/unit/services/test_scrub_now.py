"""ScrubReplicas: all that a host keeps is read now, and whoever asked sees how far it is and what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bulk_world import World
from rotting import DATA, flip, kept_file, put, with_files

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import FailedPrecondition, Fault, InvalidRequest, NotFound, Unavailable
from offgrid_node.protocol.objects.tables import REPLICAS, replica_key
from offgrid_node.services.objects import background, scrub_now
from offgrid_node.services.stream import Stream
from offgrid_node.storage import blobs

Request, Response = objects_pb2.ScrubReplicasRequest, objects_pb2.ScrubReplicasResponse
RATE = scrub_now.BYTES_PER_S_MIN


class Host:
    """One, and who asks it."""

    def __init__(self, folder: Path) -> None:
        self.world, self.folder = World(2), folder
        self.node = with_files(self.world, folder)

    def begin(self, wanted: str = "", bytes_per_s: int = 0) -> Stream:
        stream: Stream = self.node.begin("ScrubReplicas", Request(object=wanted, bytes_per_s=bytes_per_s))
        return stream

    def scrub(self, wanted: str = "") -> list[Response]:
        """All that is said, when everything has come to rest."""
        stream = self.begin(wanted)
        assert stream.ended
        assert stream.fault is None
        self.world.pass_ms(60_000)
        return stream.take()  # type: ignore[return-value]

    def file(self, object_id: str) -> Path:
        return kept_file(self.folder, object_id)

    def slow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A turn is as small as a stripe, and half a second of the least rate."""
        monkeypatch.setattr("offgrid_node.services.objects.checking.TURN_BYTES", 1)
        monkeypatch.setattr(scrub_now, "BYTES_PER_S_MIN", 100)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def refuse(name: str, offset: int, length: int) -> bytes:
    raise Unavailable("too many open files", reason="DiskError")


class TestWhatIsFound:
    def test_of_sound_objects_is_nothing(self, host: Host) -> None:
        made = [put(host.world, f"object {n}") for n in range(5)]
        host.world.log.clear()
        first, *_, last = host.scrub()
        size_bytes = sum(host.file(object_id).stat().st_size for object_id in made)
        assert (first.read_bytes, first.total_bytes, first.done) == (0, size_bytes, False)
        assert (last.read_bytes, last.total_bytes, last.shards, last.done) == (size_bytes, size_bytes, 5, True)
        assert (last.damaged_total, last.unread_total, host.node.checking.damaged) == (0, 0, 0)
        assert not {"ReportChange", "OpenReplica"} & set(host.world.log)

    @pytest.mark.parametrize("place", [0, 200, -1])
    def test_is_named_told_to_the_owner_and_brought_again(self, host: Host, place: int) -> None:
        made = [put(host.world, f"object {n}") for n in range(3)]
        sound = host.file(made[1]).read_bytes()
        flip(host.file(made[1]), place)
        host.world.log.clear()
        said = host.scrub()
        (found,) = [shard for each in said for shard in each.damaged]
        assert (found.object_id, found.shard, found.owner) == (made[1], 0, host.world.owner.node_id)
        assert said[-1].damaged_total == host.node.checking.damaged == 1
        assert "ReportChange" in host.world.log
        assert host.file(made[1]).read_bytes() == sound

    def test_is_what_is_gone_too(self, host: Host) -> None:
        object_id = put(host.world, "one")
        host.file(object_id).unlink()
        assert host.scrub()[-1].damaged_total == 1
        assert host.file(object_id).exists()

    def test_is_said_in_as_many_messages_as_it_takes(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scrub_now, "DAMAGED_MAX", 2)
        made = [put(host.world, f"object {n}") for n in range(5)]
        for object_id in made:
            flip(host.file(object_id), 1)
        said = host.scrub()
        assert [len(each.damaged) for each in said] == [0, 2, 2, 1]
        assert {shard.object_id for each in said for shard in each.damaged} == {*made}

    def test_says_nothing_of_what_the_disk_refuses_for_now(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        put(host.world, "one")
        monkeypatch.setattr(host.node.blobs, "read", refuse)
        last = host.scrub()[-1]
        assert (last.done, last.unread_total, last.damaged_total) == (True, 1, 0)


class TestOneObject:
    def test_is_read_alone(self, host: Host) -> None:
        one, other = put(host.world, "one"), put(host.world, "other")
        flip(host.file(other), 1)
        assert host.scrub(one)[-1].damaged_total == 0
        flip(host.file(one), 1)
        last = host.scrub(one[:12])[-1]
        assert (last.damaged_total, last.shards, last.total_bytes) == (1, 1, host.file(one).stat().st_size)

    @pytest.mark.parametrize("wanted", ["one", "o-abc", "o-" + "a" * 33, "x" * 5_000])
    def test_is_named_by_its_id_alone(self, host: Host, wanted: str) -> None:
        put(host.world, "one")
        with pytest.raises(InvalidRequest, match="an object's id"):
            host.begin(wanted)

    def test_that_is_not_kept_here_is_not_found(self, host: Host) -> None:
        with pytest.raises(NotFound):
            host.begin("o-" + "a" * 32)

    def test_that_is_lost_already_is_not_found(self, host: Host) -> None:
        object_id = put(host.world, "one")
        host.world.owner.up = False  # nobody brings it again
        host.file(object_id).unlink()
        host.scrub()
        with pytest.raises(NotFound):
            host.begin(object_id)

    def test_whose_row_is_damaged_is_named(self, host: Host) -> None:
        object_id = put(host.world, "one")
        put(host.world, "other")
        host.node.store.damage(REPLICAS, replica_key(object_id, host.world.owner.node_id))
        said = host.scrub(object_id[:12])
        assert [(shard.object_id, shard.shard) for each in said for shard in each.damaged] == [(object_id, 0)]
        assert (said[-1].done, said[-1].damaged_total) == (True, 1)

    def test_is_one_alone(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scrub_now, "PREFIX_CHARS_MIN", 2)
        put(host.world, "one"), put(host.world, "other")
        with pytest.raises(InvalidRequest, match="several"):
            host.begin("o-")
        host.node.store.damage(REPLICAS, next(iter(host.node.store.scan(REPLICAS)))[0])
        with pytest.raises(InvalidRequest, match="several"):
            host.begin("o-")


class TestItsPace:
    def test_is_the_rate_that_was_asked_for(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        host.slow(monkeypatch)
        object_id = put(host.world, "one")
        stream = host.begin(bytes_per_s=100)
        passed_ms, size_bytes = 0, host.file(object_id).stat().st_size
        while not stream.ended:
            host.world.pass_ms(100)
            passed_ms += 100
        assert passed_ms >= (size_bytes - 2 * 100) * 10, "what was not used for a second may come at once"
        read = [each.read_bytes for each in stream.take()]  # type: ignore[attr-defined]
        assert read == sorted(read)
        assert len({*read}) > 3, "it is told how far it is"

    @pytest.mark.parametrize("bytes_per_s", [1, RATE - 1])
    def test_is_refused_where_it_would_never_end(self, host: Host, bytes_per_s: int) -> None:
        with pytest.raises(InvalidRequest, match=f"{RATE} or more"):
            host.begin(bytes_per_s=bytes_per_s)

    def test_leaves_the_disk_to_others_for_a_while(self, host: Host) -> None:
        put(host.world, "one"), put(host.world, "other")
        ends = list[Callable[[object], None]]()
        host.node.bulk._carry = lambda work, ended: ends.append(ended)
        host.node.bulk.run(lambda: None, key="of somebody else")(lambda end: None)
        host.node.bulk._carry = lambda work, ended: ended(work())
        stream = host.begin()
        for _ in range(background.YIELDS_MAX - 1):
            host.world.pass_ms(background.YIELD_MS)
        assert not stream.ended
        assert stream.take()[-1].shards <= 1  # type: ignore[attr-defined]
        for _ in range(2 * background.YIELDS_MAX):  # it gets on all the same
            host.world.pass_ms(background.YIELD_MS)
        assert stream.ended
        assert stream.take()[-1].done  # type: ignore[attr-defined]

    def test_waits_where_the_disk_has_too_much_to_do(self, host: Host) -> None:
        put(host.world, "one")
        host.node.bulk._tasks_max = 0
        stream = host.begin()
        assert not stream.ended
        host.node.bulk._tasks_max = 10
        host.world.pass_ms(1_000)
        assert stream.ended
        assert stream.take()[-1].done  # type: ignore[attr-defined]


class TestItsEnd:
    def test_comes_before_another_may_begin(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        host.slow(monkeypatch)
        put(host.world, "one")
        stream = host.begin(bytes_per_s=100)
        with pytest.raises(FailedPrecondition, match="under way") as refused:
            host.begin()
        assert refused.value.reason == "ScrubUnderWay"
        while not stream.ended:
            host.world.pass_ms(1_000)
        assert host.scrub()[-1].done

    def test_is_when_whoever_asked_goes_away(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        host.slow(monkeypatch)
        put(host.world, "one")
        stream = host.begin(bytes_per_s=100)
        stream.cancel()
        read_bytes = host.node.checking.read_bytes
        host.world.pass_ms(3_600_000)
        assert host.node.checking.read_bytes == read_bytes
        assert host.scrub()[-1].done, "another may begin"

    def test_of_the_node_is_its_end(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        host.slow(monkeypatch)
        put(host.world, "one")
        stream = host.begin(bytes_per_s=100)
        host.node.bulk.stop()
        host.world.pass_ms(3_600_000)
        assert stream.ended
        assert isinstance(stream.fault, Fault)
        assert stream.fault.reason == "Stopping"


def test_shards_of_a_coded_object_are_named_one_by_one(host: Host) -> None:
    world, code = host.world, objects_pb2.Code(needed=3, total=5)
    opened = world.owner.ask(
        "OpenUpload",
        objects_pb2.OpenUploadRequest(name="coded", size_bytes=len(DATA), code=code, required_milli=1_000),
    )
    world.owner.ask("WriteUpload", objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, data=DATA))
    commit = objects_pb2.CommitUploadRequest(upload_id=opened.upload_id, size_bytes=len(DATA))
    object_id = world.owner.ask("CommitUpload", commit).object.object_id
    world.pass_ms(60_000)
    files = sorted((host.folder / blobs.KEPT).glob(f"{object_id}.*"))
    assert len(files) >= 2
    flip(files[1], 30)
    said = host.scrub(object_id)
    (found,) = [shard for each in said for shard in each.damaged]
    assert found.shard == int(files[1].suffix[1:])
    assert said[-1].shards == len(files)
