"""A journal cut into segments gives back, whatever happened meanwhile, just the rows and events of a moment."""

from __future__ import annotations

import struct
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_world import OWNER, SALT, SIGNER, JournalWorld, state_of
from msgspec.structs import replace

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node.protocol.effects import Answered
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, InvalidRequest, NotFound, PeerFault, Unavailable
from offgrid_node.protocol.events import ObjectAstray, PeerDown, SegmentAstray, SegmentLost
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.tables import AUTHORS, LEARN_KEY, MUTE_KEY
from offgrid_node.protocol.ledger.tables import META as LEDGER
from offgrid_node.protocol.mesh.keychange import CHANGES_MAX
from offgrid_node.protocol.objects.lives import Life, last_life, sign_life
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.segments import MARKS_MAX, KnownSegments, SegmentHead, sign_head
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.protocol.state import cutting
from offgrid_node.protocol.state import machine as machine_module
from offgrid_node.protocol.state import newest as newest_module
from offgrid_node.protocol.state.chain import damaged_rows, newest_chain
from offgrid_node.protocol.state.fence import (
    BOOTS_AHEAD,
    LIVES_APART,
    NUMBERS_AHEAD,
    RESTORES,
    fenced,
    life_after,
    without_blobs,
)
from offgrid_node.protocol.state.machine import BASE_RETRY_MS, OPEN_MAX, TROUBLE_RETRY_MS
from offgrid_node.protocol.state.newest import AGAIN_MS, PAGES_MAX, HeadTag
from offgrid_node.protocol.state.segment import packed, unpacked
from offgrid_node.protocol.state.tables import (
    JOURNAL,
    NEWER_KEY,
    NOTING_KEY,
    PAST,
    SEGMENTS,
    STATE_KEY,
    Newer,
    number_key,
)
from offgrid_node.restoring import beginning, behind
from offgrid_node.services.objects.sealing import sign_manifest
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.noting import NotingStore, end_noting
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import SimSigner

HOST = "h" * 32
WRITES = st.lists(
    st.tuples(st.sampled_from(["jobs", "objects", "meta"]), st.binary(min_size=1, max_size=1), st.none() | st.binary()),
    min_size=1,
    max_size=4,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), WRITES, st.integers(0, 3)),
        st.tuples(st.just("drop"), st.integers(1, 9)),
        st.tuples(st.sampled_from(["wait", "seal", "seal fails", "seal is lost", "ack", "lose", "kill"])),
    ),
    max_size=40,
)


def grown(count: int = 5) -> JournalWorld:
    """With a host in sight, at rest."""
    world = JournalWorld()
    world.see_host()
    for number in range(count):
        world.write(("jobs", b"%d" % number, b"made"), events=1)
    world.settle()
    return world


class TestAnyHistory:
    @given(STEPS, st.integers(1, 8))
    def test_gives_the_rows_and_events_of_the_moment_of_a_cut(self, steps: list[tuple], keys_max: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cutting, "SCAN_ROWS", 2)
            patch.setattr(cutting, "EVENTS_BYTES", 20)
            patch.setattr(machine_module, "SINCE_MAX", 3)
            self._run(steps, keys_max)

    def _run(self, steps: list[tuple], keys_max: int) -> None:
        world = JournalWorld(keys_max=keys_max)
        world.see_host()
        world.write(("jobs", b"a", b"1"), ("meta", b"b", b"2"), ("objects", b"c", b"3"), events=2)
        world.settle()
        for what, *rest in steps:
            match what:
                case "write":
                    world.write(*rest[0], events=rest[1])
                case "drop":
                    world.drop(*rest)
                case "wait":
                    world.wait()
                case "seal" | "seal fails" | "seal is lost":
                    world.seal(fails=what == "seal fails", lost=what == "seal is lost")
                    if what == "seal is lost":
                        world.see_host()
                case "ack":
                    world.ack()
                case "lose" if world.hosts.heads:
                    world.lose(max(head.number for head in world.hosts.heads.values()))
                case "kill":
                    world.start()
                    world.see_host()
            self._check(world)
        world.write(("jobs", b"last", b"row"), events=1)
        world.settle()
        self._check(world)
        assert world.machine.safe_events == world.below.journal_seq

    def _check(self, world: JournalWorld) -> None:
        safe = world.machine.safe_events
        try:
            fresh = MemoryStore()
            newest = world.hosts.restore(fresh)
        except (NotFound, Corrupt):
            assert not safe
            return
        rows, events = world.hosts.cut_at[newest.object_id]
        back = state_of(fresh)
        assert back[0] == rows
        assert back[1] == {seq: event for seq, event in events.items() if seq <= newest.events}
        assert newest.events >= safe


def restored(world: JournalWorld) -> MemoryStore:
    fresh = MemoryStore()
    world.hosts.restore(fresh)
    return fresh


