"""A node that nobody has all blocks for begins at a checkpoint: new, long away, lied to, killed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from google.protobuf.message import Message
from verified_rows import verified

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import bootstrap, checkpoints, snapshots
from offgrid_node.protocol.ledger.audit import sums
from offgrid_node.protocol.ledger.bootstrap import Bootstrap
from offgrid_node.protocol.ledger.commands import EndEpoch
from offgrid_node.protocol.ledger.indexes import wrong_rows
from offgrid_node.protocol.ledger.records import GENESIS_KIND
from offgrid_node.protocol.ledger.tables import (
    AUTHORS,
    CHAINS,
    IN_FLIGHT,
    LOG,
    PLACES,
    SEALS,
    TXS,
    chain_key,
    number_key,
)
from offgrid_node.protocol.signing import digest_of
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import SALT, Key
from offgrid_tools.ledgersim.whole.node import Node
from offgrid_tools.ledgersim.whole.world import World

LIES = 3
JUDGED = ("said", "called_final", "called_void", "entered", "certified")


def ended(world: World, *, without: tuple[str, ...] = ()) -> None:
    """Payments, and the end of the epoch."""
    nodes = [node for name, node in world.nodes.items() if name not in without]
    epoch = max(epoch_of(node) for node in nodes)
    nodes[0].transfer(nodes[1].node_id, 100 + epoch)
    nodes[1].transfer(nodes[0].node_id, 50 + epoch)
    world.run(2_000)
    for node in nodes[:3]:
        node.ask(EndEpoch())
    for _ in range(30):
        world.run(2_000)
        if all(epoch_of(node) == epoch + 1 for node in nodes):
            break
    assert all(epoch_of(node) == epoch + 1 for node in nodes)


def epoch_of(node: Node) -> int:
    return node.machine._epochs.number


def mute(world: World) -> None:
    """What a judge says of whole worlds with epochs the simulator tries."""
    for asked in JUDGED:
        setattr(world.judge, asked, lambda *_, **__: None)


def world_without(late: int, epochs: int, seed: int = 1) -> tuple[World, Node]:
    """Four witnesses and two others; one of all was away while epochs ended."""
    world = World(seed, 4, observers=2)
    mute(world)
    world.open()
    world.run(5_000)
    node = world.nodes[world.names[late]]
    world.sides = {node.node_id: 1}
    for _ in range(epochs):
        ended(world, without=(node.node_id,))
    return world, node


def agree(world: World) -> None:
    books = [node.balances() for node in world.nodes.values()]
    assert all(book == books[0] for book in books)
    assert all(sums(node.store).conserved for node in world.nodes.values())


def settle(world: World, until_ms: int = 120_000) -> None:
    world.sides = {}
    for _ in range(until_ms // 5_000):
        world.run(5_000)
        if len({epoch_of(node) for node in world.nodes.values()}) == 1:
            break
    world.run(10_000)
    agree(world)
    assert len({epoch_of(node) for node in world.nodes.values()}) == 1


def test_one_that_was_away_for_too_long_begins_at_a_checkpoint() -> None:
    world, late = world_without(5, 4)
    settle(world)
    assert late.machine._pruning.oldest > 0
    before = late.balances()[late.node_id][0]
    late.transfer(world.names[0], 7)
    world.run(5_000)
    assert late.balances()[late.node_id][0] < before
    agree(world)
    ended(world)
    agree(world)


@pytest.mark.parametrize("late", [3, 5])
def test_the_store_of_one_that_began_at_a_checkpoint_is_verified_from_there(late: int) -> None:
    world, node = world_without(late, 4)
    settle(world)
    body = world.genesis.encode()
    signature = Key(world.genesis.issuer).sign(digest_of(GENESIS_KIND, SALT, body))
    signed = common_pb2.Signed(body=body, signature=signature)
    for _ in range(3):
        node.transfer(world.names[0], 7)
        world.run(5_000)
        found = verified(node.store, signed)
        assert found.findings == []
        assert found.first == node.machine._pruning.oldest
        ended(world)


def test_a_witness_that_was_away_for_too_long_witnesses_again() -> None:
    world, late = world_without(3, 4)
    settle(world)
    world.sides = {world.names[0]: 1}
    payer = world.nodes[world.names[4]]
    before = late.balances()[payer.node_id][1]
    payer.transfer(world.names[5], 9)
    world.run(10_000)
    assert late.balances()[payer.node_id][1] == before + 1, "three of four are a quorum, and it is one of them"


def test_a_new_disk_begins_at_a_checkpoint() -> None:
    world, late = world_without(5, 3)
    late.restore(MemoryStore(), knowing=True)
    world.run(6_000)
    settle(world)


def test_what_was_in_flight_is_final_or_void_by_what_stands_in_its_slot() -> None:
    world = World(1, 4, observers=2)
    mute(world)
    world.open()
    world.run(5_000)
    late = world.nodes[world.names[5]]
    late.transfer(world.names[0], 7)
    while not [*world.nodes[world.names[0]].store.scan(TXS)]:
        world.run(1)  # it leaves, and what comes of it is not heard
    world.sides = {late.node_id: 1}
    for _ in range(4):
        ended(world, without=(late.node_id,))
    assert [*late.store.scan(IN_FLIGHT)]
    settle(world)
    (final,) = [ledger_pb2.TxRow.FromString(row) for _, row in late.store.scan(TXS) if row.find(b"t-") >= 0]
    assert final.state == ledger_pb2.TX_STATE_FINAL
    assert not [*late.store.scan(IN_FLIGHT)]
    late.transfer(world.names[0], 8)
    world.run(5_000)
    assert late.balances()[late.node_id][1] == 2


def lied_to(
    world: World, node: Node, method: str, change: Callable[[Message], None], *, by: str = "", most: int = LIES
) -> list[str]:
    """The first peers that answer it, or bring it something, by that method change what they say; who they were. `by`:
    that one alone does."""
    carried, liars = world.carry, list[str]()

    def lie(liar: str, message: Message | None) -> None:
        if message is not None and len(liars) < most and by in ("", liar):
            change(message)
            liars.append(liar)

    def carry(sender: str, call: Call, on_end: Callable[[Answered], None]) -> None:
        def on_answer(answered: Answered) -> None:
            lie(call.node, answered.reply)
            on_end(answered)

        ours = call.method.endswith(method)
        if ours and call.node == node.node_id:
            lie(sender, call.request)
        carried(sender, call, on_answer if ours and sender == node.node_id else on_end)

    world.carry = carry  # type: ignore[method-assign]
    return liars


def more_money(reply: Message) -> None:
    assert isinstance(reply, ledger_pb2.ListEpochAccountsResponse)
    raw = bytearray(reply.accounts)
    raw[27] ^= 1
    reply.accounts = bytes(raw)


def no_seals(request: Message) -> None:
    assert isinstance(request, ledger_pb2.PushCheckpointsRequest)
    for one in request.checkpoints:
        del one.seals[:]


def other_heads(request: Message) -> None:
    assert isinstance(request, ledger_pb2.PushCheckpointsRequest)
    request.heads[0].height += 1


@pytest.mark.parametrize(
    ("method", "change"),
    [("ListEpochAccounts", more_money), ("PushCheckpoints", no_seals), ("PushCheckpoints", other_heads)],
)
def test_liars_delay_it_and_change_nothing(method: str, change: Callable[[Message], None]) -> None:
    world, late = world_without(5, 4)
    liars = lied_to(world, late, method, change)
    settle(world, 600_000)
    assert len({*liars}) == LIES, "it asked somebody else each time"
    late.transfer(world.names[0], 7)
    world.run(5_000)
    agree(world)


def test_it_goes_on_where_it_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "PAGE_ACCOUNTS", 1)
    monkeypatch.setattr(bootstrap, "PAGE_ACCOUNTS", 1)
    monkeypatch.setattr(checkpoints, "ACCOUNTS_PER_LEAF", 1)
    world, late = world_without(5, 4)
    pages, took = list[bytes](), Bootstrap._take

    def take(self: Bootstrap, reply: ledger_pb2.ListEpochAccountsResponse) -> bool:
        pages.append(reply.accounts)
        if len(pages) % 2 == 0:
            world.after(0, lambda: (late.crash(), late.start()))
        return took(self, reply)

    monkeypatch.setattr(Bootstrap, "_take", take)
    settle(world, 600_000)
    assert len({*pages}) == 6
    assert len(pages) <= 6 + 3, "what had come was not asked for again"


def test_a_real_store_prunes_is_begun_anew_and_prunes_again(tmp_path: Path) -> None:
    world, late = world_without(5, 3)
    late.crash()
    store = LmdbStore.open(tmp_path / "store", limit_bytes=1 << 26)
    for table in late.store.tables:
        store.commit(Batch(writes={(table, key): value for key, value in late.store.scan(table)}))
    late.store = store  # type: ignore[assignment] # what is asked of it here both can do
    try:
        late.start()
        settle(world)
        for _ in range(3):
            ended(world)
        world.run(5_000)
        agree(world)
        assert late.machine._pruning.oldest == epoch_of(late) - 1
        assert not late.machine.prunes
        assert not [*wrong_rows(store, SALT)]
        assert not [*store.verify()]
    finally:
        store.close()


def test_what_it_signed_alone_behind_a_base_that_it_has_pruned_is_its_own_still() -> None:
    world = World(1, 4, observers=2)
    mute(world)
    world.open()
    world.run(5_000)
    late = world.nodes[world.names[5]]
    late.transfer(world.names[0], 3)
    world.run(3_000)
    for _ in range(3):
        ended(world)
    assert not late.own_blocks(), "its blocks have gone"
    world.sides = {late.node_id: 1}
    late.transfer(world.names[0], 7)
    world.run(1_000)
    signed = late.machine._chains.author(node_id_bytes(late.node_id))
    for _ in range(4):
        ended(world, without=(late.node_id,))
    settle(world)
    assert not late.machine.muted_why
    assert not late.machine._chains.author(node_id_bytes(late.node_id)).frozen
    assert late.machine._chains.author(node_id_bytes(late.node_id)).height >= signed.height
    world.run(20_000)
    assert late.balances()[late.node_id][1] == 2, "what it signed while it was away is final"


def test_a_liars_seal_takes_no_others_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "PUSH_SIGNATURES_MAX", 8)  # two checkpoints in each call, with four seals each
    world, late = world_without(5, 4)
    liar = min(node_id_bytes(name) for name in world.names[:4])
    for node in world.nodes.values():
        bad = {(SEALS, key): row[:32] + bytes(64) for key, row in node.store.scan(SEALS) if key.endswith(liar)}
        assert node is late or len(bad) == 4
        node.store.commit(Batch(writes={**bad}))
    settle(world)
    assert late.machine._pruning.oldest > 0
    assert not late.machine._bootstrap._failed


def test_a_checkpoint_that_may_lack_good_seals_stands_in_nobodys_way() -> None:
    """Of the newest one two seals are here, and one of them is a liar's."""
    world, late = world_without(5, 4)
    liar, honest, *others = sorted(node_id_bytes(name) for name in world.names[:4])
    for node in world.nodes.values():
        newest = {key: row for key, row in node.store.scan(SEALS) if key.startswith(number_key(3))}
        kept = {number_key(3) + honest: newest[number_key(3) + honest]} if newest else {}
        kept |= {number_key(3) + liar: row[:32] + bytes(64) for row in kept.values()}
        gone = dict.fromkeys((SEALS, number_key(3) + name) for name in others)
        node.store.commit(Batch(writes={**gone, **{(SEALS, key): row for key, row in kept.items()}}))
    settle(world)
    assert late.machine._pruning.oldest > 0
    assert not late.machine._bootstrap._failed


