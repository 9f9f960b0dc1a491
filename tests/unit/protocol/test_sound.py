"""A walk over rows comes behind a damaged one, in stores that give its neighbours and in those that do not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.sound import keys, sound
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.rows import damaged_order, damaged_row
from offgrid_node.storage.store import Batch

KEYS = st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=12, unique=True).map(sorted)


class Wary:
    """Refuses to begin right behind a damaged row too, as a store does that looks at the edges of what it reads."""

    def __init__(self, rows: list[bytes], damaged: set[bytes]) -> None:
        self.rows, self.damaged = rows, damaged

    def scan(self, table: str, start: bytes, *, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        below = [key for key in self.rows if key < start]
        if below and below[-1] in self.damaged:
            raise damaged_row(table, below[-1])
        for key in self.rows:
            if key >= start and key.startswith(prefix):
                if key in self.damaged:
                    raise damaged_row(table, key)
                yield key, b""


class Edged(Wary):
    """Refuses to begin behind a damaged row, unless right behind it, and to end before one, as LMDB's rows do."""

    def scan(self, table: str, start: bytes, *, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        low = max(start, prefix)
        below = [key for key in self.rows if key < low]
        if below and below[-1] in self.damaged and below[-1] + b"\0" != low:
            raise damaged_row(table, below[-1])
        for key in self.rows:
            if key >= low:
                if key in self.damaged:
                    raise damaged_row(table, key)
                if not key.startswith(prefix):
                    return
                yield key, b""


@given(KEYS, st.data())
def test_of_a_store_that_gives_all_others_it_misses_none(keys: list[bytes], data: st.DataObject) -> None:
    store, damaged = MemoryStore(), data.draw(st.sets(st.sampled_from(keys)))
    store.commit(Batch(writes={("t", key): b"" for key in keys}))
    for key in damaged:
        store.damage("t", key)
    heard = list[bytes]()
    found = [key for key, _ in sound(store.scan, "t", on_damaged=heard.append)]
    assert found == [key for key in keys if key not in damaged]
    assert heard == sorted(damaged)


@given(KEYS, st.data())
def test_it_ends_whatever_the_store_refuses_and_gives_what_lies_before(keys: list[bytes], data: st.DataObject) -> None:
    damaged = data.draw(st.sets(st.sampled_from(keys)))
    found = [key for key, _ in sound(Wary(keys, damaged).scan, "t")]
    assert found == sorted({*found} - damaged)
    first = min((keys.index(key) for key in damaged), default=len(keys))
    assert found[:first] == keys[:first]


def test_a_wary_store_costs_few_neighbours() -> None:
    keys = [b"o-%06d" % number for number in range(2_000)]
    found = [key for key, _ in sound(Wary(keys, {keys[1_234]}).scan, "t")]
    assert len(keys) - 10 <= len(found) < len(keys)


def test_a_prefix_is_kept() -> None:
    store = MemoryStore()
    store.commit(Batch(writes={("t", key): b"" for key in (b"a1", b"b1", b"b2", b"b3", b"c1")}))
    store.damage("t", b"b2")
    assert [key for key, _ in sound(store.scan, "t", prefix=b"b")] == [b"b1", b"b3"]


@pytest.mark.parametrize("damaged", [b"a1", b"b2", b"c1"])
def test_damage_beside_what_is_asked_for_hides_nothing_of_it_and_is_not_told(damaged: bytes) -> None:
    rows = Edged([b"a1", b"b1", b"b2", b"b3", b"c1"], {damaged})
    heard = list[bytes]()
    found = [key for key, _ in sound(rows.scan, "t", prefix=b"b", on_damaged=heard.append)]
    assert found == [key for key in (b"b1", b"b2", b"b3") if key != damaged]
    assert heard == [damaged] * damaged.startswith(b"b")


@given(KEYS, st.data())
def test_a_walk_that_resumes_gives_nothing_that_lies_before_its_start(keys: list[bytes], data: st.DataObject) -> None:
    damaged = data.draw(st.sets(st.sampled_from(keys)))
    start, prefix = data.draw(st.sampled_from(keys)), data.draw(st.sampled_from(keys))[:1]
    heard = list[bytes]()
    found = [key for key, _ in sound(Edged(keys, damaged).scan, "t", start, prefix=prefix, on_damaged=heard.append)]
    asked = [key for key in keys if key >= start and key.startswith(prefix)]
    assert found == [key for key in asked if key not in damaged]
    assert heard == [key for key in asked if key in damaged]


@given(KEYS, st.data())
def test_keys_are_those_of_damaged_rows_too(rows: list[bytes], data: st.DataObject) -> None:
    damaged, prefix = data.draw(st.sets(st.sampled_from(rows))), data.draw(st.sampled_from(rows))[:1]
    found = [*keys(Edged(rows, damaged).scan, "t", prefix=prefix)]
    assert found == [key for key in rows if key.startswith(prefix)]


def test_damage_of_another_kind_is_raised() -> None:
    def scan(table: str, start: bytes, *, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        raise damaged_order(table, b"key")

    with pytest.raises(Corrupt, match="out of order"):
        next(sound(scan, "t"))