def newest_segment(world: JournalWorld) -> state_pb2.Segment:
    return unpacked(world.hosts.sealed[world.hosts.chain().newest.object_id])


class TestASegment:
    def test_that_could_not_be_sealed_is_made_good_by_the_next(self) -> None:
        world = grown()
        world.write(("jobs", b"x", b"1"), events=1)
        world.wait()
        world.seal(fails=True)
        world.write(("jobs", b"y", b"2"), events=1)
        world.settle()
        assert state_of(restored(world)) == state_of(world.below)

    def test_whose_end_is_of_machines_that_are_no_more_changes_nothing(self) -> None:
        world = grown()
        world.write(("jobs", b"x", b"1"), events=1)
        world.wait()
        late = world.waiting[0]
        world.start()
        world.see_host()
        world.write(("jobs", b"x", b"2"), events=1)
        world.wait()
        world.waiting.insert(0, late)
        world.seal()
        assert not world.unacked
        world.settle()
        assert restored(world).get("jobs", b"x") == b"2"

    def test_is_safe_only_with_all_that_it_needs(self) -> None:
        world = grown()
        safe = world.machine.safe_events
        for number in range(2):
            world.write(("jobs", b"x", b"%d" % number), events=1)
            world.wait()
            world.seal()
        world.unacked.reverse()
        world.ack()
        assert world.machine.safe_events == safe
        world.ack()
        assert world.machine.safe_events == safe + 2

    def test_of_a_node_that_lost_count_gives_nothing_before_all_rows_are_written_down_anew(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = JournalWorld(keys_max=4)
        world.see_host()
        world.write(*(("jobs", b"%d" % number, b"old") for number in range(4)), events=1)
        world.settle()
        before = state_of(restored(world))
        monkeypatch.setattr(cutting, "SCAN_ROWS", 2)
        world.write(*(("jobs", b"%d" % number, b"new") for number in range(8)), events=1)
        assert not world.store.noting
        for _ in range(2):
            world.wait()
            world.seal()
            world.ack()
            assert state_of(restored(world)) == before
        world.settle()
        assert state_of(restored(world)) == state_of(world.below)


class TestALostSegment:
    """At no host any more, or damaged before it came there."""

    def test_has_all_rows_brought_to_hosts_anew_at_once(self) -> None:
        world = grown()
        world.write(("jobs", b"x", b"1"), events=1)
        world.settle()
        whole, newest = world.machine.safe_events, world.hosts.chain().newest.number
        world.lose(newest)
        assert (world.machine.safe_events, world.machine.lost) == (whole - 1, newest)
        world.settle()
        assert world.machine.safe_events == world.below.journal_seq
        assert (world.machine.lost, world.hosts.chain().newest.base) == (None, newest + 1)
        assert state_of(restored(world)) == state_of(world.below)

    def test_of_the_base_itself_too_and_through_a_restart(self) -> None:
        world = grown()
        world.lose(world.hosts.chain().newest.base)
        assert world.machine.safe_events == 0
        world.start()
        world.see_host()
        world.settle()
        assert world.machine.safe_events == world.below.journal_seq
        assert state_of(restored(world)) == state_of(world.below)

    def test_keeps_no_place_among_those_that_wait(self) -> None:
        world = grown()
        for number in range(OPEN_MAX):
            world.write(("jobs", b"x", b"%d" % number), events=1)
            world.wait()
            world.seal()
        for head in [*world.unacked]:
            world.lose(head.number)
        world.settle()
        assert world.machine.safe_events == world.below.journal_seq

    def test_while_the_next_is_being_sealed(self) -> None:
        world = grown()
        world.write(("jobs", b"x", b"1"), events=1)
        world.wait()
        world.lose(world.hosts.chain().newest.number)
        world.settle()
        assert world.machine.safe_events == world.below.journal_seq
        assert state_of(restored(world)) == state_of(world.below)

    def test_of_before_the_base_in_the_making_begins_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cutting, "SCAN_ROWS", 2)
        world = grown()
        first = world.hosts.chain().newest.number
        world.lose(first)
        world.wait()
        world.lose(first - 1)
        world.settle()
        assert world.hosts.chain().newest.base == first + 1


class TestAnotherKey:
    def test_begins_a_base_of_its_own(self) -> None:
        world = grown()
        before = world.hosts.chain().newest
        world.signer = SimSigner("the node's next key")
        world.signer.node_id = OWNER
        world.start()
        world.see_host()
        world.settle()
        newest = world.hosts.chain().newest
        assert newest.base > before.number
        assert state_of(restored(world)) == state_of(world.below)


