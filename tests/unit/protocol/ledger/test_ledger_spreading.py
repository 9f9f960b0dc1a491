"""What witnesses say of a witness' own payment goes to that one first, and to all others in time."""

from __future__ import annotations

from gossip_bench import accept, pushed, pushes, says, synced
from ledger_bench import OWNER, SELF, W1, W2, W3, Bench, confirm, vote

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.items import Item, Marks, Statement, TxItem
from offgrid_node.protocol.ledger.links import DIRECT_MAX
from offgrid_node.protocol.ledger.spreading import ENDED_MS, ENDED_OTHERS_MS, HEDGE_MS, HOLD_MS, payer_in
from offgrid_node.protocol.ledger.words import words_of
from offgrid_tools.ledgersim.keys import name_of

SOON_MS = ENDED_MS // 2


def linked(*peers: str) -> Bench:
    bench = Bench()
    bench.up(*(peers or (W1, W2, W3)))
    synced(bench)
    accept(bench)
    return bench


def sent(bench: Bench) -> dict[str, list[tuple[str, int]]]:
    """Blocks that go to each peer until all that is under way has been answered."""
    blocks: dict[str, list[tuple[str, int]]] = {}
    while calls := [call for call in bench.calls if call.method.endswith("PushBlocks")]:
        for call in calls:
            bench.calls.remove(call)
            kept, bench.calls = bench.calls, [call]
            blocks.setdefault(call.node, []).extend(pushed(bench))
            bench.calls = kept
            bench.answer(call, ledger_pb2.PushBlocksResponse())
    return {node: of_it for node, of_it in blocks.items() if of_it}


def pays(bench: Bench, witness: str, *told: str, sender: str = "") -> TxItem:
    """A payment of that witness', which has told these of it."""
    item = bench.tx(witness)
    for other in told or {W1, W2, W3} - {witness}:
        says(bench, other, announced={node_id_bytes(witness): 1})
    bench.push(bench.block(witness, item), sender=sender or witness)
    return item


def paid_by_self(bench: Bench) -> TxItem:
    """A payment of this node's, which all have been told of."""
    bench.transfer(5)
    (item,) = (item for item in bench.take_said() if isinstance(item, TxItem))
    assert set(sent(bench)) == {W1, W2, W3}, "a transaction is everybody's at once"
    return item


def ends(bench: Bench, item: TxItem, *witnesses: str, voted: bool = False) -> None:
    """They speak of it one after the other, each having heard of all."""
    for witness in () if voted else witnesses:
        bench.says(witness, vote(item))
        sent(bench)
    for witness in witnesses:
        bench.says(witness, confirm(item))
    known = bench.views.by_digest(item.digest)
    assert known is not None
    assert known.state == ledger_pb2.TX_STATE_FINAL


class TestAVote:
    def test_of_a_witness_payment_goes_to_that_witness_first_and_to_the_others_in_time(self) -> None:
        bench = linked()
        item = pays(bench, W1)
        assert bench.take_said() == [vote(item)]
        assert sent(bench) == {W1: [(SELF, 1)]}
        bench.wait(HOLD_MS - SOON_MS)
        assert sent(bench) == {}
        bench.wait(SOON_MS)
        assert sent(bench) == {W2: [(SELF, 1)], W3: [(SELF, 1)]}

    def test_is_not_sent_to_whoever_names_it_meanwhile(self) -> None:
        bench = linked()
        item = pays(bench, W1)
        sent(bench)
        own = bench.machine._chains.author(node_id_bytes(SELF)).digest
        says(bench, W1, bench.block(W2, confirm(item), parents=(own,)))
        bench.wait(HOLD_MS)
        assert sent(bench) == {W3: [(SELF, 1)]}

    def test_is_only_announced_once_the_payment_has_ended(self) -> None:
        bench = linked()
        item = pays(bench, W1)
        sent(bench)
        bench.push(*(bench.block(witness, vote(item), confirm(item)) for witness in (W1, W2, W3)))
        assert (SELF, 1) not in [block for node in (W2, W3) for block in sent(bench).get(node, [])]
        bench.wait(HOLD_MS)
        told = {node: words_of(request).announced for node, request in pushes(bench)}
        assert {node: heights[node_id_bytes(SELF)] for node, heights in told.items() if node != W1} == {W2: 1, W3: 1}

    def test_waits_though_there_are_words_to_send(self) -> None:
        bench = linked()
        pays(bench, W1)
        sent(bench)
        block = bench.block(OWNER, vote(bench.tx(OWNER)))
        for _ in range(2):
            says(bench, W2, block)
        ((_, request),) = pushes(bench, W2)
        assert words_of(request).prune == (node_id_bytes(OWNER),)
        assert not request.blocks

    def test_goes_along_with_what_is_for_all(self) -> None:
        bench = linked()
        pays(bench, W1)
        sent(bench)
        bench.transfer(5)
        assert sent(bench)[W2][-2:] == [(SELF, 1), (SELF, 2)], "in its order, so that none waits for one before it"

    def test_of_what_an_owner_pays_who_is_no_witness_is_for_all_at_once(self) -> None:
        bench = linked()
        bench.says(OWNER, bench.tx())
        assert all((SELF, 1) in blocks for blocks in sent(bench).values())

    def test_is_for_all_at_once_where_the_payer_is_away(self) -> None:
        bench = linked()
        bench.step(PeerDown(W1))
        pays(bench, W1, W2, W3, sender=W2)
        assert set(sent(bench)) == {W2, W3}

    def test_is_for_all_at_once_where_not_all_are_linked_with_all(self) -> None:
        bench = linked(W1, W2, W3, *(name_of(number) for number in range(6, 6 + DIRECT_MAX)))
        says(bench, W1, announced={node_id_bytes(W1): 1})
        chosen = {node for node, _ in bench.machine._gossip._links.linked()}
        pays(bench, W1, *chosen)
        assert all((SELF, 1) in blocks for blocks in sent(bench).values())
        bench.wait(HOLD_MS)
        assert sent(bench) == {}


