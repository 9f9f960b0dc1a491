"""Of whom what is lacking is asked for: one at a time, another when it does not come, and none for ever."""

from __future__ import annotations

import pytest
from gossip_bench import accept, asks, pushes, said, says, synced
from ledger_bench import OWNER, SELF, W1, W2, W3, Bench, vote

from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import backfill, outgoing
from offgrid_node.protocol.ledger.backfill import MOST_MS, STALL_MS, WAIT_MS
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.heads import Span
from offgrid_node.protocol.ledger.records import SEQ_MAX
from offgrid_node.protocol.ledger.words import words_of

OWNERS = node_id_bytes(OWNER)


def meshed() -> tuple[Bench, list[CheckedBlock]]:
    bench = Bench()
    bench.up(W1, W2, W3)
    synced(bench)
    bench.take_calls()
    return bench, [bench.block(OWNER, vote(bench.tx(amount=1 + number))) for number in range(5)]


def asked(bench: Bench) -> list[tuple[str, tuple[Span, ...]]]:
    """Whom it has asked for what; whom for no more of it is left out."""
    found = [(node, words_of(request).lacking) for node, request in pushes(bench)]
    real = [(node, tuple(span for span in spans if span.first < SEQ_MAX)) for node, spans in found]
    return [(node, spans) for node, spans in real if spans]


def quiet(bench: Bench) -> None:
    """Whatever else goes out has ended."""
    for peer in (W1, W2, W3):
        bench.machine._gossip._links.peer(peer).pushing = False
    bench.take_calls()


def test_one_is_asked_though_all_offer_it() -> None:
    bench, _ = meshed()
    for peer in (W1, W2, W3):
        says(bench, peer, announced={OWNERS: 5})
    bench.wait(WAIT_MS)
    assert asked(bench) == [(W1, (Span(OWNERS, 1, 5),))]


def test_who_does_not_give_it_is_left_and_another_asked() -> None:
    bench, chain = meshed()
    for peer in (W1, W2):
        says(bench, peer, announced={OWNERS: 5})
    bench.wait(WAIT_MS)
    bench.take_calls()
    since_ms = bench.now_ms
    bench.wait(STALL_MS)
    assert asked(bench) == [(W2, (Span(OWNERS, 1, 5),))]
    assert bench.now_ms - since_ms < 2 * STALL_MS
    says(bench, W2, *chain, asked=True)
    quiet(bench)
    for peer in (W1, W3):
        says(bench, peer, announced={OWNERS: 9})
    bench.wait(WAIT_MS)
    assert [node for node, _ in asked(bench)] == [W3], "who kept it waiting comes last"


def test_who_gives_a_little_now_and_then_is_waited_for_no_longer_than_that() -> None:
    bench, _ = meshed()
    chain = [bench.block(W3, vote(bench.tx(amount=1 + number))) for number in range(40)]
    name = node_id_bytes(W3)
    for peer in (W1, W2):
        says(bench, peer, announced={name: 40})
    bench.wait(WAIT_MS)
    (first,) = asked(bench)
    assert first[0] == W1
    since, others = bench.now_ms, list[str]()
    for block in chain:
        bench.wait(STALL_MS - 100)
        others += [node for node, _ in asked(bench) if node != W1]
        if others:
            break
        quiet(bench)
        says(bench, W1, block, asked=True)
    assert others == [W2]
    assert bench.now_ms - since <= MOST_MS + STALL_MS


def test_what_has_come_is_asked_for_no_more() -> None:
    bench, chain = meshed()
    says(bench, W1, announced={OWNERS: 5})
    bench.wait(WAIT_MS)
    bench.take_calls()
    says(bench, W1, *chain, asked=True)
    assert not bench.machine._gossip._backfill.busy
    bench.wait(10 * STALL_MS)
    assert asked(bench) == []


def test_what_was_pushed_ahead_of_its_chain_tells_of_the_gap() -> None:
    bench, chain = meshed()
    says(bench, W1, chain[4])
    assert not bench.machine._orphans.is_wanted(chain[3].digest), "by height, and not by name besides"
    bench.wait(WAIT_MS)
    assert asked(bench) == [(W1, (Span(OWNERS, 1, 5),))]
    quiet(bench)
    says(bench, W1, *chain[:4], asked=True)
    assert bench.machine._chains.author(OWNERS).height == 5, "the orphan has come in"


def test_who_went_down_is_asked_no_more() -> None:
    bench, _ = meshed()
    for peer in (W1, W2):
        says(bench, peer, announced={OWNERS: 5})
    bench.step(PeerDown(W1))
    bench.wait(WAIT_MS)
    assert asked(bench) == [(W2, (Span(OWNERS, 1, 5),))]


def test_what_nobody_gives_is_given_up() -> None:
    bench, _ = meshed()
    says(bench, W1, announced={OWNERS: 2**40, node_id_bytes(SELF): 77})
    bench.wait(10 * STALL_MS)
    assert bench.machine._gossip._backfill._gaps == {}
    assert not bench.machine._gossip._backfill.busy


def test_another_block_of_one_height_is_asked_for_and_a_fork_comes_out() -> None:
    """Both sides' heads are of one height, and not the same."""
    bench, other = meshed()[0], Bench()
    bench.rewind_to(OWNER, 0, bench.root)
    bench.says(OWNER, vote(bench.tx(amount=1)))
    branch = other.block(OWNER, vote(other.tx(amount=2)))
    quiet(bench)
    bench.up(W1)
    synced(bench, (OWNER, 1, branch.digest))
    bench.wait(WAIT_MS)
    assert (W1, (Span(OWNERS, 1, 1),)) in asked(bench)
    quiet(bench)
    says(bench, W1, branch, asked=True)
    assert "signed two blocks at height 1" in bench.machine.notices[0]
    assert not bench.machine._gossip._backfill.busy