class TestADamagedRow:
    def test_keeps_the_journal_from_being_cut_where_there_is_no_base(self) -> None:
        world = JournalWorld()
        world.write(("jobs", b"x", b"1"), ("jobs", b"y", b"1"), events=1)
        world.below.damage("jobs", b"x")
        world.see_host()
        world.wait()
        assert "fails its checksum" in world.machine.trouble
        assert world.cuts == 0
        world.write(("jobs", b"x", b"2"), events=1)
        world.wait(TROUBLE_RETRY_MS)
        assert not world.machine.trouble
        world.settle()
        assert state_of(restored(world)) == state_of(world.below)

    def test_that_has_just_changed_is_left_to_what_hosts_have_of_it_until_it_is_mended(self) -> None:
        world = grown()
        world.write(("jobs", b"x", b"before"), events=1)
        world.settle()
        world.write(("jobs", b"x", b"damaged"), ("jobs", b"y", b"1"), events=1)
        world.below.damage("jobs", b"x")
        world.settle()
        assert world.machine.safe_events == world.below.journal_seq
        assert world.machine.trouble.endswith("which they have as they were before: row jobs/'x'")
        assert (restored(world).get("jobs", b"x"), restored(world).get("jobs", b"y")) == (b"before", b"1")

        world.start()
        world.see_host()
        world.write(("jobs", b"z", b"1"), events=1)
        world.settle()
        assert world.machine.trouble.endswith("row jobs/'x'"), "known over a restart"
        assert damaged_rows(newest_segment(world)) == ["row jobs/'x'"]
        assert world.machine.safe_events == world.below.journal_seq

        world.write(("jobs", b"x", b"mended"), events=1)
        world.settle()
        assert not world.machine.trouble
        assert damaged_rows(newest_segment(world)) == []
        assert state_of(restored(world)) == state_of(world.below)

    def test_of_which_there_are_many_keeps_the_journal_from_being_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cutting, "DAMAGED_MAX", 2)
        world = grown()
        keys = [b"a", b"b", b"c"]
        world.write(*(("jobs", key, b"1") for key in keys), events=1)
        for key in keys:
            world.below.damage("jobs", key)
        world.wait()
        assert world.machine.trouble.startswith("the journal is not brought to hosts: row jobs/'c'")
        assert world.machine.safe_events < world.below.journal_seq

    def test_keeps_a_new_base_from_being_made_and_what_changes_goes_on_behind_the_old_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine_module, "SINCE_MAX", 3)
        monkeypatch.setattr(cutting, "SCAN_ROWS", 2)
        world = grown()
        world.below.damage("jobs", b"4")
        base = world.hosts.chain().newest.base
        for number in range(8):
            world.write(("jobs", b"new", b"%d" % number), events=1)
            world.settle()
        assert world.machine.trouble.startswith("what changes is brought to hosts, but the whole journal not anew: row")
        assert world.hosts.chain().newest.base == base
        assert world.machine.safe_events == world.below.journal_seq
        found = restored(world)
        assert (found.get("jobs", b"new"), found.get("jobs", b"4")) == (b"7", b"made"), "hosts have it still"

        world.write(("jobs", b"4", b"sound again"), events=1)
        world.wait(BASE_RETRY_MS)
        world.settle()
        assert world.hosts.chain().newest.base > base
        assert not world.machine.trouble
        assert state_of(restored(world)) == state_of(world.below)


class TestAnIdleNode:
    def test_falls_silent(self) -> None:
        world = grown()
        cuts = world.cuts
        for _ in range(100):
            world.wait(60_000)
        assert world.cuts == cuts
        assert world.machine.deadline_ms() is None

    def test_says_nothing_of_rows_that_changed_without_an_event_until_there_is_one(self) -> None:
        world = grown()
        world.write(("jobs", b"x", b"quiet"))
        world.settle()
        assert restored(world).get("jobs", b"x") is None
        world.write(events=1)
        world.settle()
        assert restored(world).get("jobs", b"x") == b"quiet"

    def test_of_whom_no_host_is_in_sight_cuts_nothing(self) -> None:
        world = JournalWorld()
        world.write(("jobs", b"a", b"1"), events=1)
        world.wait(60_000)
        assert world.cuts == 0
        assert not world.store.noting  # nor does it write down what nobody would take


