"""How blocks spread: pushed along trees that grow by themselves, announced beside them, and bounded."""

from __future__ import annotations

import pytest
from gossip_bench import accept, asks, pushed, pushes, said, says, synced, take
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, vote

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Woke
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import gossip, links, outgoing
from offgrid_node.protocol.ledger.backfill import STALL_MS, WAIT_MS
from offgrid_node.protocol.ledger.blocks import signatures_of
from offgrid_node.protocol.ledger.gossip import SYNC_MOST_MS, SYNC_MS
from offgrid_node.protocol.ledger.heads import Span
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.outgoing import ANNOUNCE_MS
from offgrid_tools.ledgersim.keys import name_of

OWN, OWNERS = node_id_bytes(SELF), node_id_bytes(OWNER)


def linked(*peers: str) -> Bench:
    bench = Bench()
    bench.up(*peers)
    synced(bench)
    accept(bench)
    return bench


def settle(bench: Bench) -> None:
    accept(bench)
    bench.take_calls()


class TestPushing:
    def test_own_blocks_go_to_every_link_and_others_to_those_that_may_lack_them(self) -> None:
        bench = linked(W1, W2, W3, OWNER)
        bench.says(OWNER, bench.tx())
        sent = [(node, len(request.blocks)) for node, request in accept(bench)]
        assert {node for node, _ in sent} == {W1, W2, W3, OWNER}
        assert sum(count for node, count in sent if node == OWNER) == 1, "not back to where it came from"
        assert sum(count for node, count in sent if node == W1) == 2

    def test_who_gets_a_block_twice_says_so_and_gets_that_authors_no_more(self) -> None:
        bench = linked(W1, W2)
        block = bench.block(OWNER, vote(bench.tx()))
        says(bench, W1, block)
        settle(bench)
        says(bench, W2, block)
        (words,) = said(bench, W2)
        assert words.prune == (OWNERS,)
        says(bench, W1, prune=(OWNERS,))
        settle(bench)
        says(bench, W2, bench.block(OWNER, vote(bench.tx(amount=2))))
        assert pushed(bench, W1) == []

    def test_what_is_not_pushed_is_announced_later_and_together(self) -> None:
        bench = linked(W1, W2)
        says(bench, W1, bench.block(OWNER, vote(bench.tx())))
        settle(bench)
        says(bench, W1, prune=(OWNERS,))
        for amount in (2, 3):
            says(bench, W2, bench.block(OWNER, vote(bench.tx(amount=amount))))
        assert said(bench, W1) == []
        bench.wait(ANNOUNCE_MS)
        (words,) = said(bench, W1)
        assert words.announced == {OWNERS: 3}

    def test_what_the_other_has_announced_itself_is_not_announced_to_it(self) -> None:
        bench = linked(W1, W2)
        says(bench, W1, bench.block(OWNER, vote(bench.tx())))
        settle(bench)
        says(bench, W1, prune=(OWNERS,))
        says(bench, W2, bench.block(OWNER, vote(bench.tx(amount=2))))
        says(bench, W1, announced={OWNERS: 2})
        bench.wait(ANNOUNCE_MS)
        assert [words for words in said(bench, W1) if words.announced] == []

    def test_what_is_announced_and_does_not_come_is_asked_for_and_the_link_is_grafted(self) -> None:
        bench = linked(W1, W2)
        says(bench, W1, announced={OWNERS: 2})
        assert said(bench, W1) == []
        bench.wait(WAIT_MS)
        (words,) = said(bench, W1)
        assert (words.graft, words.lacking) == ((OWNERS,), (Span(OWNERS, 1, 2),))

    def test_what_is_announced_and_comes_by_itself_is_not_asked_for(self) -> None:
        bench = linked(W1, W2)
        says(bench, W1, announced={OWNERS: 1})
        says(bench, W2, bench.block(OWNER, vote(bench.tx())))
        settle(bench)
        bench.wait(WAIT_MS)
        assert [words for words in said(bench, W1) if words.lacking] == []

    def test_who_grafts_gets_what_comes_next_at_once(self) -> None:
        bench = linked(W1, W2)
        says(bench, W2, bench.block(OWNER, vote(bench.tx())))
        says(bench, W1, prune=(OWNERS,))
        says(bench, W1, graft=(OWNERS,))
        settle(bench)
        says(bench, W2, bench.block(OWNER, vote(bench.tx(amount=2))))
        assert pushed(bench, W1) == [(OWNER, 2)]

    def test_what_was_asked_for_is_passed_on_to_nobody(self) -> None:
        bench = linked(W1, W2)
        says(bench, W1, announced={OWNERS: 1})
        bench.wait(WAIT_MS)
        settle(bench)
        says(bench, W1, bench.block(OWNER, vote(bench.tx())), asked=True)
        bench.wait(ANNOUNCE_MS)
        assert list(pushes(bench, W2)) == []

    def test_what_only_its_sender_calls_asked_for_is_announced(self) -> None:
        """Or one that is quick could keep it from whoever has no other way to it."""
        bench = linked(W1, W2)
        says(bench, W1, bench.block(OWNER, vote(bench.tx())), asked=True)
        bench.wait(ANNOUNCE_MS)
        assert [words.announced for words in said(bench, W2)] == [{OWNERS: 1}]

    def test_what_waited_to_be_pushed_when_a_meeting_failed_is_seen_to_soon(self) -> None:
        bench = linked(W1)
        for _ in range(12):
            bench.wait(SYNC_MOST_MS)
            synced(bench)
        bench.says(OWNER, bench.tx())
        bench.says(W2, bench.tx(W2))  # behind the first, which is under way
        bench.machine._gossip._due[W1] = None
        bench.step(Woke())
        (meeting,) = take(bench, "SyncBlocks")
        bench.answer(meeting, Unavailable("no answer"))
        bench.wait(SYNC_MS)
        assert [call.node for call in take(bench, "SyncBlocks")] == [W1]

    def test_of_blocks_asked_for_by_name_positions_are_kept_until_there_is_room(self) -> None:
        bench = linked(W1)
        first, *more = (bench.block(OWNER, vote(bench.tx(amount=1 + number))) for number in range(5))
        bench.push(first, *more, sender=W2)
        bench.sync(W1, wanted=(more[-1].digest,))
        assert [*bench.machine._gossip._links.peer(W1).answers] == [1, 2, 3, 4, 5]
        sent = [block for _, request in accept(bench) if request.asked for block in request.blocks]
        assert [block.SerializeToString() for block in sent] == [block.raw for block in (first, *more)]

    def test_one_push_to_a_peer_is_under_way_and_what_comes_up_shares_the_next(self) -> None:
        bench = linked(W1)
        for index in range(3):
            bench.says(OWNER, bench.tx(seq=index, amount=index + 1))
            bench.says(W2, bench.tx(W2, amount=index + 1))
        (first,) = take(bench, "PushBlocks")
        bench.answer(first, ledger_pb2.PushBlocksResponse())
        ((_, second),) = pushes(bench)
        assert len(second.blocks) > 1

    def test_what_could_not_be_pushed_is_found_out_at_the_next_tick(self) -> None:
        bench = linked(W1, W2, W3)
        bench.transfer(5)
        calls = take(bench, "PushBlocks")
        for call in calls:
            bench.answer(call, Unavailable("x") if call.node == W2 else ledger_pb2.PushBlocksResponse())
        bench.take_calls()
        bench.wait(SYNC_MS)
        assert W2 in {call.node for call in take(bench, "SyncBlocks")}

    def test_a_peer_that_went_down_is_told_nothing(self) -> None:
        bench = linked(W1)
        bench.step(PeerDown(W1))
        bench.take_calls()
        bench.says(OWNER, bench.tx())
        bench.wait(10_000)
        assert bench.take_calls() == []