def test_words_of_what_is_held_are_no_gap() -> None:
    bench, chain = meshed()
    bench.push(*chain)
    quiet(bench)
    says(bench, W1, announced={OWNERS: 5})
    bench.wait(WAIT_MS)
    assert [words for words in said(bench, W1) if words.lacking] == []


def test_what_one_offers_takes_no_room_from_what_others_do() -> None:
    bench, _ = meshed()
    says(bench, W1, announced={number.to_bytes(20, "big"): 9 for number in range(backfill.OFFERED_MAX)})
    says(bench, W1, announced={OWNERS: 5})
    says(bench, W2, announced={OWNERS: 5})
    bench.wait(WAIT_MS)
    assert (W2, (Span(OWNERS, 1, 5),)) in asked(bench)
    bench.step(PeerDown(W1))
    bench.wait(10 * STALL_MS)
    assert bench.machine._gossip._backfill._gaps == {}
    assert not +bench.machine._gossip._backfill._offers


def test_who_kept_it_waiting_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "OFFERS_MAX", 2)
    bench, _ = meshed()
    for _ in range(2):
        for peer in (W1, W3):
            says(bench, peer, announced={OWNERS: 5})
        bench.wait(WAIT_MS + 2 * STALL_MS + 1)
    for peer in (W1, W3, W2):
        says(bench, peer, announced={OWNERS: 5})
    bench.take_calls()
    quiet(bench)
    bench.wait(WAIT_MS)
    assert [node for node, _ in asked(bench)] == [W2]


def test_who_brings_something_else_has_its_turn_and_no_more() -> None:
    """One that keeps back what others have too, and brings blocks of its own all the while."""
    bench, _ = meshed()
    for peer in (W1, W2):
        says(bench, peer, announced={OWNERS: 5})
    bench.wait(WAIT_MS)
    assert asked(bench) == [(W1, (Span(OWNERS, 1, 5),))]
    quiet(bench)
    told = dict[str, tuple[Span, ...]]()
    for turn in range(MOST_MS // STALL_MS + 2):
        says(bench, W1, *(bench.block(W1, vote(bench.tx(amount=1 + 8 * turn + n))) for n in range(8)), asked=True)
        bench.wait(STALL_MS - 100)
        told = {node: spans for node, request in accept(bench) if (spans := words_of(request).lacking)}
        if told:
            break
    assert told == {W1: (Span(OWNERS, SEQ_MAX, SEQ_MAX),), W2: (Span(OWNERS, 1, 5),)}


def test_who_is_told_to_send_no_more_of_it_sends_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, chain = meshed()
    bench.push(*chain)
    accept(bench)
    monkeypatch.setattr(outgoing, "PUSH_BLOCKS_MAX", 2)
    asks(bench, W2, OWNER, 1, 5)
    asks(bench, W2, OWNER, SEQ_MAX, SEQ_MAX)
    sent = [len(request.blocks) for node, request in accept(bench) if node == W2]
    assert sum(sent) == 2, "what was under way"


def stalled_once() -> tuple[Bench, list[CheckedBlock]]:
    """W1 offered what it did not bring, and offers it again; it alone is asked."""
    bench, chain = meshed()
    says(bench, W1, announced={OWNERS: 5})
    bench.wait(WAIT_MS)
    bench.wait(STALL_MS)
    synced(bench)
    quiet(bench)
    says(bench, W1, announced={OWNERS: 5})
    quiet(bench)
    bench.wait(WAIT_MS)
    assert asked(bench) == [(W1, (Span(OWNERS, 1, 5),))]
    quiet(bench)
    return bench, chain


def test_who_kept_it_waiting_is_left_at_once_for_one_that_did_not() -> None:
    bench, _ = stalled_once()
    since_ms = bench.now_ms
    says(bench, W2, announced={OWNERS: 3})
    bench.step()
    assert asked(bench) == [(W2, (Span(OWNERS, 1, 3),))]
    assert bench.now_ms - since_ms < WAIT_MS
    quiet(bench)
    says(bench, W3, announced={OWNERS: 5})
    bench.step()
    assert asked(bench) == [], "this one has done nothing wrong"


def test_a_new_connection_makes_good_for_nothing() -> None:
    bench, _ = stalled_once()
    bench.step(PeerDown(W1))
    bench.up(W1)
    synced(bench)
    quiet(bench)
    for peer in (W1, W2):
        says(bench, peer, announced={OWNERS: 5})
    bench.wait(WAIT_MS)
    assert [node for node, _ in asked(bench)] == [W2]


def test_who_brings_news_is_forgiven_by_and_by() -> None:
    bench, chain = stalled_once()
    says(bench, W1, *chain, asked=True)
    quiet(bench)
    for peer in (W1, W2):
        says(bench, peer, announced={OWNERS: 9})
    bench.wait(WAIT_MS)
    assert [node for node, _ in asked(bench)] == [W1], "it is as good as the other, and was the first to say so"


def test_who_waited_in_vain_twice_asks_the_author_and_another_what_they_have() -> None:
    bench, _ = meshed()
    name = node_id_bytes(W3)
    met = list[list[str]]()
    for _ in range(2):
        says(bench, W1, announced={name: 5})
        quiet(bench)
        bench.wait(WAIT_MS)
        bench.machine._gossip._tick_ms = bench.now_ms + 10 * STALL_MS  # no other turn comes
        synced(bench)
        quiet(bench)
        bench.wait(STALL_MS)
        met.append([call.node for call in bench.calls if call.method.endswith("SyncBlocks")])
        synced(bench)
        quiet(bench)
    assert met[0] == []
    assert W3 in met[1]
