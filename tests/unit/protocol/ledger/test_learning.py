"""A node that came back from its journal: what it signed since is learnt from others, and only then does it speak."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, confirm, vote
from seeds import seeds

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import AlreadyExists, Unavailable
from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_block
from offgrid_node.protocol.ledger.commands import CreateTransfer, OpenLanes
from offgrid_node.protocol.ledger.items import Report, Seen, Statement, TxItem, double_of
from offgrid_node.protocol.ledger.learning import MEET_MS, PATIENCE_MS
from offgrid_node.protocol.ledger.orphans import GIVE_UP_MS
from offgrid_node.protocol.ledger.records import tx_id_of
from offgrid_node.protocol.ledger.recovery import EVIDENCE_MS
from offgrid_node.protocol.ledger.sources import NodeSource, lane_account
from offgrid_node.protocol.ledger.tables import LEARN_KEY, LOG, META, MUTE_KEY, TRANSFERS
from offgrid_node.protocol.ledger.wallet import Wallet
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import SALT, START_MICRO, holds, name_of
from offgrid_tools.ledgersim.whole.world import World

OTHERS = (W1, W2, W3)


def come_back(bench: Bench, rows: MemoryStore) -> None:
    """The node has these rows of before, and knows that others may know more."""
    rows.commit(Batch(writes={(META, LEARN_KEY): b"\1"}))
    bench.store = rows
    bench.restart()
    bench.take_said()
    bench.take_calls()


def blocks_of(store: MemoryStore) -> list[CheckedBlock]:
    """All that a node holds, in the order in which it came."""
    return [check_block(ledger_pb2.Block.FromString(raw), SALT, holds) for _, raw in store.scan(LOG)]


def blocks_in(bench: Bench) -> list[CheckedBlock]:
    return blocks_of(bench.store)


def show(bench: Bench, block: CheckedBlock | None, *peers: str) -> None:
    """These peers say that this is the newest block of the node's that they have."""
    heads = ((node_id_bytes(SELF), block.header.height, block.digest),) if block is not None else ()
    for peer in peers or OTHERS:
        bench.sync(peer, heads)


def lost(bench: Bench, act: Callable[[], object]) -> list[CheckedBlock]:
    """The node does something, and loses its disk: it comes back with the rows of before. The blocks that others then
    hold."""
    before, known = deepcopy(bench.store), len(blocks_in(bench))
    act()
    made = blocks_in(bench)[known:]
    come_back(bench, before)
    return made


def learns(bench: Bench, made: list[CheckedBlock]) -> None:
    """It is brought all of them, and speaks again."""
    bench.push(*made)
    bench.take_said()
    show(bench, own(made))
    bench.wait(MEET_MS)
    assert bench.machine.muted_why == ""


def own(blocks: list[CheckedBlock]) -> CheckedBlock:
    return [block for block in blocks if block.header.author_id == SELF][-1]


