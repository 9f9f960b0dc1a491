"""Verifying a store that has forgotten blocks: from the checkpoint behind which they are gone."""

from __future__ import annotations

from functools import cache

import pytest
from epoch_world import EpochWorld, turn
from verified_rows import verified

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.tables import ACCOUNTS, BEFORE, CHECKPOINTS, LOG, SEALS, TXS, number_key, number_of
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

Rows = dict[tuple[str, bytes], bytes | None]
TABLES = (ACCOUNTS, BEFORE, CHECKPOINTS, LOG, SEALS, TXS, "ledger_meta")


@cache
def lived() -> EpochWorld:
    world = EpochWorld()
    for _ in range(4):
        turn(world)
    world.pay(4, 5, 77)
    world.run(3_000)
    world.agree()
    return world


def store_of(place: int = 0) -> MemoryStore:
    """A copy."""
    store, kept = MemoryStore(), lived().nodes[place].store
    store.commit(Batch(writes={(table, key): value for table in TABLES for key, value in kept.scan(table)}))
    return store


def said(store: MemoryStore) -> list[tuple[str, str]]:
    return [(finding.where, finding.what) for finding in verified(store, lived().signed).findings]


@pytest.mark.parametrize("place", range(6))
def test_a_store_that_has_pruned_holds(place: int) -> None:
    found = verified(store_of(place), lived().signed)
    assert found.findings == []
    assert (found.first, found.epochs, found.unsealed) == (3, 1, [])
    assert found.final >= 4


def test_accounts_in_bites_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.protocol.ledger.verification.BOOT_ROWS", 2)
    assert verified(store_of(), lived().signed).findings == []


def test_blocks_that_are_still_to_be_forgotten_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.protocol.ledger.replay.LEFT_MAX", 2)
    earlier, store = EpochWorld(), store_of()
    for _ in range(3):
        turn(earlier)
    left: Rows = {(LOG, key): raw for key, raw in earlier.nodes[0].store.scan(LOG) if store.get(LOG, key) is None}
    assert len(left) > 10
    store.commit(Batch(writes=left))
    assert said(store) == []


def test_an_account_that_is_another_now_is_found() -> None:
    store = store_of()
    changed = {key[8:] for key, _ in store.scan(BEFORE)}
    key, row = next((key, row) for key, row in store.scan(ACCOUNTS) if key in changed)
    store.commit(Batch(writes={(ACCOUNTS, key): richer(row)}))
    assert [where[:7] for where, _ in said(store)] == ["account"]


def test_one_that_was_another_when_the_checkpoint_was_made_is_found() -> None:
    store = store_of()
    key, row = next((key, row) for key, row in store.scan(BEFORE) if number_of(key[:8]) == 3 and row)
    store.commit(Batch(writes={(BEFORE, key): richer(row)}))
    what = "accounts as they were at its end do not have the root of its checkpoint"
    assert said(store) == [("epoch 2", what)]


def test_a_block_that_is_damaged_is_found() -> None:
    store = store_of()
    key, raw = [*store.scan(LOG)][-1]
    block = ledger_pb2.Block.FromString(raw)
    block.header.signature = bytes(64)
    store.commit(Batch(writes={(LOG, key): block.SerializeToString()}))
    assert ("signature is not its author's" in said(store)[0][1], said(store)[0][0]) == (
        True,
        f"position {number_of(key)}",
    )


def test_a_block_that_is_missing_is_found() -> None:
    store = store_of()
    kept = [(key, ledger_pb2.Block.FromString(raw)) for key, raw in store.scan(LOG)]
    store.commit(Batch(writes={(LOG, kept[len(kept) // 2][0]): None}))
    assert any("does not belong to the ledger" in what for _, what in said(store))


@pytest.mark.parametrize("epoch", [0, 2])
def test_seals_that_are_forged_are_found(epoch: int) -> None:
    """Of four witnesses two are enough, and one may lie."""
    store = store_of()
    seals = [*store.scan(SEALS, prefix=number_key(epoch))]
    assert len(seals) >= 3
    forged: Rows = {(SEALS, key): row[:32] + bytes(64) for key, row in seals[:-2]}
    store.commit(Batch(writes=forged))
    assert said(store) == []
    key, row = seals[-2]
    store.commit(Batch(writes={(SEALS, key): row[:32] + bytes(64)}))
    what = "too few of the seals of its checkpoint are good: no honest witness need have signed it"
    assert said(store) == [(f"epoch {epoch}", what)]


def test_where_seals_are_not_kept_that_is_told() -> None:
    store = store_of()
    store.commit(Batch(writes={(SEALS, key): None for key, _ in store.scan(SEALS, prefix=number_key(1))}))
    found = verified(store, lived().signed)
    assert (found.findings, found.unsealed) == ([], [1])


def test_a_checkpoint_of_another_chain_is_found() -> None:
    store = store_of()
    store.commit(Batch(writes={(CHECKPOINTS, number_key(1)): store.get(CHECKPOINTS, number_key(2))}))
    assert ("epoch 1", "its checkpoint does not follow the one before it") in said(store)
    store.commit(Batch(writes={(CHECKPOINTS, number_key(1)): None}))
    assert said(store) == [("epoch 1", "its checkpoint is not there")]


def test_other_heads_than_the_checkpoints_are_found() -> None:
    store = store_of()
    row = ledger_pb2.CheckpointRow.FromString(store.get(CHECKPOINTS, number_key(2)) or b"")
    row.heads[0].height += 1
    store.commit(Batch(writes={(CHECKPOINTS, number_key(2)): row.SerializeToString()}))
    assert said(store) == [("epoch 2", "the heads of chains at its end are not those that its checkpoint names")]


def richer(row: bytes) -> bytes:
    account = Account.decode(row)
    return Account(account.balance_micro + 1, account.next_seq, account.head).encode()