def test_who_began_at_a_checkpoint_brings_it_to_others() -> None:
    world, late = world_without(5, 4)
    settle(world)
    new = world.nodes[world.names[4]]
    new.restore(MemoryStore(), knowing=True)
    world.sides = dict.fromkeys(world.names[:4], 1)
    for _ in range(24):
        world.run(5_000)
    assert epoch_of(new) == epoch_of(late) > 0
    assert new.balances() == late.balances()


def forget_newest(node: Node, author: bytes) -> None:
    """As if it had entered its epoch before the author's newest block of the one before came."""
    chains = node.machine._chains
    newest = chains.author(author)
    header, place = chains.header_of(newest.digest), chains.place(newest.digest)
    row = node.store.get(AUTHORS, author)
    assert header is not None
    assert place is not None
    assert row is not None
    assert newest.height == chains.cut_height(author) > 0
    before = (newest.height - 1).to_bytes(8, "big") + header.header.prev
    gone = (CHAINS, chain_key(author, newest.height)), (PLACES, newest.digest), (LOG, number_key(place))
    node.crash()
    node.store.commit(Batch(writes={(AUTHORS, author): before + row[len(before) :], **dict.fromkeys(gone)}))
    node.start()


def test_who_entered_an_epoch_without_the_blocks_behind_it_begins_at_the_next_checkpoint() -> None:
    world, late = world_without(5, 0)
    owner = world.nodes[world.names[4]]
    owner.transfer(world.names[0], 4)
    world.sides = {}
    world.run(3_000)
    ended(world)
    world.sides = {late.node_id: 1}
    forget_newest(late, node_id_bytes(owner.node_id))
    owner.transfer(world.names[0], 5)
    ended(world, without=(late.node_id,))
    assert epoch_of(late) == owner.machine._pruning.oldest == 1, "the others have pruned what it lacks"
    settle(world)
    assert late.machine._pruning.oldest == 2, "it has begun there"


