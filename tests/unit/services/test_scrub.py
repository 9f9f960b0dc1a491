"""A host finds what its disk has damaged or lost, tells the owner, and has it again while another keeps it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from bulk_world import World
from rotting import DATA, flip, kept_file, put, with_files

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.objects.tables import KEPT, REPLICAS
from offgrid_node.services.objects.checking import OBJECT_BYTES, TURN_BYTES
from offgrid_node.services.objects.scrub import DAY_MS, PAUSE_MS, PAUSE_MS_MAX, Pace, Scrub
from offgrid_node.storage import blobs


class Turns:
    """A Later whose time comes when the test says so."""

    def __init__(self) -> None:
        self.pauses: list[int] = []
        self._next: Callable[[], None] | None = None

    def __call__(self, delay_ms: int, callback: Callable[[], None]) -> None:
        assert self._next is None, "one turn at a time"
        self.pauses.append(delay_ms)
        self._next = callback

    def take(self) -> None:
        following, self._next = self._next, None
        assert following is not None
        following()


class Checked:
    """A host whose files are real, and its scrub."""

    def __init__(self, world: World, folder: Path, seed: int = 1, pace: Pace | None = None) -> None:
        self.world, self.folder, self.host = world, folder, with_files(world, folder)
        self.turns, self.checking = Turns(), self.host.checking
        self.scrub = Scrub(self.checking, self.turns, Random(seed), pace or Pace())
        self.scrub.start()

    def round(self) -> None:
        """Whatever place the scrub begins at, all is read once between two ends."""
        for _ in range(2):
            rounds = self.scrub.rounds
            while self.scrub.rounds == rounds:
                self.turns.take()
                self.world.settle()
        self.world.pass_ms(60_000)

    def file(self, object_id: str) -> Path:
        return kept_file(self.folder, object_id)


def _refuse(name: str, offset: int, length: int) -> bytes:
    raise Unavailable("too many open files", reason="DiskError")


@pytest.fixture
def checked(tmp_path: Path) -> Checked:
    return Checked(World(2), tmp_path)


class TestAShard:
    @pytest.mark.parametrize("place", [0, 200, -1])
    def test_with_one_flipped_bit_is_found_and_brought_again(self, checked: Checked, place: int) -> None:
        object_id = put(checked.world, "one")
        sound = checked.file(object_id).read_bytes()
        flip(checked.file(object_id), place)
        checked.round()
        assert checked.file(object_id).read_bytes() == sound
        assert checked.checking.damaged == 1
        assert {ack.node_id for ack in checked.world.owner.info(object_id).acks} == {
            each.node_id for each in checked.world.hosts
        }

    def test_that_is_gone_or_cut_off_is_brought_again(self, checked: Checked) -> None:
        gone, cut = put(checked.world, "gone"), put(checked.world, "cut")
        sound = {object_id: checked.file(object_id).read_bytes() for object_id in (gone, cut)}
        checked.file(gone).unlink()
        checked.file(cut).write_bytes(sound[cut][:-1])
        checked.round()
        assert {object_id: checked.file(object_id).read_bytes() for object_id in sound} == sound
        assert checked.checking.damaged == 2

    def test_is_found_though_the_row_of_another_is_damaged(self, checked: Checked) -> None:
        made = [put(checked.world, f"object {n}") for n in range(6)]
        rows = sorted(key for key, _ in checked.host.store.scan(REPLICAS))
        checked.host.store.damage(REPLICAS, rows[2])
        for object_id in made:
            flip(checked.file(object_id), 7)
        checked.round()
        assert checked.checking.damaged == len(made), "and the one whose row it is"

    @pytest.mark.parametrize("table", [REPLICAS, KEPT])
    def test_whose_row_is_damaged_is_found_and_vouched_for_anew_without_a_byte(
        self, checked: Checked, table: str
    ) -> None:
        made = [put(checked.world, f"object {n}") for n in range(3)]
        rows = sorted(key for key, _ in checked.host.store.scan(table))
        for row in (rows[0], rows[-1]):
            checked.host.store.damage(table, row)
        checked.world.log.clear()
        checked.round()
        assert checked.checking.damaged == 2
        assert sorted(key for key, _ in checked.host.store.scan(table)) == rows
        assert "WriteReplica" not in checked.world.log
        checked.round()
        assert checked.checking.damaged == 2
        for object_id in made:
            assert len(checked.world.owner.info(object_id).acks) == 2

    def test_does_not_count_from_then_on_until_it_is_back(self, checked: Checked) -> None:
        world, host = checked.world, checked.host
        object_id = put(world, "one")
        flip(checked.file(object_id), 7)
        world.bend = lambda letter: (
            objects_pb2.OpenReplicaResponse() if letter.short == "OpenReplica" else None
        )  # the host never says that it has the shard open
        checked.round()
        assert host.node_id not in {ack.node_id for ack in world.owner.info(object_id).acks}

    def test_that_is_sound_is_left_alone(self, checked: Checked) -> None:
        made = [put(checked.world, f"object {n}") for n in range(5)]
        checked.world.log.clear()
        checked.round()
        assert (checked.checking.damaged, checked.checking.notices) == (0, ())
        assert not {"ReportChange", "OpenReplica"} & set(checked.world.log)
        assert all(checked.file(object_id).exists() for object_id in made)

    def test_that_the_disk_cannot_read_is_lost_and_one_that_it_refuses_for_now_is_not(
        self, checked: Checked, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        object_id, opened = put(checked.world, "one"), Path.open

        def refuse(code: int) -> None:
            def refused(path: Path, *args: object, **options: object) -> object:
                if path == checked.file(object_id):
                    raise OSError(code, "refused")
                return opened(path, *args, **options)  # type: ignore[call-overload]

            monkeypatch.setattr(Path, "open", refused)

        refuse(errno.EMFILE)
        checked.round()
        assert checked.checking.damaged == 0
        assert checked.turns.pauses.count(PAUSE_MS) > 1, "it waits before it goes on"
        refuse(errno.EIO)
        checked.round()
        assert checked.checking.damaged > 0

    def test_that_is_refused_for_now_is_checked_in_the_next_round(
        self, checked: Checked, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        object_id = put(checked.world, "one")
        sound = checked.file(object_id).read_bytes()
        flip(checked.file(object_id), 3)
        with monkeypatch.context() as patched:
            patched.setattr(checked.host.blobs, "read", _refuse)
            checked.round()
        assert checked.checking.damaged == 0
        checked.round()
        assert checked.file(object_id).read_bytes() == sound

    def test_that_is_being_deleted_is_none_that_is_lost(self, checked: Checked) -> None:
        object_id = put(checked.world, "one")
        checked.turns.take()
        checked.world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=object_id))
        checked.world.pass_ms(1_000)
        checked.round()
        assert checked.checking.damaged == 0

    def test_larger_than_a_turn_is_read_in_several(self, checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("offgrid_node.services.objects.checking.TURN_BYTES", 100)
        object_id = put(checked.world, "one")
        flip(checked.file(object_id), -1)
        checked.round()
        assert len(checked.turns.pauses) > len(DATA) // 100, "the first of the two may have begun behind it"
        assert checked.checking.damaged == 1


class TestTheOwner:
    def test_is_told_at_once(self, checked: Checked) -> None:
        object_id = put(checked.world, "one")
        flip(checked.file(object_id), 3)
        checked.world.log.clear()
        checked.round()
        said = [method for method in checked.world.log if method in ("ReportChange", "CompareInventory", "OpenReplica")]
        assert said[:2] == ["ReportChange", "CompareInventory"]
        assert "OpenReplica" in said

    def test_that_was_away_finds_it_when_it_compares(self, checked: Checked) -> None:
        world = checked.world
        object_id = put(world, "one")
        sound = checked.file(object_id).read_bytes()
        flip(checked.file(object_id), 3)
        world.owner.up = False
        checked.round()
        world.owner.up = True
        world.pass_ms(3_600_000)
        world.pass_ms(60_000)
        assert checked.file(object_id).read_bytes() == sound

    def test_is_not_kept_at_work_by_a_host_that_reports_all_the_time(self, checked: Checked) -> None:
        world = checked.world
        put(world, "one")
        world.pass_ms(60_000)
        world.log.clear()
        for _ in range(50):
            world.owner.ask_as(checked.host, "ReportChange", objects_pb2.ReportChangeRequest())
            world.pass_ms(100)
        assert world.log.count("CompareInventory") <= 2


class TestShardsOfACodedObject:
    @pytest.mark.parametrize("place", [0, 30, -1])
    def test_are_checked_each_against_its_own_root_and_brought_again(self, tmp_path: Path, place: int) -> None:
        world = World(2)
        checked = Checked(world, tmp_path)
        code = objects_pb2.Code(needed=3, total=5)
        request = objects_pb2.OpenUploadRequest(name="coded", size_bytes=len(DATA), code=code, required_milli=1_000)
        opened = world.owner.ask("OpenUpload", request)
        world.owner.ask("WriteUpload", objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, data=DATA))
        commit = objects_pb2.CommitUploadRequest(upload_id=opened.upload_id, size_bytes=len(DATA))
        object_id = world.owner.ask("CommitUpload", commit).object.object_id
        world.pass_ms(60_000)
        files = sorted((tmp_path / blobs.KEPT).glob(f"{object_id}.*"))
        assert len(files) >= 2
        sound = [file.read_bytes() for file in files]
        checked.round()
        assert checked.checking.damaged == 0
        flip(files[1], place)
        checked.round()
        assert checked.checking.damaged == 1
        assert [file.read_bytes() for file in files] == sound


def test_people_are_told_of_a_disk_that_fails(checked: Checked) -> None:
    object_id = put(checked.world, "one")
    flip(checked.file(object_id), 3)
    checked.round()
    assert checked.checking.notices == (
        "a shard that is kept here for others was damaged or gone, once so far; the disk may be failing",
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_round_begins_anywhere_and_leaves_nothing_out(tmp_path: Path, seed: int) -> None:
    checked = Checked(World(1), tmp_path, seed)
    for object_id in [put(checked.world, f"object {n}") for n in range(6)]:
        flip(checked.file(object_id), 1)
    checked.round()
    assert checked.checking.damaged == 6


def test_a_node_that_stops_reads_no_more(checked: Checked) -> None:
    put(checked.world, "one")
    checked.scrub.close()
    checked.turns.take()
    assert len(checked.turns.pauses) == 1


class TestPace:
    def test_of_many_small_objects_a_round_takes_the_days_as_well(self, tmp_path: Path) -> None:
        checked = Checked(World(1), tmp_path, pace=Pace(days=1))
        for n in range(40):
            put(checked.world, f"object {n}", b"small")
        checked.round()
        rounds, before = checked.scrub.rounds, len(checked.turns.pauses)
        while checked.scrub.rounds == rounds:
            checked.turns.take()
            checked.world.settle()
        assert DAY_MS // 2 < sum(checked.turns.pauses[before:]) <= DAY_MS

    def test_goes_as_slow_as_the_days_allow(self) -> None:
        kept = 1 << 40
        turns = kept // TURN_BYTES
        assert Pace(10_000_000, 14).pause_ms(TURN_BYTES, kept) * turns <= 14 * DAY_MS

    def test_is_never_above_its_rate(self) -> None:
        assert Pace(1_000_000, 14).pause_ms(TURN_BYTES, 1 << 60) == TURN_BYTES * 1_000 // 1_000_000

    def test_reads_the_little_that_is_kept_more_often(self) -> None:
        assert Pace().pause_ms(OBJECT_BYTES, 0) == PAUSE_MS_MAX
        assert Pace().pause_ms(TURN_BYTES, TURN_BYTES) == PAUSE_MS_MAX
