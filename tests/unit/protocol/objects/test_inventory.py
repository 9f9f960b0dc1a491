"""An inventory's sum is that of its rows, whatever came and went, and in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Delete, Put
from offgrid_node.protocol.objects.inventory import (
    NOTHING_KEPT,
    Holding,
    Inventory,
    count_of,
    counted,
    holdings_of,
    inventory_key,
    summary_of,
)
from offgrid_node.protocol.objects.tables import GIVEN, KEPT
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.rows import damaged_row
from offgrid_node.storage.store import Batch

STEPS = st.lists(
    st.tuples(st.sampled_from(["ann", "bob"]), st.sampled_from(["o-1", "o-2", "o-3"]), st.sets(st.integers(0, 5))),
    max_size=20,
)


def written(steps: list[tuple[str, str, set[int]]], table: str = KEPT) -> MemoryStore:
    """Each step in a batch of its own, as the runtime would commit it."""
    store, draft = MemoryStore(), Draft()
    draft.load(store)
    inventory = Inventory(draft, table)
    for at, (node, object_id, shards) in enumerate(steps):
        draft.begin(Now(at, at))
        inventory.put(node, object_id, sorted(shards))
        store.commit(Batch(writes=writes_in(draft)))
    return store


def writes_in(draft: Draft) -> dict[tuple[str, bytes], bytes | None]:
    writes: dict[tuple[str, bytes], bytes | None] = {}
    for effect in draft.take():
        assert isinstance(effect, Put | Delete)
        writes[effect.table, effect.key] = effect.value if isinstance(effect, Put) else None
    return writes


class TestTheSum:
    @given(STEPS)
    def test_is_that_of_what_is_there(self, steps: list[tuple[str, str, set[int]]]) -> None:
        store = written(steps)
        for node in ("ann", "bob"):
            there = {object_id: tuple(sorted(shards)) for who, object_id, shards in steps if who == node}
            expected = NOTHING_KEPT
            for object_id, shards in there.items():
                expected = counted(expected, Holding(object_id, shards), 1) if shards else expected
            assert summary_of(store, KEPT, node) == expected
            assert {h.object_id: h.shards for h in holdings_of(store, KEPT, node)} == {
                object_id: shards for object_id, shards in there.items() if shards
            }

    def test_of_the_same_items_is_the_same_on_both_sides(self) -> None:
        steps = [("x", "o-1", {0}), ("x", "o-2", {3, 4})]
        given_, kept = written(steps, GIVEN), written(steps[::-1], KEPT)
        assert summary_of(given_, GIVEN, "x") == summary_of(kept, KEPT, "x") != NOTHING_KEPT

    def test_tells_other_shards_of_the_same_object(self) -> None:
        one, other = written([("x", "o-1", {0})]), written([("x", "o-1", {1})])
        assert summary_of(one, KEPT, "x") != summary_of(other, KEPT, "x")
        assert count_of(summary_of(one, KEPT, "x")) == 1

    def test_of_what_is_all_gone_is_that_of_nothing(self) -> None:
        assert summary_of(written([("x", "o-1", {0}), ("x", "o-1", set())]), KEPT, "x") == NOTHING_KEPT

    def test_stays_that_of_what_is_there_where_a_damaged_row_is_written_anew(self) -> None:
        store, draft = written([("x", "o-1", {0, 3}), ("x", "o-2", {1})]), Draft()
        store.damage(KEPT, inventory_key("x", "o-1"))
        draft.load(store)
        inventory = Inventory(draft, KEPT)
        for object_id in ("o-1", "o-2"):
            inventory.mend("x", object_id, (0, 3))
        assert (inventory.shards("x", "o-1"), inventory.shards("x", "o-2")) == ((0, 3), (1,))
        inventory.put("x", "o-1", ())
        store.commit(Batch(writes=writes_in(draft)))
        assert summary_of(store, KEPT, "x") == counted(NOTHING_KEPT, Holding("o-2", (1,)), 1)

    def test_counts_nothing_that_is_not_there_because_a_row_beside_it_is_damaged(self) -> None:
        class Edged(MemoryStore):
            """Says of a row that is not there which one beside it is damaged, as LMDB's rows do."""

            def get(self, table: str, key: bytes) -> bytes | None:
                if table == KEPT:
                    raise damaged_row(table, inventory_key("x", "o-1"))
                return super().get(table, key)

        store, draft = Edged(), Draft()
        draft.load(store)
        inventory = Inventory(draft, KEPT)
        inventory.mend("x", "o-2", (0,))
        inventory.put("x", "o-2", (0,))
        store.commit(Batch(writes=writes_in(draft)))
        assert summary_of(store, KEPT, "x") == counted(NOTHING_KEPT, Holding("o-2", (0,)), 1)