class TestWhatWaits:
    def test_is_bounded_while_no_acks_come(self) -> None:
        world = JournalWorld()
        world.see_host()
        for number in range(3 * OPEN_MAX):
            world.write(("jobs", b"%d" % number, b"made"), events=1)
            world.wait()
            world.seal()
        assert len(world.unacked) == OPEN_MAX == world.machine.waiting
        world.settle()
        assert world.machine.safe_events == world.below.journal_seq

    def test_old_segments_go_once_a_newer_base_is_whole_and_acked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine_module, "SINCE_MAX", 4)
        world = grown(0)
        for number in range(30):
            world.write(("jobs", b"%d" % (number % 3), b"%d" % number), events=1)
            world.settle()
            assert len(world.hosts.heads) <= 4 + 3
        assert world.hosts.chain().newest.number > 20

    def test_the_larger_a_base_is_the_more_segments_may_follow_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All rows and events are written down anew with each."""
        monkeypatch.setattr(machine_module, "SINCE_MAX", 4)
        monkeypatch.setattr(machine_module, "SINCE_EACH_BYTES", 100)
        bases = []
        for size_bytes in (10, 1_000):
            world = grown(0)
            world.write(("jobs", b"large", world.rng.randbytes(size_bytes)), events=1)
            world.settle()
            for number in range(40):
                world.write(("jobs", b"small", b"%d" % number), events=1)
                world.settle()
            bases.append(world.hosts.chain().newest.base)
        assert bases[0] > bases[1] > 1


class TestAChain:
    HEADS = tuple(
        SegmentHead(OWNER, 1, number, 1, number, name, before)
        for number, name, before in ((1, "o-a", ""), (2, "o-b", "o-a"), (3, "o-c", "o-b"))
    )

    def test_with_a_hole_ends_before_it_and_says_what_is_of_no_use(self) -> None:
        first, _, third = self.HEADS
        chain = newest_chain({head.object_id: head for head in (first, third)})
        assert (chain.heads, chain.beyond) == ((first,), (third,))

    def test_without_its_base_is_none_and_says_so(self) -> None:
        with pytest.raises(Corrupt, match="segments 3, 2 of the journal"):
            newest_chain({head.object_id: head for head in self.HEADS[1:]})
        with pytest.raises(NotFound):
            newest_chain({})

    def test_of_a_later_life_counts_whatever_its_number(self) -> None:
        later = replace(self.HEADS[1], life=2, base=2, object_id="o-later", previous="o-a")
        chain = newest_chain({head.object_id: head for head in (*self.HEADS, later)})
        assert chain.heads == (later,)

    def test_follows_names_so_that_another_of_the_same_number_is_left_out(self) -> None:
        other = replace(self.HEADS[1], life=2, base=0, object_id="o-other", previous="o-elsewhere")
        chain = newest_chain({head.object_id: head for head in (*self.HEADS, other)})
        assert chain.heads == self.HEADS

    @pytest.mark.parametrize("body", [b"", b"\1" + bytes(92), b"\2" * 93, b"\1" * 94])
    def test_a_head_that_is_none_is_refused(self, body: bytes) -> None:
        with pytest.raises(PeerFault):
            SegmentHead.decode(body)


def shown(head: SegmentHead, signer: SimSigner = SIGNER, body: Manifest | None = None) -> Answered:
    """A host says that it keeps this, of the object with that body; of a made-up one without it."""
    body = body or Manifest(head.owner, bytes(16), 1, 1 << 20, 1, COPY, (bytes(32),), 1)
    manifest = objects_pb2.Manifest(signed=sign_manifest(body, signer, SALT))
    manifest.segment.CopyFrom(sign_head(replace(head, object_id=body.object_id), signer, SALT))
    return Answered(HeadTag(), HOST, objects_pb2.ListSegmentsResponse(segments=[manifest]), None)


def kept(world: JournalWorld, head: SegmentHead) -> Answered:
    """A host shows a segment that was cut in this world."""
    return shown(head, body=world.hosts.bodies[head.object_id])


def cut(world: JournalWorld, times: int) -> None:
    """So many segments more."""
    for number in range(times):
        world.write(("jobs", b"since", b"%d" % number), events=1)
        world.settle()


def asked(world: JournalWorld) -> list[objects_pb2.ListSegmentsRequest]:
    """What hosts were asked, and `calls` is empty again."""
    calls, world.calls = world.calls, []
    return [call.request for call in calls if isinstance(call.request, objects_pb2.ListSegmentsRequest)]


class TestAnOldStore:
    HEAD = SegmentHead(OWNER, 1, 99, 1, 500, "", "")

    @pytest.mark.parametrize("order", [(1, 99), (2, 1)])
    def test_finds_out_by_a_newer_head_and_goes_on_with_nothing(self, order: tuple[int, int]) -> None:
        world = grown()
        life, number = order
        own = world.hosts.chain().newest.number
        world.step(shown(replace(self.HEAD, life=life, number=number, base=1)))
        assert world.machine.newer == Newer(life, max(number, own)), "numbers of its own are never given again either"
        cuts = world.cuts
        world.write(("jobs", b"x", b"1"), events=1)
        world.wait(60_000)
        assert world.cuts == cuts
        world.start()
        assert world.machine.newer is not None, "the next start knows"

    def test_is_none_by_what_it_made_itself_or_another_signed_or_nobody_keeps(self) -> None:
        world = grown()
        own = world.hosts.chain().newest
        stranger = SimSigner("stranger")
        forged = shown(self.HEAD, stranger), shown(replace(self.HEAD, owner=stranger.node_id), stranger)
        beyond = shown(replace(self.HEAD, life=last_life(0) + 1))
        empty = Answered(HeadTag(), HOST, objects_pb2.ListSegmentsResponse(), None)
        away = Answered(HeadTag(), HOST, None, Unavailable("away", reason="NotConnected"))
        world.step(kept(world, own), *forged, beyond, empty, away)
        assert world.machine.newer is None


class TestAnOldStoreThatCaughtUp:
    """It has cut as many segments as the one of which it is a copy, or more, before a host answered."""

    def copied(self, theirs: int, ours: int) -> tuple[JournalWorld, list[SegmentHead]]:
        """A store that cut so many segments since it was copied, and what was cut meanwhile by that which it was."""
        first = grown(2)
        copy = JournalWorld(first.hosts)
        copy.below.commit(Batch([event for _, event in first.below.events()], dict(self.rows(first))))
        copy.store = NotingStore(copy.below, keys_max=1_000)
        copy.rng.seed(2)
        copy.start()
        copy.see_host()
        before = set(first.hosts.heads)
        cut(first, theirs)
        heads = [head for head in first.hosts.heads.values() if head.object_id not in before]
        cut(copy, ours)
        return copy, sorted(heads, key=lambda head: head.number)

    @staticmethod
    def rows(world: JournalWorld) -> dict[tuple[str, bytes], bytes | None]:
        return {(table, key): value for table in world.below.tables for key, value in world.below.scan(table)}

    @pytest.mark.parametrize(("theirs", "ours"), [(3, 3), (3, 5), (1, 1), (1, 9)])
    def test_is_found_out_by_any_segment_that_is_not_its_own(self, theirs: int, ours: int) -> None:
        world, heads = self.copied(theirs, ours)
        number = world.hosts.chain().newest.number
        assert heads[-1].number <= number, "the numbers tell nothing"
        for head in heads:
            world.step(kept(world, head))
            assert world.machine.newer == Newer(1, number)
            world.below.commit(Batch(writes={(JOURNAL, NEWER_KEY): None}))
            world.start()

    def test_is_found_out_when_its_own_of_that_number_has_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine_module, "SINCE_MAX", 4)
        world, heads = self.copied(2, 20)
        assert world.store.get(SEGMENTS, number_key(heads[-1].number)) is None, "a newer base is whole"
        world.start()
        world.step(kept(world, heads[-1]))
        assert world.machine.newer is not None

    def test_is_asked_of_each_host_until_that_has_answered(self) -> None:
        world = grown()
        away = Answered(HeadTag(), HOST, None, Unavailable("away", reason="NotConnected"))
        asked(world)
        world.step(away)
        world.wait(AGAIN_MS - 1)
        assert not asked(world)
        world.wait(1)
        assert len(asked(world)) == 1
        world.step(away, PeerDown(HOST))
        world.wait(AGAIN_MS)
        assert not asked(world)
        assert world.machine.deadline_ms() is None, "an idle node falls silent"

    def test_hosts_are_told_what_it_knows_and_asked_on_while_they_show_more(self) -> None:
        world = grown()
        assert len(asked(world)) > 1, "as it came up, and with cuts"
        world.step(Answered(HeadTag(), HOST, objects_pb2.ListSegmentsResponse(next_page_token="on"), None))
        (following,) = asked(world)
        assert following.page_token == "on"
        known = KnownSegments.read(following.known)
        heads = world.hosts.heads.values()
        assert all(known.has(head.life, head.number, head.object_id) for head in heads)
        assert not any(known.has(2, head.number, head.object_id) for head in heads)
        assert not any(known.has(1, head.number + 1, head.object_id) for head in heads)
        last = Answered(HeadTag(PAGES_MAX - 1), HOST, objects_pb2.ListSegmentsResponse(next_page_token="on"), None)
        world.step(last)
        assert not asked(world), "no host shows without end"

    def test_is_found_out_by_an_object_of_which_it_knows_nothing(self) -> None:
        world = grown()
        number = world.hosts.chain().newest.number
        world.step(ObjectAstray("o-" + "a" * 32))
        assert world.machine.newer == Newer(1, number)
        world.start()
        assert world.machine.newer == Newer(1, number), "and that is durable"


class TestNoOldStoreIs:
    """Nothing that befalls a store or its hosts makes it one."""

    def test_one_that_was_restored_and_forgot_what_came_last(self) -> None:
        world = grown()
        cut(world, 3)
        tail = max(world.hosts.heads.values(), key=lambda head: head.number)
        chain = newest_chain({name: head for name, head in world.hosts.heads.items() if head is not tail})
        writes = beginning(world.below, Life(OWNER, 2, chain.newest.number, b"t" * 16), chain.newest, chain.heads)
        world.store.commit(Batch(writes=dict(writes)))
        world.start()
        world.see_host()
        cut(world, 1)
        again = [head for head in world.hosts.heads.values() if head.number == tail.number]
        assert {head.life for head in again} == {1, 2}, "the same number, in two lives"
        world.step(*(kept(world, head) for head in world.hosts.heads.values()))
        assert world.machine.newer is None

    def test_one_that_went_on_as_an_old_one(self) -> None:
        world = grown()
        number = world.hosts.chain().newest.number
        other = shown(SegmentHead(OWNER, 1, number, 1, 500, "", ""))
        world.step(other)
        assert world.machine.newer == Newer(1, number)
        world.store.commit(Batch(writes=dict(behind(world.store, Life(OWNER, 2, number, b"t" * 16)))))
        world.start()
        world.see_host()
        world.write(("jobs", b"x", b"1"), events=1)
        world.settle()
        world.step(other, *(kept(world, head) for head in world.hosts.heads.values()))
        assert world.machine.newer is None
        assert world.hosts.chain().newest.order > (2, number)

    def test_one_whose_segment_was_sealed_and_never_kept(self) -> None:
        world = grown()
        world.write(("jobs", b"x", b"1"), events=1)
        world.wait()
        world.seal(lost=True)
        world.see_host()
        world.settle()
        world.wait()
        world.seal(fails=True)
        world.settle()
        world.step(*(kept(world, head) for head in world.hosts.heads.values()))
        assert world.machine.newer is None

    def test_one_of_which_a_segment_was_lost_and_came_back(self) -> None:
        world = grown()
        lost = world.hosts.chain().newest
        world.lose(lost.number)
        world.settle()
        assert world.hosts.chain().newest.number > lost.number
        world.step(kept(world, lost))
        assert world.machine.newer is None

    def test_one_of_which_a_host_shows_what_went_long_ago(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """That host was put back from a backup itself."""
        monkeypatch.setattr(machine_module, "SINCE_MAX", 4)
        monkeypatch.setattr(newest_module, "PAST_MAX", 8)
        world, heads = grown(0), dict[str, SegmentHead]()
        for number in range(30):
            world.write(("jobs", b"%d" % number, b"1"), events=1)
            world.settle()
            heads |= world.hosts.heads
        past = [*world.store.scan(PAST)]
        assert 0 < len(past) <= 8, "and what is remembered is bounded"
        assert len(heads) > len(world.hosts.heads) + len(past)
        world.start()
        world.see_host()
        current = {*world.hosts.heads}
        world.dropped.clear()
        world.step(*(kept(world, head) for head in heads.values()))
        assert world.machine.newer is None
        assert {*world.dropped} == {*heads} - current, "and the host is let drop it, remembered or not"

    def test_what_went_long_ago_stays_at_hosts_while_no_base_is_safe(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine_module, "SINCE_MAX", 4)
        world = grown(0)
        for number in range(30):
            world.write(("jobs", b"%d" % number, b"1"), events=1)
            world.settle()
            if number == 3:
                old = world.hosts.chain().newest
        assert old.object_id not in world.hosts.heads
        for lost in sorted(head.number for head in world.hosts.heads.values()):
            world.step(SegmentLost(lost))
        world.dropped.clear()
        world.step(kept(world, old))
        assert world.dropped == []

    def test_one_of_which_a_host_shows_what_it_never_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Made up by the host, of a number that nobody remembers."""
        monkeypatch.setattr(machine_module, "SINCE_MAX", 4)
        monkeypatch.setattr(newest_module, "PAST_MAX", 8)
        world = grown(0)
        for number in range(30):
            world.write(("jobs", b"%d" % number, b"1"), events=1)
            world.settle()
        head = SegmentHead(OWNER, 1, 2, 1, 2, "", "")
        world.dropped.clear()
        world.step(shown(head, SimSigner("another")))
        assert world.dropped == []
        world.step(shown(head))
        assert len(world.dropped) == 1, "what this node did sign it may drop"


