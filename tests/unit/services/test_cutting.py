"""One sealed copy on its way to several hosts: what is read and worked out once, and for whom."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

import pytest

from offgrid_node.coding.fallback import Fallback
from offgrid_node.protocol.errors import Corrupt, Fault
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.objects.hashing import Possession, possession_of
from offgrid_node.protocol.objects.manifest import REED_SOLOMON, Manifest
from offgrid_node.protocol.objects.shards import row_span
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.objects import cutting, source
from offgrid_node.services.objects.cutting import Cutting, Drawing, Rows
from offgrid_node.services.objects.source import ShardSource
from offgrid_node.storage.memory_blobs import MemoryBlobs

SALT, EPOCH = bytes(16), 3
BODY = Manifest(base32(bytes(20)), bytes(16), 1_000, 64, 3, REED_SOLOMON, (bytes(32),) * 5, 1)
TOGETHER = 2  # stripes of a cut
FIRSTS = range(0, BODY.stripes, TOGETHER)
HOSTS = [(0, 3), (1, 4), (2,)]


class Noted(ShardSource):
    """Which cuts were made."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        super().__init__(blobs, Fallback())
        self.cuts: list[tuple[int, tuple[int, ...]]] = []

    def cut(self, manifest: Manifest, first: int, count: int, shards: Collection[int]) -> dict[int, bytes]:
        self.cuts.append((first, tuple(shards)))
        return super().cut(manifest, first, count, shards)