class TestLinks:
    PEERS = tuple(name_of(number) for number in range(10, 40))

    def test_in_a_large_mesh_some_are_chosen_at_random(self) -> None:
        bench = linked(*self.PEERS)
        bench.transfer(5)
        assert len({node for node, _ in accept(bench)}) == links.LINKS

    def test_some_meet_a_stranger_though_they_do_not_link_with_it(self) -> None:
        """It may have no ledger, and then it chooses nobody: of those who link with it there may be none."""
        bench = Bench()
        bench.up(*self.PEERS)
        assert links.LINKS < len({call.node for call in take(bench, "SyncBlocks")}) < 9 * gossip.STRANGERS_MET
        bench.step(*(PeerDown(peer) for peer in self.PEERS))
        bench.up(*self.PEERS)
        assert len({call.node for call in take(bench, "SyncBlocks")}) == links.LINKS
        bench = Bench()
        for peer in self.PEERS:
            bench.says(peer, vote(bench.tx()))
        bench.up(*self.PEERS)
        assert len({call.node for call in take(bench, "SyncBlocks")}) == links.LINKS

    def test_who_links_with_this_node_is_pushed_to_as_far_as_there_is_room(self) -> None:
        bench = linked(*self.PEERS)
        for peer in self.PEERS:
            says(bench, peer, announced={OWNERS: 1})
        settle(bench)
        bench.transfer(5)
        assert len({node for node, _ in accept(bench)}) == links.LINKS_MAX

    def test_who_has_chosen_another_is_pushed_to_no_more(self) -> None:
        bench = linked(*self.PEERS)
        others = [peer for peer in self.PEERS if not bench.machine._gossip._links.peer(peer).chosen]
        says(bench, others[0], announced={OWNERS: 1})
        says(bench, others[0], leave=True)
        settle(bench)
        bench.transfer(5)
        assert others[0] not in {node for node, _ in accept(bench)}

    def test_another_is_chosen_for_one_that_went(self) -> None:
        bench = linked(*self.PEERS)
        chosen = bench.machine._gossip._links._chosen
        gone = chosen[0]
        bench.step(PeerDown(gone))
        assert (gone in chosen, len(chosen)) == (False, links.LINKS)

    def test_whoever_comes_late_is_chosen_as_likely_as_others(self) -> None:
        """Halves that were apart are woven together: of what is chosen, half is in the half that came back."""
        fresh = 0
        for number in range(60):
            bench = Bench()
            bench.rng.seed(number)
            bench.up(*self.PEERS[:15])
            bench.up(*self.PEERS[15:])
            fresh += sum(node in self.PEERS[15:] for node in bench.machine._gossip._links._chosen)
        assert 0.35 < fresh / (60 * links.LINKS) < 0.65

    def test_whoever_came_first_is_chosen_no_likelier_than_others(self) -> None:
        """All hear of each other in one order: the first would be everybody's."""
        first = 0
        for number in range(60):
            bench = Bench()
            bench.rng.seed(number)
            bench.up(*self.PEERS)
            first += sum(node in self.PEERS[: links.LINKS] for node in bench.machine._gossip._links._chosen)
        assert first < 2 * 60 * links.LINKS * links.LINKS / len(self.PEERS)

    def test_who_is_no_link_is_told_too_that_its_block_was_here(self) -> None:
        bench = linked(*self.PEERS)
        for peer in self.PEERS[: links.LINKS_MAX]:
            says(bench, peer, announced={OWNERS: 1})
        block = bench.block(OWNER, vote(bench.tx()))
        says(bench, self.PEERS[0], block)
        settle(bench)
        stranger = next(peer for peer in self.PEERS if not bench.machine._gossip._links.peer(peer).linked)
        says(bench, stranger, block)
        assert [words.prune for words in said(bench, stranger)] == [(OWNERS,)]

    def test_all_are_linked_while_they_are_few(self) -> None:
        bench = linked(*self.PEERS[: links.DIRECT_MAX])
        bench.transfer(5)
        assert {node for node, _ in accept(bench)} == {*self.PEERS[: links.DIRECT_MAX]}