def test_who_is_late_in_an_epoch_and_has_all_behind_it_waits_for_blocks() -> None:
    world, late = world_without(5, 0)
    world.sides = {}
    ended(world)
    started = late.machine._bootstrap
    started.on_met(world.names[0], 1, late.now())
    assert started.deadline_ms() is None
    started.on_met(world.names[0], 2, late.now())
    assert started.deadline_ms() is not None


def test_who_is_in_step_asks_a_liar_less_and_less() -> None:
    world, late = world_without(5, 0)
    world.sides = {}
    asked, carried = list[int](), world.carry

    def carry(sender: str, call: Call, on_end: Callable[[Answered], None]) -> None:
        if sender == late.node_id and call.method.endswith("AskCheckpoints"):
            asked.append(late.now().mono_ms)
        carried(sender, call, on_end)

    def lie(reply: Message) -> None:
        if isinstance(reply, ledger_pb2.SyncBlocksResponse):
            reply.oldest = 2**32 - 1

    lied_to(world, late, "SyncBlocks", lie, by=world.names[4], most=10**6)
    carried, world.carry = world.carry, carry  # type: ignore[method-assign]
    for _ in range(180):
        world.run(5_000)
    gaps = [after - before for before, after in pairwise(asked)]
    assert 5 < len(asked) < 30
    assert min(gaps[-3:]) >= bootstrap.PATIENCE_MS