class Way:
    """Some hosts' drawings of one object; work is done when `carry_on` says so."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobs()
        self.blobs.append("staged", 0, Random(7).randbytes(BODY.sealed_bytes))
        self.blobs.finish("staged", BODY.object_id)
        self.source, self.truth = Noted(self.blobs), ShardSource(self.blobs, Fallback())
        self.waiting: list[tuple[object, object]] = []
        self.cutting = Cutting(self.source, Bulk(lambda work, ended: self.waiting.append((work, ended))))
        self.drawings = [self.drawing(shards) for shards in HOSTS]

    def drawing(self, shards: tuple[int, ...]) -> Drawing:
        made = Drawing(BODY, shards, Possession(BODY, shards, SALT, base32(bytes(20)), EPOCH))
        self.cutting.join(made)
        return made

    def carry_on(self) -> None:
        while self.waiting:
            work, ended = self.waiting.pop(0)
            try:
                outcome = work()  # type: ignore[operator]
            except Fault as fault:
                outcome = fault
            ended(outcome)  # type: ignore[operator]

    def ask(self, drawing: Drawing, first: int) -> list[Rows | Fault]:
        """What comes of it, once somebody has carried on."""
        came: list[Rows | Fault] = []
        self.cutting.rows(drawing, first)(came.append)
        return came

    def draw(self, drawing: Drawing, first: int) -> None:
        came = self.ask(drawing, first)
        self.carry_on()
        (rows,) = came
        assert not isinstance(rows, Fault)
        begin = row_span(BODY, first)[0]
        for shard in drawing.shards:
            data = rows[shard]
            assert data
            assert data == self.truth.read(BODY, shard, begin, len(data))


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Way:
    monkeypatch.setattr(source, "CUT_BYTES", TOGETHER * BODY.n * BODY.row_bytes)
    monkeypatch.setattr(cutting, "CUTS_BYTES_MAX", 3 * TOGETHER * BODY.n * BODY.row_bytes)
    return Way()


def true_possession(way: Way, drawing: Drawing) -> bytes:
    pieces = way.truth.pieces(BODY, drawing.shards)
    return possession_of(BODY, drawing.shards, pieces, SALT, base32(bytes(20)), EPOCH)


class TestHostsThatGoTogether:
    def test_get_the_same_cuts_each_made_once(self, way: Way) -> None:
        for first in FIRSTS:
            came = [way.ask(drawing, first) for drawing in way.drawings]
            way.carry_on()
            assert all(rows and not isinstance(rows[0], Fault) for rows in came)
        assert way.source.cuts == [(first, (0, 1, 2, 3, 4)) for first in FIRSTS]

    def test_have_their_possession_worked_out_on_the_way(self, way: Way) -> None:
        for first in FIRSTS:
            way.draw(way.drawings[0], first)
            assert way.drawings[1].possession.is_whole == way.drawings[0].possession.is_whole
            for other in way.drawings[1:]:
                way.draw(other, first)
        for drawing in way.drawings:
            assert drawing.possession.is_whole
            assert drawing.possession.digest() == true_possession(way, drawing)

    def test_have_it_worked_out_of_cuts_that_they_have_left_for_the_next_before_they_were_made(self, way: Way) -> None:
        """Several pieces of one host are under way, and the later of them may want the next cut."""
        for first in FIRSTS:
            for drawing in way.drawings:
                way.ask(drawing, first)
            if first % (2 * TOGETHER):
                way.carry_on()
        way.carry_on()
        for drawing in way.drawings:
            assert drawing.possession.digest() == true_possession(way, drawing)

    def test_leave_nothing_behind(self, way: Way) -> None:
        for first in FIRSTS:
            for drawing in way.drawings:
                way.draw(drawing, first)
            assert way.cutting.held_bytes > 0
        for drawing in way.drawings:
            way.cutting.leave(drawing)
        assert way.cutting.held_bytes == 0

    def test_share_a_fault_and_whoever_asks_again_gets_it_anew(self, way: Way) -> None:
        sealed = way.blobs.read(BODY.object_id, 0, BODY.sealed_bytes)
        way.blobs.lose(BODY.object_id)
        came = [way.ask(drawing, 0) for drawing in way.drawings]
        way.carry_on()
        assert all(isinstance(rows[0], Corrupt) for rows in came)
        way.blobs.append("staged", 0, sealed)
        way.blobs.finish("staged", BODY.object_id)
        way.draw(way.drawings[0], 0)


class TestOneWhoGoesHisOwnPace:
    def test_is_not_waited_for_when_he_is_far_behind(self, way: Way) -> None:
        first, second, slow = way.drawings
        for at in FIRSTS:
            way.draw(first, at)
            way.draw(second, at)
        cut = {shards for at, shards in way.source.cuts if at > cutting.BEHIND_MAX * TOGETHER}
        assert cut == {(0, 1, 3, 4)}, "nothing more is worked out for him"
        for at in FIRSTS:
            way.draw(slow, at)
        assert way.source.cuts[-1] == (FIRSTS[-1], slow.shards)
        assert slow.possession.digest() == true_possession(way, slow)

    def test_and_catches_up_has_his_possession_worked_out_all_the_same(self, way: Way) -> None:
        first, _, slow = way.drawings
        for at in FIRSTS[: cutting.BEHIND_MAX + 2]:
            way.draw(first, at)
        for at in FIRSTS[: cutting.BEHIND_MAX + 1]:
            way.draw(slow, at)
        for at in FIRSTS[cutting.BEHIND_MAX + 2 :]:
            way.draw(first, at)
        for at in FIRSTS[cutting.BEHIND_MAX + 1 :]:
            way.draw(slow, at)
        assert slow.possession.is_whole
        assert slow.possession.digest() == true_possession(way, slow)

    def test_and_comes_late_gets_what_begins_from_then_on_with_the_others(self, way: Way) -> None:
        for drawing in way.drawings:
            way.draw(drawing, FIRSTS[0])
            way.draw(drawing, FIRSTS[1])
        late = way.drawing((4,))
        way.draw(late, FIRSTS[0])
        assert way.source.cuts[-1] == (FIRSTS[0], (4,))
        way.draw(late, FIRSTS[1])
        way.draw(late, FIRSTS[2])
        made = len(way.source.cuts)
        way.draw(way.drawings[0], FIRSTS[2])
        assert len(way.source.cuts) == made, "the others' next cut was made with his"

    def test_and_asks_for_one_again_gets_it_again(self, way: Way) -> None:
        way.draw(way.drawings[0], FIRSTS[0])
        way.draw(way.drawings[0], FIRSTS[1])
        way.draw(way.drawings[0], FIRSTS[0])
        for first in FIRSTS:
            way.draw(way.drawings[0], first)
        assert way.drawings[0].possession.digest() == true_possession(way, way.drawings[0])


class TestWhatIsHeld:
    def test_is_bounded_however_far_they_are_apart(self, way: Way) -> None:
        for first in FIRSTS:
            way.draw(way.drawings[0], first)
            assert way.cutting.held_bytes <= cutting.CUTS_BYTES_MAX

    def test_makes_room_of_what_is_made_and_where_there_is_none_each_gets_his_own(self, way: Way) -> None:
        for first in FIRSTS[:4]:
            way.ask(way.drawings[2], first)
        way.carry_on()
        assert [shards for _, shards in way.source.cuts] == [(0, 1, 2, 3, 4)] * 3 + [(2,)]