class TestWhatIsAskedFor:
    def holder(self, blocks: int = 6) -> Bench:
        bench = Bench()
        for index in range(blocks):
            bench.says(OWNER, bench.tx(seq=index))
        bench.up(W1)
        synced(bench)
        settle(bench)
        return bench

    def test_by_height_comes_in_the_order_in_which_it_came(self) -> None:
        bench = Bench()
        item = bench.tx()
        for author, said_ in ((OWNER, item), (W2, vote(item)), (OWNER, vote(item))):
            bench.says(author, said_)
        bench.up(W1)
        synced(bench)
        settle(bench)
        spans = (Span(OWNERS, 1, 9), Span(node_id_bytes(W2), 1, 1), Span(OWN, 1, 1))
        says(bench, W1, lacking=spans)
        ((_, request),) = accept(bench)
        bench.calls = []
        assert request.asked
        assert len(request.blocks) == 4

    def test_comes_in_as_many_pushes_as_it_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outgoing, "PUSH_BLOCKS_MAX", 4)
        bench = self.holder()
        asks(bench, W1, OWNER, 1, 6)
        assert [len(request.blocks) for _, request in accept(bench)] == [4, 2]

    def test_pushes_are_bounded_in_signatures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outgoing, "PUSH_SIGNATURES_MAX", 4)
        bench = self.holder(5)
        asks(bench, W1, OWNER, 1, 5)
        sizes = [sum(signatures_of(block) for block in request.blocks) for _, request in accept(bench)]
        assert max(sizes) == 4
        assert sum(sizes) == 5 * 2, "nothing is left behind: transactions and headers"

    def test_what_is_new_meanwhile_is_not_kept_waiting_by_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outgoing, "PUSH_BLOCKS_MAX", 1)
        bench = self.holder()
        asks(bench, W1, OWNER, 1, 6)
        bench.transfer(5)
        kinds = [request.asked for _, request in accept(bench)]
        assert kinds[:3] == [True, False, True]

    def test_again_at_once_is_not_sent_again(self) -> None:
        bench = self.holder()
        asks(bench, W1, OWNER, 1, 6)
        assert len(accept(bench)) == 1
        for _ in range(5):
            asks(bench, W1, OWNER, 1, 6)
        assert accept(bench) == []
        bench.wait(STALL_MS)
        bench.take_calls()
        asks(bench, W1, OWNER, 1, 6)
        assert len(accept(bench)) == 1, "it may have been lost on its way"

    def test_and_is_not_here_is_passed_over(self) -> None:
        bench = self.holder()
        says(bench, W1, lacking=(Span(OWNERS, 7, 900), Span(node_id_bytes(PAYEE), 1, 2**40)))
        assert accept(bench) == []

    def test_by_name_comes_with_those_before_it(self) -> None:
        bench = self.holder(3)
        newest = bench.machine._chains.author(OWNERS).digest
        bench.sync(W1, wanted=(newest, bytes(32)))
        assert pushed(bench) == [(OWNER, 1), (OWNER, 2), (OWNER, 3)]

    def test_by_name_no_more_is_read_than_one_push_carries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gossip, "PUSH_BLOCKS_MAX", 4)
        monkeypatch.setattr(gossip, "ANCESTORS_MAX", 3)
        bench = Bench()
        chain = [bench.block(OWNER, vote(bench.tx())) for _ in range(12)]
        bench.push(*chain)
        bench.up(W1)
        synced(bench)
        settle(bench)
        read: list[int] = []
        raw = bench.machine._chains.raw
        monkeypatch.setattr(bench.machine._chains, "raw", lambda place: read.append(place) or raw(place))
        bench.sync(W1, wanted=tuple(block.digest for block in reversed(chain)))
        assert len(read) <= 2 * (4 + 3), "once to find the one before, once to send it"
        assert sorted(pushed(bench, W1)) == [(OWNER, height) for height in (9, 10, 11, 12)]


