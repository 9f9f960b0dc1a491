"""Rows that lead to blocks: each that does not is found."""

from __future__ import annotations

import pytest
from ledger_bench import OWNER, W1, Bench, vote

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import indexes
from offgrid_node.protocol.ledger.indexes import wrong_rows
from offgrid_node.protocol.ledger.tables import AUTHORS, CHAINS, LOG, PLACES, chain_key, number_key, number_of
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import SALT

OWNERS = node_id_bytes(OWNER)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    for amount in (1, 2, 3):
        bench.says(OWNER, vote(bench.tx(amount=amount)))
    fork = bench.block(W1, vote(bench.tx()))
    bench.push(fork)
    bench.rewind(W1)
    bench.says(W1, vote(bench.tx(amount=9)))
    assert [*wrong_rows(bench.store, SALT)] == []
    return bench


def wrong(bench: Bench, table: str, key: bytes, value: bytes | None) -> list[str]:
    assert bench.store.get(table, key) is not None
    bench.store.commit(Batch(writes={(table, key): value}))
    return [f"{where}: {what}" for where, what in wrong_rows(bench.store, SALT)]


def test_of_a_digest(bench: Bench) -> None:
    second = bench.machine._chains.header_at(OWNERS, 2)
    assert second is not None
    assert wrong(bench, PLACES, second.digest, number_key(1)) == [
        "position 2: the row of its digest does not lead to it"
    ]


def test_of_a_height(bench: Bench) -> None:
    found = wrong(bench, CHAINS, chain_key(OWNERS, 2), None)
    assert found == ["position 2: the row of its author's height does not lead to it"]


def test_of_an_author(bench: Bench) -> None:
    (older,) = (row for name, row in bench.store.scan(AUTHORS) if name == OWNERS)
    assert "is not that of its newest block" in wrong(bench, AUTHORS, OWNERS, older[:8] + bytes(32) + older[40:])[0]
    assert wrong(bench, AUTHORS, OWNERS, None) == [f"author {OWNER}: it has blocks and no row"]


def test_where_the_newest_block_is_gone(bench: Bench) -> None:
    assert wrong(bench, LOG, number_key(3), None) == [
        f"author {OWNER}: its row, of height 3, is not that of its newest block"
    ]


def test_of_who_forked_what_is_pruned_is_not_missed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"author {W1}: its row, of height 1, is not that of its newest block"
    place = bench.store.get(CHAINS, chain_key(node_id_bytes(W1), 1)) or b""
    row = bench.store.get(AUTHORS, node_id_bytes(W1)) or b""
    later = row[:40] + number_key(number_of(place) + 100) + row[48:]
    assert wrong(bench, AUTHORS, node_id_bytes(W1), later) == [said], "as if one beside its chain had gone"
    base = ledger_pb2.BaseRow(author=node_id_bytes(W1), height=2, digest=bytes(32))
    monkeypatch.setattr(indexes, "pruned_behind", lambda _: [base])
    assert [*wrong_rows(bench.store, SALT)] == []
    assert wrong(bench, LOG, place, None) == [], "its whole branch, where others have another"
    base.height = 0
    assert [f"{where}: {what}" for where, what in wrong_rows(bench.store, SALT)] == [said]


@pytest.mark.parametrize(("table", "key"), [(AUTHORS, OWNERS), (LOG, number_key(2))])
def test_what_is_no_row_is_named(bench: Bench, table: str, key: bytes) -> None:
    with pytest.raises(Corrupt, match=f"{table}, row {key.hex()}"):
        wrong(bench, table, key, b"\xff")