def test_what_is_known_is_told_within_bounds() -> None:
    for last, marks in ((3, b"\0" * 5), (1, b"\0" * 12), (1 << 40, b"\0" * 6 * (MARKS_MAX + 1))):
        with pytest.raises(InvalidRequest, match=r"known\.marks"):
            KnownSegments.read(objects_pb2.KnownSegments(life=1, last=last, marks=marks))
    many = KnownSegments.of(1, 1 << 40, ["o-" + "a" * 32] * (MARKS_MAX + 1))
    assert KnownSegments.read(many.message()) == many


class TestASegmentThatIsKnownNoMore:
    ASTRAY = SegmentAstray("o-" + "a" * 32, 1)

    def restored_world(self) -> JournalWorld:
        """In its second life, which has no base of its own yet."""
        world = grown()
        row = state_pb2.JournalRow.FromString(world.store.get(JOURNAL, STATE_KEY) or b"")
        row.life, row.base = 2, 0
        world.store.commit(Batch(writes={(JOURNAL, STATE_KEY): row.SerializeToString(), (JOURNAL, NOTING_KEY): None}))
        world.start()
        world.see_host()
        return world

    def test_goes_once_this_life_has_a_base_that_is_safe_and_not_before(self) -> None:
        world = self.restored_world()
        world.step(self.ASTRAY)
        assert world.dropped == []
        world.write(("jobs", b"x", b"1"), events=1)
        world.wait()
        world.seal()
        assert self.ASTRAY.object_id not in world.dropped
        world.settle()
        assert self.ASTRAY.object_id in world.dropped
        world.dropped.clear()
        world.step(SegmentAstray("o-" + "b" * 32, 1))
        assert world.dropped == ["o-" + "b" * 32], "at once by now"

    def test_of_this_life_stays(self) -> None:
        world = self.restored_world()
        world.settle()
        world.step(self.ASTRAY._replace(life=2))
        world.write(("jobs", b"x", b"1"), events=1)
        world.settle()
        assert self.ASTRAY.object_id not in world.dropped