class TestWhoPays:
    def test_passes_votes_on_with_its_confirm(self) -> None:
        bench = linked()
        item = paid_by_self(bench)
        bench.says(W1, vote(item))
        assert sent(bench) == {}, "nobody needs to hear of one vote by itself"
        bench.says(W2, vote(item))
        assert sent(bench) == {W1: [(W2, 1), (SELF, 2)], W2: [(W1, 1), (SELF, 2)]}, "these are quick, and a quorum"
        bench.wait(HEDGE_MS - SOON_MS)
        assert sent(bench) == {}
        bench.wait(SOON_MS)
        assert sent(bench) == {W3: [(W1, 1), (W2, 1), (SELF, 2)]}

    def test_passes_confirms_on_once_it_is_final_here(self) -> None:
        bench = linked()
        item = paid_by_self(bench)
        ends(bench, item, W1, W2)
        bench.wait(ENDED_MS - SOON_MS)
        assert sent(bench) == {}, "the next payment would take them along"
        bench.wait(SOON_MS)
        assert sent(bench) == {W1: [(W2, 2)], W2: [(W1, 2)]}
        bench.wait(ENDED_OTHERS_MS - ENDED_MS - SOON_MS)
        assert sent(bench) == {}, "to whom was not asked it is no news that anything waits for"
        bench.wait(SOON_MS)
        assert sent(bench) == {W3: [(W1, 1), (W2, 1), (SELF, 2), (W1, 2), (W2, 2)]}

    def test_takes_them_along_with_the_next_payment(self) -> None:
        bench = linked()
        ends(bench, paid_by_self(bench), W1, W2)
        bench.transfer(6)
        assert sent(bench) == {W1: [(W2, 2), (SELF, 3)], W2: [(W1, 2), (SELF, 3)]}

    def test_tells_the_others_of_what_has_ended_however_much_ends_meanwhile(self) -> None:
        bench = linked()
        ends(bench, paid_by_self(bench), W1, W2)
        until_ms = bench.now_ms + ENDED_OTHERS_MS
        for amount in range(6, 9):
            bench.transfer(amount)
            sent(bench)
            (item,) = (item for item in bench.take_said() if isinstance(item, TxItem))
            ends(bench, item, W1, W2)
            assert bench.now_ms < until_ms
        bench.wait(until_ms - bench.now_ms)
        assert (W2, 2) in sent(bench)[W3]

    def test_asks_others_as_soon_as_one_is_late_and_that_one_after_them_from_then_on(self) -> None:
        bench = linked()
        ends(bench, paid_by_self(bench), W1, W2)
        bench.wait(ENDED_OTHERS_MS)
        sent(bench)
        bench.transfer(6)
        (item,) = (item for item in bench.take_said() if isinstance(item, TxItem))
        assert set(sent(bench)) == {W1, W2}
        bench.wait(HEDGE_MS)
        assert set(sent(bench)) == {W3}
        for witness in (W2, W3):
            bench.says(witness, vote(item))
        assert set(sent(bench)) == {W2, W3}, "W1 has said nothing"
        ends(bench, item, W2, W3, voted=True)
        bench.wait(ENDED_OTHERS_MS)
        sent(bench)
        bench.transfer(7)
        assert set(sent(bench)) == {W2, W3}

    def test_asks_all_where_those_who_are_quick_make_no_quorum(self) -> None:
        bench = linked()
        ends(bench, paid_by_self(bench), W1, W2)
        bench.step(PeerDown(W2))
        bench.transfer(6)
        assert set(sent(bench)) == {W1, W3}

    def test_passes_them_on_to_whoever_names_what_this_node_has_said_itself(self) -> None:
        bench = linked()
        item = paid_by_self(bench)
        other = pays(bench, W3)
        sent(bench)
        own = bench.machine._chains.author(node_id_bytes(SELF)).digest
        bench.says(W1, vote(item))
        says(bench, W3, bench.block(W2, confirm(other), parents=(own,)))
        bench.wait(HOLD_MS)
        late = sent(bench)
        assert (SELF, 2) in late[W1]
        assert (SELF, 2) not in late[W2]
        assert (W1, 1) in late[W2]

    def test_passes_them_on_in_time_though_it_has_nothing_to_say(self) -> None:
        bench = linked()
        item = paid_by_self(bench)
        bench.says(W1, vote(item))
        bench.wait(HOLD_MS)
        assert sent(bench) == {W2: [(W1, 1)], W3: [(W1, 1)]}


class TestWhatIsGathered:
    def says(self, *items: Item) -> str:
        payer = payer_in(items, Bench().machine._epochs.committee)
        return next((name for name in (SELF, W1, W2, W3, OWNER) if node_id_bytes(name) == payer), "")

    def test_is_what_is_said_at_ballot_0_of_one_witness_payments(self) -> None:
        bench = Bench()
        first, second = bench.tx(W1), bench.tx(W1, 1)
        assert self.says(confirm(first), vote(second)) == W1
        assert self.says(vote(first), vote(bench.tx(W2))) == ""
        assert self.says(vote(bench.tx(OWNER))) == ""
        assert self.says(Statement(False, node_id_bytes(W1), 0, 1, first.digest)) == "", "a ballot above has a leader"
        assert self.says(first, vote(first)) == W1
        assert self.says(first, bench.tx(W2)) == ""
        assert self.says(Marks(False, bytes(32), b"\1")) == ""
