"""The driver: any two nodes learn where they differ, each time by the cheapest way that serves."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.reconcile import driver
from offgrid_node.protocol.reconcile.driver import ANYWHERE, RECENT, Answering, Asking, View
from offgrid_node.protocol.reconcile.ranges import Item

KEY = bytes(range(16))
ITEMS = st.frozensets(
    st.builds(Item, st.integers(0, 2**40) | st.sampled_from([7, 8]), st.binary(min_size=16, max_size=16)), max_size=40
)
HEIGHTS = st.dictionaries(st.binary(min_size=20, max_size=20), st.integers(1, 2**40), max_size=4)


def reconcile(here: View, there: View) -> Asking:
    asking, other = Asking(here, KEY), Answering(there)
    message = asking.begin()
    while message:
        message = asking.on_answer(other.answer(message))
    asking.there |= other.named(asking.code, asking.unnamed)
    assert asking.complete
    return asking


def view(items: frozenset[Item], **heights: int) -> View:
    return View({name.encode().ljust(20): height for name, height in heights.items()}, items)


def made(rng: Random, count: int, start: int = 0) -> frozenset[Item]:
    return frozenset(Item(start + n, rng.randbytes(16)) for n in range(count))


class TestAnyTwoNodes:
    @given(ITEMS, ITEMS, ITEMS, HEIGHTS, HEIGHTS)
    def test_learn_where_they_differ(
        self,
        shared: frozenset[Item],
        here: frozenset[Item],
        there: frozenset[Item],
        here_heights: dict[bytes, int],
        there_heights: dict[bytes, int],
    ) -> None:
        one, other = View(here_heights, here | shared), View(there_heights, there | shared)
        asking = reconcile(one, other)
        assert (asking.here, asking.there) == (one.items - other.items, other.items - one.items)

    @given(ITEMS, ITEMS, ITEMS, st.integers(1, 30))
    def test_whatever_counts_as_recent(
        self, shared: frozenset[Item], here: frozenset[Item], there: frozenset[Item], recent: int
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(driver, "RECENT_ITEMS", recent)
            one, other = View({}, here | shared), View({}, there | shared)
            asking = reconcile(one, other)
            assert (asking.here, asking.there) == (one.items - other.items, other.items - one.items)


class TestTheWay:
    def test_when_in_sync_is_one_round_of_few_bytes(self) -> None:
        same = view(made(Random(1), 5_000), ann=2_000, bob=3_000)
        asking = reconcile(same, same)
        assert asking.rounds == 1
        assert asking.sent_bytes + asking.received_bytes < 100

    def test_to_a_recent_tail_is_by_ranges(self) -> None:
        rng = Random(2)
        shared = made(rng, 5_000)
        one = view(shared | made(rng, 20, 5_000), ann=20)
        other = view(shared | made(rng, 20, 5_000), bob=20)
        hello = Answering(other).answer(Asking(one, KEY).begin())
        asking = reconcile(one, other)
        assert hello[0] == RECENT
        assert len(asking.here) == len(asking.there) == 20
        assert asking.gap.there == {b"bob".ljust(20): (1, 20)}
        assert asking.gap.here == {b"ann".ljust(20): (1, 20)}
        assert asking.sent_bytes + asking.received_bytes < 3_000

    def test_to_a_hole_far_back_is_by_symbols(self) -> None:
        """Which vectors know nothing of."""
        whole = sorted(made(Random(3), 5_000))
        one, other = view(frozenset(whole[:100] + whole[101:]), ann=5_000), view(frozenset(whole), ann=5_000)
        hello = Answering(other).answer(Asking(one, KEY).begin())
        asking = reconcile(one, other)
        assert hello[0] == ANYWHERE
        assert asking.there == {whole[100]}
        assert not asking.gap.there
        assert asking.sent_bytes + asking.received_bytes < 1_000


class TestALiar:
    @given(st.binary(max_size=120))
    def test_who_asks_anything_is_answered_or_refused(self, raw: bytes) -> None:
        other = Answering(view(made(Random(4), 50), ann=50))
        for question in (raw, bytes([1 + len(raw) % 3]) + KEY + raw):
            try:
                other.answer(question)
            except PeerFault as fault:
                assert fault.reason in ("BadQuestion", "BadRanges")  # noqa: PT017 - some bytes are questions

    @given(st.lists(st.binary(max_size=120), min_size=1, max_size=4), st.sampled_from([b"", b"\1", b"\2", b"\3"]))
    def test_who_answers_anything_is_refused_or_leads_nowhere(self, answers: list[bytes], first: bytes) -> None:
        asking = Asking(view(made(Random(5), 50), ann=50), KEY)
        asking.begin()
        try:
            for raw in (first, *answers):
                if not asking.on_answer(raw):
                    break
        except PeerFault as fault:
            assert fault.reason.startswith("Bad")  # noqa: PT017 - some bytes are answers
        assert asking.here <= made(Random(5), 50)