class TestALife:
    TOLD = Life(OWNER, 7, 30, b"t" * 16)

    def told(self, life: Life | None, signer: SimSigner = SIGNER) -> Answered:
        signed = sign_life(life, signer, SALT) if life is not None else None
        return Answered(HeadTag(), "h" * 32, objects_pb2.ListSegmentsResponse(life=signed), None)

    def later(self) -> JournalWorld:
        """One that lives its seventh life."""
        world = grown()
        row = state_pb2.JournalRow.FromString(world.store.get(JOURNAL, STATE_KEY) or b"")
        row.life, row.token = 7, b"t" * 16
        world.store.commit(Batch(writes={(JOURNAL, STATE_KEY): row.SerializeToString()}))
        world.start()
        world.see_host()
        return world

    @pytest.mark.parametrize("life", [TOLD, replace(TOLD, life=8), replace(TOLD, token=b"another".ljust(16))])
    def test_that_began_elsewhere_stops_this_one(self, life: Life) -> None:
        world = self.later()
        world.step(self.told(life))
        assert (world.machine.newer is None) == (life == self.TOLD)
        if life != self.TOLD:
            world.start()
            assert world.machine.newer == Newer(life.life, 30)

    def test_is_not_forgotten_over_a_head_of_this_one_that_came_along(self) -> None:
        world, told = self.later(), shown(SegmentHead(OWNER, 7, 99, 1, 500, "", ""))
        told.reply.life.CopyFrom(sign_life(replace(self.TOLD, life=8), SIGNER, SALT))
        world.step(told)
        assert world.machine.newer == Newer(8, 99)

    def test_of_which_a_host_has_not_heard_is_told_to_it(self) -> None:
        world = self.later()
        for known, calls in ((None, 1), (replace(self.TOLD, life=6), 1), (self.TOLD, 0)):
            world.calls.clear()
            world.step(self.told(known))
            begun = [call for call in world.calls if isinstance(call.request, objects_pb2.BeginLifeRequest)]
            assert len(begun) == calls
            for call in begun:
                assert (Life.decode(call.request.life.body).life, call.node) == (7, "h" * 32)
        assert world.machine.newer is None

    def test_that_is_made_up_changes_nothing_and_the_first_is_told_to_nobody(self) -> None:
        world = grown()
        world.calls.clear()
        stranger = SimSigner("stranger")
        world.step(
            self.told(None), self.told(self.TOLD, stranger), self.told(replace(self.TOLD, owner=stranger.node_id))
        )
        assert world.machine.newer is None
        assert not world.calls