class TestUntilItKnowsEnough:
    def test_a_node_says_nothing_and_says_why(self) -> None:
        bench = Bench()
        come_back(bench, bench.store)
        bench.says(OWNER, bench.tx())
        show(bench, None, W1, W2)
        bench.wait(10 * PATIENCE_MS)
        assert bench.take_said() == []
        assert f"witnesses that weigh 2.0 of 2.667 told it; it waits for {W3}" in bench.machine.muted_why
        assert [f"this node signs nothing in the ledger: {bench.machine.muted_why}"] == [*bench.machine.mute_notices]
        refused = bench.transfer(5)
        assert isinstance(refused, Unavailable)
        assert refused.reason == "StillLearning"
        show(bench, None, W3)
        bench.wait(MEET_MS)
        assert bench.take_said() == [vote(bench.tx())]
        assert not bench.machine.muted_why
        assert not bench.machine.mute_notices
        assert bench.store.get(META, LEARN_KEY) is None

    def test_the_weight_is_that_of_a_certificate_without_its_own(self) -> None:
        six = tuple(name_of(number) for number in range(1, 7))
        bench = Bench(witnesses=(SELF, *six))
        come_back(bench, bench.store)
        show(bench, None, *six[:4])
        bench.wait(PATIENCE_MS)
        assert "4.0 of 4.667" in bench.machine.muted_why
        show(bench, None, six[4])
        assert bench.machine.muted_why == ""

    def test_where_the_others_weigh_less_than_that_all_of_them_count(self) -> None:
        bench = Bench(witnesses=(SELF, W1, W2))
        come_back(bench, bench.store)
        show(bench, None, W1)
        bench.wait(PATIENCE_MS)
        assert bench.machine.muted_why
        show(bench, None, W2)
        assert bench.machine.muted_why == ""

    def test_a_lone_witness_waits_for_somebody_who_has_its_blocks(self) -> None:
        bench = Bench(witnesses=(SELF,))
        made = lost(bench, lambda: bench.says(OWNER, bench.tx()))
        bench.wait(PATIENCE_MS)
        assert "it waits for any other node" in bench.machine.muted_why
        show(bench, own(made), OWNER)
        bench.push(*made, sender=OWNER)
        bench.wait(MEET_MS)
        assert bench.machine.muted_why == ""
        assert bench.balance(PAYEE) == START_MICRO + 100

    def test_a_restart_begins_to_ask_anew(self) -> None:
        bench = Bench()
        come_back(bench, bench.store)
        show(bench, None, W1, W2)
        bench.restart()
        show(bench, None, W3)
        bench.wait(PATIENCE_MS)
        assert bench.machine.muted_why
        show(bench, None, W1, W2)
        assert bench.machine.muted_why == ""

    def test_witnesses_that_have_not_answered_are_asked_again(self) -> None:
        bench = Bench()
        come_back(bench, bench.store)
        bench.up(*OTHERS)
        for call in bench.take_calls("SyncBlocks"):
            outcome = ledger_pb2.SyncBlocksResponse() if call.node != W3 else Unavailable("no answer")
            bench.answer(call, outcome)
        bench.take_calls()
        bench.wait(MEET_MS)
        assert W3 in {call.node for call in bench.take_calls("SyncBlocks")}

    def test_who_stands_in_another_epoch_is_not_counted(self) -> None:
        bench = Bench()
        come_back(bench, bench.store)
        bench.up(*OTHERS)
        for epoch, silent in ((1, True), (0, False)):
            calls = [call for call in bench.take_calls("SyncBlocks") if call.node in OTHERS]
            assert {call.node for call in calls} == {*OTHERS}
            for call in calls:
                bench.answer(call, ledger_pb2.SyncBlocksResponse(epoch=epoch))
            bench.wait(MEET_MS)
            assert (bench.machine.muted_why != "") == silent

    def test_in_each_epoch_that_is_entered_meanwhile_all_are_asked_anew(self) -> None:
        bench = Bench()
        come_back(bench, bench.store)
        show(bench, None, W1, W2)
        bench.machine._voice.enter()
        show(bench, None, W3)
        bench.wait(PATIENCE_MS)
        assert bench.machine.muted_why
        show(bench, None, W1, W2)
        assert bench.machine.muted_why == ""

    def test_a_block_that_was_shown_is_waited_for_and_one_that_never_comes_no_longer_than_that(self) -> None:
        six = tuple(name_of(number) for number in range(1, 7))
        bench = Bench(witnesses=(SELF, *six))
        made = lost(bench, lambda: bench.says(OWNER, bench.tx()))
        show(bench, None, *six[:5])
        bench.sync(six[5], ((node_id_bytes(SELF), 7, b"?" * 32),))
        bench.wait(PATIENCE_MS // 2)
        assert "blocks that some have shown" in bench.machine.muted_why
        bench.push(*made)
        bench.sync(six[5], ((node_id_bytes(SELF), 8, b"!" * 32),))
        bench.wait(PATIENCE_MS - 1_000)
        assert bench.machine.muted_why, "a block of its own has come since"
        bench.wait(1_000)
        assert bench.machine.muted_why == ""

    def test_a_block_that_has_come_and_leans_on_one_that_has_not_is_waited_for_however_long_that_takes(self) -> None:
        six = tuple(name_of(number) for number in range(1, 7))
        bench = Bench(witnesses=(SELF, *six))
        made = lost(bench, lambda: bench.says(OWNER, bench.tx()))
        show(bench, None, *six[:5])
        show(bench, own(made), six[5])
        bench.push(own(made), sender=six[5])
        bench.wait(10 * PATIENCE_MS)
        bench.says(OWNER, bench.tx(amount=2))
        assert bench.take_said() == []
        assert "waits for what its own block of height 1 leans on" in bench.machine.muted_why
        bench.push(*made, sender=six[5])
        bench.wait(PATIENCE_MS)
        assert bench.machine.muted_why == ""
        assert bench.machine._chains.holds(own(made).digest)
        assert vote(bench.tx(amount=2)) not in bench.take_said()

    def test_what_its_own_block_leans_on_is_asked_for_of_every_peer_as_long_as_it_takes(self) -> None:
        bench = Bench()
        made = lost(bench, lambda: bench.says(OWNER, bench.tx()))
        (parent,) = own(made).header.parents
        bench.push(own(made), sender=W3)
        bench.wait(2 * GIVE_UP_MS)
        for peer in OTHERS:
            bench.take_calls()
            bench.up(peer)
            (call,) = bench.take_calls("SyncBlocks")
            assert isinstance(call.request, ledger_pb2.SyncBlocksRequest)
            assert parent in call.request.wanted
            bench.step(PeerDown(peer))


class TestWhatItSigned:
    def test_binds_it_a_vote_is_given_once(self) -> None:
        bench = Bench()
        made = lost(bench, lambda: bench.says(OWNER, bench.tx(amount=1)))
        bench.rewind_to(OWNER, 0, bench.root)
        bench.says(W1, bench.tx(amount=2))
        show(bench, own(made))
        bench.push(*made)
        while bench.machine.muted_why:
            bench.wait(100)
        assert vote(bench.tx(amount=2)) not in bench.take_said()
        bench.finish(bench.tx(amount=1), W2, W3)
        assert bench.take_said()[0] == confirm(bench.tx(amount=1)), "its vote of before is of that certificate"

    def test_goes_on_where_its_chain_ended(self) -> None:
        bench = Bench()
        made = lost(bench, lambda: bench.says(OWNER, bench.tx()))
        learns(bench, made)
        bench.transfer(5)
        newest = own(blocks_in(bench))
        assert (newest.header.height, newest.header.prev) == (own(made).header.height + 1, own(made).digest)

    def test_of_its_own_money_is_in_flight_again_and_nothing_is_paid_twice(self) -> None:
        bench = Bench()
        bench.transfer(1)
        bench.transfer(2)
        (first,) = [item for item in bench.take_said() if isinstance(item, TxItem)]
        made = lost(bench, lambda: bench.finish(first))
        (second,) = [item for block in made for item in block.items if isinstance(item, TxItem)]
        learns(bench, made)
        assert not [item for item in bench.take_said() if isinstance(item, TxItem)]
        digests = [ledger_pb2.TransferRow.FromString(row).tx_digest for _, row in bench.store.scan(TRANSFERS)]
        assert sorted(digests) == sorted([first.digest, second.digest])
        bench.transfer(3)
        bench.finish(second)
        (third,) = [item for item in bench.take_said() if isinstance(item, TxItem)]
        assert (third.tx.seq, third.tx.prev) == (2, second.digest)
        assert bench.balance(PAYEE) == START_MICRO + 1 + 2

    def test_is_known_by_its_request_id_though_it_was_asked_for_in_what_is_lost(self) -> None:
        bench = Bench()
        made = lost(bench, lambda: bench.transfer(5, request_id="rent-may"))
        learns(bench, made)
        again = bench.transfer(5, request_id="rent-may")
        assert isinstance(again, ledger_pb2.CreateTransferResponse)
        (signed,) = [item for block in made for item in block.items if isinstance(item, TxItem)]
        assert again.transaction.tx_id == tx_id_of(signed.digest)
        assert not [item for item in bench.take_said() if isinstance(item, TxItem)]
        bench.restart()
        bench.calm()
        assert bench.transfer(5, request_id="rent-may") == again
        other = bench.transfer(6, request_id="rent-may")
        assert isinstance(other, AlreadyExists)
        assert other.reason == "RequestIdReused"

    def test_is_known_by_its_request_id_though_it_came_before_the_node_was_to_learn(self) -> None:
        """A store put back from a backup: it goes mute over what comes, and is told to go on only then."""
        bench = Bench()
        before, known = deepcopy(bench.store), len(blocks_in(bench))
        bench.transfer(5, request_id="rent-may")
        made = blocks_in(bench)[known:]
        bench.store = before
        bench.restart()
        bench.push(*made)
        assert "this node signed and does not have" in bench.machine.muted_why
        bench.store.commit(Batch(writes={(META, LEARN_KEY): b"\1", (META, MUTE_KEY): None}))
        bench.restart()
        learns(bench, made)
        again = bench.transfer(5, request_id="rent-may")
        assert isinstance(again, ledger_pb2.CreateTransferResponse)
        (signed,) = [item for block in made for item in block.items if isinstance(item, TxItem)]
        assert again.transaction.tx_id == tx_id_of(signed.digest)

    def test_is_paid_for_the_request_that_it_was_signed_for_among_alike_ones(self) -> None:
        bench = Bench()
        for request_id in ("first", "second", "third"):
            bench.transfer(5, request_id=request_id)
        (first,) = [item for item in bench.take_said() if isinstance(item, TxItem)]
        made = lost(bench, lambda: bench.finish(first))
        learns(bench, made)
        asked = [bench.transfer(5, request_id=request_id) for request_id in ("second", "third")]
        states = [each.transaction.state for each in asked if isinstance(each, ledger_pb2.CreateTransferResponse)]
        assert states == [ledger_pb2.TX_STATE_SIGNED, ledger_pb2.TX_STATE_QUEUED]

    def test_opened_lanes_are_open_again(self) -> None:
        own_account = node_id_bytes(SELF)
        for spends in (False, True):
            bench = Bench()

            def opens(bench: Bench = bench, spends: bool = spends) -> None:
                bench.ask(OpenLanes(3, 1_000))
                (funding,) = [item for item in bench.take_said() if isinstance(item, TxItem)]
                bench.finish(funding)
                if spends:
                    bench.ask(OpenLanes(5, 0))
                    gift = bench.taking(NodeSource(node_id_bytes(OWNER)), ((lane_account(own_account, 5), 1_000),))
                    bench.says(OWNER, gift)
                    bench.finish(gift)
                    bench.ask(CreateTransfer(((node_id_bytes(PAYEE), 7),), 0, b"", "", lane_account(own_account, 5)))

            made = lost(bench, opens)
            for block in made:  # what a lane pays is taken in once what it got is final
                bench.push(block)
            learns(bench, made)
            assert bench.machine._wallet.lanes.count == (5 if spends else 3)

    def test_twice_at_one_height_keeps_it_mute(self) -> None:
        bench = Bench()
        made = lost(bench, lambda: bench.says(OWNER, bench.tx(amount=1)))
        bench.rewind_to(SELF, 0, bench.root)
        bench.push(*made, bench.block(SELF, vote(bench.tx(amount=2))))
        show(bench, own(made))
        bench.wait(PATIENCE_MS)
        assert "signed two blocks at height 1" in bench.machine.muted_why
        bench.restart()
        assert bench.machine.muted_why


@pytest.mark.parametrize("seed", seeds(3))
def test_whatever_it_has_lost_nobody_sees_it_sign_twice(seed: int) -> None:
    """In a mesh at work it comes back with rows of any age, and for a while meets nobody, or one witness alone."""
    world = World(seed, witnesses=4, observers=1)
    names, rng = [*world.nodes], world.rng
    node = world.nodes[names[seed % 5]]
    # The judge counts what is durable at a node, and what nobody has seen may be forgotten.
    world.judge.liars.add(node_id_bytes(node.node_id))
    world.open()
    world.latency_ms = (1, 60)
    for number in range(80):
        payer, payee = rng.sample(names, 2)
        world.after(100 * number, lambda p=payer, q=payee, n=number: world.nodes[p].transfer(q, 1 + n))
    rows: list[MemoryStore] = []

    def lose() -> None:
        node.crash()
        rows[0].commit(Batch(writes={(META, LEARN_KEY): b"\1"}))
        node.store = rows[0]
        company = [node.node_id, *([names[(seed + 1) % 5]] if seed % 2 else [])]
        world.after(200, lambda: world.sides.update(dict.fromkeys(company, 1)))
        world.after(200, node.start)
        world.after(6_000, world.sides.clear)

    world.after(800 + 37 * seed, lambda: rows.append(deepcopy(node.store)))
    world.after(2_000 + 41 * seed, lose)
    world.run(60_000)
    assert node.machine.muted_why == ""
    world.check_agreement()
    held = {block.digest: block for each in world.nodes.values() for block in blocks_of(each.store)}
    own_blocks = [block for block in held.values() if block.header.author_id == node.node_id]
    said = [item for block in own_blocks for item in block.items if isinstance(item, Statement)]
    assert len({block.header.height for block in own_blocks}) == len(own_blocks)
    assert len({(item.confirms, item.account, item.seq) for item in said}) == len(said)


def test_nothing_is_learnt_where_nothing_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[object] = []
    monkeypatch.setattr(Wallet, "on_learnt", lambda self, known: learnt.append(known))
    bench = Bench()
    bench.transfer(5)
    bench.restart()
    bench.calm()
    assert not learnt


def test_what_a_restored_witness_had_confirmed_it_reports_though_it_does_not_see_the_votes_again() -> None:
    bench = Bench()
    item = bench.tx(amount=1)
    others = [name_of(number) for number in range(20, 25)]

    def act() -> None:
        """The votes, and then blocks of so many others that the confirm names none with a vote."""
        bench.says(OWNER, item)
        noise = [bench.block(other, Seen(node_id_bytes(other), bytes(32))) for other in others]
        bench.push(bench.block(W1, vote(item)), bench.block(W2, vote(item)), *noise)

    made = lost(bench, act)
    assert confirm(item) in own(made).items
    held = {block.digest: block for block in made}
    needed, line = list[CheckedBlock](), [own(made).digest]
    while line:
        block = held.pop(line.pop(), None)
        if block is not None:
            needed.insert(0, block)
            line += block.header.prev, *block.header.parents
    assert not any(vote(item) in block.items for block in needed if block.header.author_id in (W1, W2))
    learns(bench, needed)
    bench.says(PAYEE, double_of(item, bench.tx(amount=2)))
    bench.wait(EVIDENCE_MS)
    assert Report(node_id_bytes(OWNER), 0, 1, 0, item.digest) in bench.take_said()
