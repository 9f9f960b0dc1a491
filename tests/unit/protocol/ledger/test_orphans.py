"""What is wanted of blocks that are not here yet, over restarts."""

from __future__ import annotations

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Put
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import seal_block
from offgrid_node.protocol.ledger.items import Seen
from offgrid_node.protocol.ledger.orphans import GIVE_UP_MS, NAMED_MAX, WANTED_MAX, Orphans
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import SALT, Key, name_of

DIGEST, PEER, AUTHOR, LIAR = bytes(32), "somebody", bytes(20), b"L" * 20


def test_what_was_named_before_a_restart_and_again_after_it_is_forgotten_once_it_came() -> None:
    store, draft = MemoryStore(), Draft()
    before = Orphans(draft)
    before.want([DIGEST], AUTHOR, PEER, 0, named=True)
    store.commit(Batch(writes={(e.table, e.key): e.value for e in draft.take() if isinstance(e, Put)}))

    draft = Draft()
    draft.load(store)
    after = Orphans(draft)
    after.load(0)
    after.want([DIGEST], AUTHOR, PEER, 1)
    assert after.is_wanted(DIGEST)
    assert after.came(DIGEST) == []
    assert not after.is_wanted(DIGEST)


def test_what_one_author_names_crowds_out_nothing_of_another_though_one_peer_brings_both() -> None:
    orphans = Orphans(Draft())
    orphans.want([DIGEST], AUTHOR, PEER, 0, named=True)
    for number in range(1, 2 * NAMED_MAX):
        orphans.want([number.to_bytes(32, "big")], LIAR, PEER, 0, named=True)
    for number in range(2 * NAMED_MAX, 2 * NAMED_MAX + 2 * WANTED_MAX):
        orphans.want([number.to_bytes(32, "big")], LIAR, PEER, 0)
    assert orphans.is_wanted(DIGEST)
    assert len(orphans.ask_for(PEER, 10_000, 0)) == 1 + NAMED_MAX + WANTED_MAX


def test_what_a_wanted_orphan_leans_on_is_wanted_though_nobody_asked_for_it_by_name_when_it_came() -> None:
    """Then its chain was plain, and what lacked was asked for by height; now its author may be frozen."""
    key = Key(name_of(0))
    first, second, third = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
    below = seal_block(node_id_bytes(key.node_id), 4, first, (second,), [Seen(AUTHOR, third)], 0, key, SALT)
    above = seal_block(node_id_bytes(key.node_id), 5, below.digest, (), [Seen(AUTHOR, third)], 0, key, SALT)
    orphans = Orphans(Draft())
    orphans.add(below, PEER, [first, second], [], 0)
    orphans.add(above, PEER, [below.digest], [], 0)
    orphans.want([above.digest], AUTHOR, PEER, 0)
    assert {*orphans.ask_for(PEER, 9, 0)} == {first, second}


def test_what_a_seen_has_named_is_asked_for_until_it_comes() -> None:
    orphans = Orphans(Draft())
    orphans.want([DIGEST], AUTHOR, PEER, 0, named=True)
    orphans.want([b"p" * 32], AUTHOR, PEER, 0)
    assert orphans.ask_for(PEER, 9, 10 * GIVE_UP_MS) == [DIGEST]