class TestASealedSegment:
    def test_that_is_cut_off_or_changed_is_refused(self) -> None:
        world = JournalWorld()
        world.see_host()
        world.write(("jobs", b"a", b"1" * 1_000), events=1)
        world.wait()
        data = packed(world.waiting[0].segment)
        assert unpacked(data) == world.waiting[0].segment
        for wrong in (data[:-1], data + b"x", b"", b"no stream"):
            with pytest.raises(Corrupt):
                unpacked(wrong)


class TestAFence:
    def test_makes_every_counter_jump_and_forgets_own_copies(self) -> None:
        store = MemoryStore()
        store.commit(Batch(writes={("meta", b"boot"): (7).to_bytes(8, "big"), ("meta", b"outbox"): b"\0" * 7 + b"\3"}))
        writes = {**dict(fenced(store, OWNER, 2)), **dict(without_blobs(store))}
        assert int.from_bytes(writes["meta", b"boot"] or b"", "big") == 7 + BOOTS_AHEAD
        assert int.from_bytes(writes["meta", b"outbox"] or b"", "big") == 3 + 2 * NUMBERS_AHEAD
        assert int.from_bytes(writes["meta", b"quorum_life"] or b"", "big") == 2

    def test_lets_the_ledger_learn_and_speak_again_unless_its_chain_has_forked(self) -> None:
        store, own = MemoryStore(), node_id_bytes(OWNER)
        store.commit(Batch(writes={(LEDGER, MUTE_KEY): b"it was restored"}))
        writes = dict(fenced(store, OWNER, 2))
        assert writes[LEDGER, LEARN_KEY]
        assert writes[LEDGER, MUTE_KEY] is None
        forked = struct.pack(">Q32sQQB", 1, bytes(32), 1, 1, 0)
        store.commit(Batch(writes={(AUTHORS, own): forked}))
        assert (LEDGER, MUTE_KEY) not in dict(fenced(store, OWNER, 2))

    @pytest.mark.parametrize("number", [0, 1, 7, 15, CHANGES_MAX])
    def test_every_key_has_room_for_restores_that_nobody_tells_of(self, number: int) -> None:
        life = last_life(number - 1) if number else 1
        for _ in range(RESTORES - 1):
            draws = [life_after(life, draw, number) for draw in range(LIVES_APART)]
            assert len({*draws}) > 30, "apart"
            life = max(draws)
        assert life < life_after(life, LIVES_APART - 1, number) <= last_life(number)

    def test_a_life_that_nobody_tells_of_shares_no_number_with_the_next(self) -> None:
        """Two restores out of the same segments: what the first of them came to say, no host shows."""
        store = MemoryStore()
        store.commit(Batch(writes={("meta", b"outbox"): b"\0" * 7 + b"\3"}))
        lives = [life_after(1, draw, 0) for draw in (0, 5, LIVES_APART - 1)]
        assert len({*lives}) == 3
        assert min(lives) > 1
        with pytest.raises(FailedPrecondition, match="rotate identity"):
            life_after(last_life(0), 0, 0)
        assert last_life(0) < life_after(last_life(0), LIVES_APART - 1, 1) <= last_life(1)
        assert life_after(last_life(0) - 2, 7, 0) <= last_life(0)
        begun = [int.from_bytes(dict(fenced(store, OWNER, life))["meta", b"outbox"] or b"", "big") for life in lives]
        assert all(abs(one - other) >= NUMBERS_AHEAD for one, other in combinations(begun, 2))


