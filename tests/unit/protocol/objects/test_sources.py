"""Of whose shards a missing one is made: the sums give the very shard, whoever keeps the others, and ask few nodes."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.events import HOST, PeerUp
from offgrid_node.protocol.objects.code import added, combination, matrix
from offgrid_node.protocol.objects.errands import SumPart
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.parcels import UNFIT_MAX_MS, UNFIT_MS, Parcel, Terms
from offgrid_node.protocol.objects.sources import SAME, Sources, suspected

NOW = Now(1_000, 0)


def parcel(k: int, layout: tuple[str, ...], held: dict[str, tuple[int, ...]]) -> Parcel:
    weights = dict.fromkeys(sorted({*layout} - {""}), 1_000)
    terms = Terms(weights, layout, 0)
    return Parcel(1, "o-x", 2_000, 3, 10, True, k, len(layout), local=False, epoch=1, terms=terms, held=held)


def copies(held: tuple[str, ...]) -> Parcel:
    return Parcel(1, "o-x", 2_000, 3, 10, True, local=False, epoch=1, held=dict.fromkeys(held, (0,)))


def hosts(*alive: str) -> Hosts:
    known = Hosts("owner", 600_000)
    for node in alive:
        known.on_up(PeerUp(node, "", frozenset({HOST}), 1_000, ""), NOW)
    return known


def shards(k: int, n: int, rng: Random) -> list[bytes]:
    data = [rng.randbytes(8) for _ in range(k)]
    return [combination(row, data) for row in matrix(k, n)]


def total(parts: tuple[SumPart, ...], real: list[bytes]) -> bytes:
    """What the nodes in their row make together."""
    whole = bytes(8)
    for part in parts:
        whole = added(whole, combination(part.coefficients, [real[shard] for shard in part.shards]))
    return whole


class TestASum:
    @pytest.mark.parametrize(("k", "n"), [(1, 2), (2, 4), (3, 5), (4, 7)])
    def test_is_the_shard_whichever_k_of_the_others_are_there(self, k: int, n: int) -> None:
        real, names = shards(k, n, Random(k)), [f"n{shard}" for shard in range(n)]
        for there in combinations(range(n), k):
            for missing in {*range(n)} - {*there}:
                wanted = parcel(k, tuple(names), {names[shard]: (shard,) for shard in there})
                sums = Sources(hosts(*names)).sums(wanted, names[missing], NOW.mono_ms)
                assert sums is not None
                assert [*sums] == [missing]
                assert total(sums[missing], real) == real[missing]

    def test_of_nodes_that_keep_several_takes_few_and_each_once(self) -> None:
        layout = tuple(f"n{shard // 2}" for shard in range(20))
        held = {f"n{node}": (2 * node, 2 * node + 1) for node in range(2, 10)}
        real = shards(12, 20, Random(1))
        sums = Sources(hosts(*held, "n0")).sums(parcel(12, layout, held), "n0", NOW.mono_ms)
        assert sums is not None
        assert sorted(sums) == [0, 1]
        for shard, parts in sums.items():
            assert len({part.node for part in parts}) == len(parts) == 6
            assert total(parts, real) == real[shard]

    def test_begins_with_what_the_node_itself_keeps(self) -> None:
        layout = ("a", "b", "c", "d", "a")
        sums = Sources(hosts(*"abcd")).sums(parcel(3, layout, {"a": (0,), "b": (1,), "c": (2,), "d": (3,)}), "a", 0)
        assert sums is not None
        assert sums[4][0].node == "a"

    def test_of_too_few_is_none(self) -> None:
        layout = tuple("abcde")
        wanted = parcel(3, layout, {"a": (0,), "b": (1,), "c": (2,)})
        assert Sources(hosts("a", "b", "d")).sums(wanted, "d", NOW.mono_ms) is None, "c is not alive"
        wanted.unfit["a"] = NOW.mono_ms + UNFIT_MS, 1
        known = Sources(hosts(*"abcd"))
        assert known.sums(wanted, "d", NOW.mono_ms) is None
        assert known.sums(wanted, "d", NOW.mono_ms + UNFIT_MS) is not None

    def test_shuns_who_gave_parts_of_a_wrong_one_while_there_are_others(self) -> None:
        layout = tuple("abcdef")
        wanted = parcel(2, layout, {node: (shard,) for shard, node in enumerate("abcde")})
        first = Sources(hosts(*layout)).sums(wanted, "f", 0)
        assert first is not None
        wanted.rebuilding["f"] = suspected(first)
        assert wanted.distrust("f", "", spoilt=True, now_ms=0)
        second = Sources(hosts(*layout)).sums(wanted, "f", 0)
        assert second is not None
        assert not {*suspected(first)} & {*suspected(second)}

    def test_is_the_shard_itself_where_its_former_host_is_there(self) -> None:
        wanted = parcel(3, tuple("abcde"), {"a": (0,), "b": (1,), "c": (2,), "d": (3,), "x": (4,)})
        wanted.former[4] = "x"
        sums = Sources(hosts(*"abcdex")).sums(wanted, "e", 0)
        assert sums == {4: (SumPart("x", bytes([4]), SAME),)}

    def test_of_copies_is_any_other(self) -> None:
        sums = Sources(hosts("a", "b", "c")).sums(copies(("a", "b")), "c", 0)
        assert sums is not None
        (part,) = sums[0]
        assert (part.node in "ab", part.shards, part.coefficients) == (True, b"", SAME)
        assert Sources(hosts("c")).sums(copies(("a", "b")), "c", 0) is None


class TestWhetherTheyCanBeLaidBeforeAnybodyHasTheBytes:
    layout, held = tuple("abcde"), {node: (shard,) for shard, node in enumerate("abcde")}

    def test_when_enough_stay(self) -> None:
        known = Sources(hosts(*"abcdf"))
        assert known.suffice(parcel(3, self.layout, self.held), ("a", "b", "c", "d", "f"), 0)
        assert known.suffice(parcel(4, self.layout, self.held), ("a", "b", "c", "d", "f"), 0)
        assert not known.suffice(parcel(5, self.layout, self.held), ("a", "b", "c", "d", "f"), 0)

    def test_not_of_those_who_are_away(self) -> None:
        assert not Sources(hosts(*"abf")).suffice(parcel(3, self.layout, self.held), ("a", "b", "c", "d", "f"), 0)

    def test_not_when_a_host_would_drop_what_it_has_for_it(self) -> None:
        known, wanted = Sources(hosts(*"abcdef")), parcel(3, self.layout, self.held)
        assert not known.suffice(wanted, ("b", "a", "c", "d", "e"), 0), "a and b change places"
        assert known.suffice(wanted, ("f", "b", "c", "d", "e"), 0), "a has none any more: it keeps it until it is told"


def test_a_host_cannot_blame_whom_it_was_not_told_to_ask() -> None:
    wanted = parcel(2, tuple("abcd"), {"a": (0,), "b": (1,)})
    assert not wanted.distrust("c", "a", spoilt=False, now_ms=0)
    wanted.rebuilding["c"] = suspected({2: (SumPart("a", b"\0", SAME),)})
    assert not wanted.distrust("c", "b", spoilt=False, now_ms=0)
    assert wanted.distrust("c", "a", spoilt=False, now_ms=0)
    assert wanted.unfit == {"a": (UNFIT_MS, 1)}


def test_who_again_and_again_does_not_give_its_part_is_left_out_for_longer_each_time() -> None:
    wanted, now_ms, waits = parcel(2, tuple("abcd"), {"a": (0,), "b": (1,)}), 0, list[int]()
    wanted.rebuilding["c"] = suspected({2: (SumPart("a", b"\0", SAME),)})
    for _ in range(8):
        assert wanted.distrust("c", "a", spoilt=False, now_ms=now_ms)
        waits.append(wanted.unfit["a"][0] - now_ms)
        now_ms = wanted.unfit["a"][0]
    assert waits == [UNFIT_MS, 2 * UNFIT_MS, 4 * UNFIT_MS, 8 * UNFIT_MS, 16 * UNFIT_MS, *3 * [UNFIT_MAX_MS]]