class TestALiar:
    def test_that_bids_everybody_be_silent_harms_itself_alone(self) -> None:
        bench = linked(W1, W2)
        says(bench, W2, bench.block(OWNER, vote(bench.tx())))
        bench.transfer(5)
        bench.finish(next(item for item in bench.take_said() if isinstance(item, TxItem)), W2, W3)
        settle(bench)
        says(bench, W1, prune=(OWNERS, OWN, b"n" * 20), leave=True)
        says(bench, W2, bench.block(OWNER, vote(bench.tx(amount=2))))
        assert pushed(bench, W1) == []
        bench.transfer(5)
        assert {node for node, request in accept(bench) if request.blocks} == {W1, W2}, "its own go to all"

    def test_that_speaks_for_itself_is_not_bidden_be_silent(self) -> None:
        bench = linked(W1, W2)
        block = bench.block(W1, vote(bench.tx()))
        says(bench, W2, block)
        settle(bench)
        says(bench, W1, block)
        assert [words for words in said(bench, W1) if words.prune] == []

    def test_that_names_authors_whom_nobody_knows_is_not_remembered(self) -> None:
        bench = linked(W1)
        says(bench, W1, prune=tuple(bytes([number]) * 20 for number in range(200)))
        assert bench.machine._gossip._links.peer(W1).lazy == {}

    def test_whose_blocks_come_twice_makes_no_more_than_a_word_each(self) -> None:
        bench = linked(W1, W2)
        block = bench.block(OWNER, vote(bench.tx()))
        says(bench, W2, block)
        settle(bench)
        for _ in range(10):
            says(bench, W1, block)
            settle(bench)
        says(bench, W1, block)
        (words,) = said(bench, W1)
        assert words.prune == (OWNERS,)