class TestANodeThatWasNoCoreForAWhile:
    def test_tells_hosts_all_that_it_did_meanwhile(self) -> None:
        world = grown()
        end_noting(world.below)
        world.below.commit(Batch([b"meanwhile"], {("jobs", b"meanwhile"): b"done"}))
        world.start()
        world.see_host()
        world.settle()
        restored = MemoryStore()
        world.hosts.restore(restored)
        assert restored.get("jobs", b"meanwhile") == b"done"

    def test_starts_though_the_row_of_a_segment_is_damaged(self) -> None:
        world = grown()
        world.write(("jobs", b"open", b"1"), events=1)
        world.wait()
        world.seal()
        (head,) = world.unacked
        world.below.commit(Batch(writes={(OBJECTS, head.object_id.encode()): b""}))
        world.below.damage(OBJECTS, head.object_id.encode())
        world.start()
        assert world.machine.waiting == 1

    @pytest.mark.parametrize("state", ["DURABLE", "DAMAGED", "LOCAL"])
    def test_hears_which_segments_hosts_lost_meanwhile(self, state: str) -> None:
        """Durable once, and nobody holds it; or given up before it was."""
        world = grown()
        safe, newest = world.machine.safe_events, world.hosts.chain().newest
        made = objects_pb2.Object(state=objects_pb2.ObjectState.Value(f"OBJECT_STATE_{state}"))
        row = objects_pb2.ObjectRow(object=made)
        world.below.commit(Batch(writes={(OBJECTS, newest.object_id.encode()): row.SerializeToString()}))
        world.start()
        assert world.machine.lost == newest.number
        assert world.machine.safe_events < safe

    def test_hears_which_segments_became_durable_meanwhile(self) -> None:
        world = grown()
        for number in range(OPEN_MAX):
            world.write(("jobs", b"open %d" % number, b"1"), events=1)
            world.wait()
            world.seal()
        assert world.machine.waiting == OPEN_MAX
        for head in world.unacked:
            made = objects_pb2.Object(state=objects_pb2.OBJECT_STATE_DURABLE, acks=[objects_pb2.ReplicaAck()])
            row = objects_pb2.ObjectRow(object=made)
            world.below.commit(Batch(writes={(OBJECTS, head.object_id.encode()): row.SerializeToString()}))
        world.unacked.clear()
        end_noting(world.below)
        world.start()
        world.see_host()
        assert world.machine.waiting == 0
        world.settle()
        assert world.machine.safe_events == world.store.journal_seq, "it is cut again"
