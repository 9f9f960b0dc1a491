"""How blocks come in and spread: orphans, forks, anti-entropy, and nodes that lost their memory.

Long, since it is the whole specification of one machine part, case by case, over one bench.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, confirm, vote

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.effects import Asked, Call
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition, Unavailable
from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import gossip, intake, machine, orphans
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_block, header_of, signatures_of
from offgrid_node.protocol.ledger.commands import CreateTransfer, OpenLedger, PushBlocks, SyncBlocks
from offgrid_node.protocol.ledger.items import Fork, Seen, TxItem, fork_of
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.orphans import ASK_MS
from offgrid_node.protocol.ledger.records import LedgerGenesis
from offgrid_node.protocol.ledger.tables import LOG
from offgrid_node.protocol.ledger.voice import NOTICES_MAX, QUIET_MS
from offgrid_tools.ledgersim.keys import SALT, START_MICRO, name_of


def pushed(bench: Bench, to: str = "") -> list[tuple[str, int]]:
    """(author, height) of the blocks in all pushes so far."""
    blocks = []
    for call in bench.take_calls("PushBlocks"):
        if not to or call.node == to:
            blocks += [check_block(block, SALT, lambda claim: True) for block in call.request.blocks]  # type: ignore[attr-defined]
    return [(block.header.author_id, block.header.height) for block in blocks]


def heads(bench: Bench) -> dict[str, int]:
    return {head.author: head.height for head in bench.views.heads()}


def synced(bench: Bench, *said: tuple[str, int, bytes]) -> None:
    """Answers every SyncBlocks that was asked with these heads."""
    reply = ledger_pb2.SyncBlocksResponse(
        heads=[ledger_pb2.Head(author=author, height=height, digest=digest) for author, height, digest in said]
    )
    for call in bench.take_calls("SyncBlocks"):
        bench.answer(call, reply)


# ---- orphans


def test_a_block_waits_for_the_one_before_it() -> None:
    bench = Bench()
    item = bench.tx()
    first, second = bench.block(OWNER, item), bench.block(OWNER, vote(item))
    bench.push(second, sender=OWNER)
    assert OWNER not in heads(bench)
    bench.push(first, sender=OWNER)
    assert heads(bench)[OWNER] == 2


def test_a_block_waits_for_its_parents_whoever_brings_them() -> None:
    bench = Bench()
    item = bench.tx()
    parent = bench.block(OWNER, item)
    child = bench.block(W1, vote(item), parents=(parent.digest,))
    grandchild = bench.block(W2, vote(item), parents=(child.digest,))
    bench.push(grandchild, child)
    assert heads(bench) == {}
    bench.push(parent, sender=W3)
    assert {OWNER, W1, W2} <= heads(bench).keys()


def test_what_does_not_come_by_itself_is_asked_for_by_name_at_who_named_it() -> None:
    bench = Bench()
    bench.up(W1, W2)
    synced(bench)
    parent = bench.block(OWNER, bench.tx())
    bench.push(bench.block(W1, vote(bench.tx()), parents=(parent.digest,)), sender=W1)
    assert bench.take_calls("SyncBlocks") == []
    bench.wait(ASK_MS)
    (ask,) = bench.take_calls("SyncBlocks")
    assert ask.node == W1
    assert list(ask.request.wanted) == [parent.digest]  # type: ignore[attr-defined]


def test_a_liars_orphans_and_wishes_crowd_out_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "ORPHANS_MAX", 4)
    monkeypatch.setattr(orphans, "WANTED_MAX", 4)
    bench = Bench()
    bench.up(W1, W2)
    synced(bench)
    parent = bench.block(OWNER, bench.tx())
    child = bench.block(W1, vote(bench.tx()), parents=(parent.digest,))
    bench.push(child, sender=W1)
    for index in range(20):
        junk = (index + 1).to_bytes(32, "big")
        bench.push(bench.block(W3, vote(bench.tx()), parents=(junk,)), sender=W3)
    bench.wait(ASK_MS)
    asked = {call.node: list(call.request.wanted) for call in bench.take_calls("SyncBlocks")}  # type: ignore[attr-defined]
    assert asked[W1][0] == parent.digest
    bench.push(parent, sender=W1)
    assert W1 in heads(bench)


# ---- forks


def test_an_author_of_two_blocks_at_one_height_is_frozen_and_all_are_told() -> None:
    bench = Bench()
    item, other = bench.tx(amount=1), bench.tx(amount=2)
    bench.says(OWNER, item)
    bench.says(OWNER, vote(item))
    bench.take_said()
    tip = bench.machine._chains.author(node_id_bytes(OWNER)).digest
    bench.rewind(OWNER, 2)
    bench.says(OWNER, other)
    said = bench.take_said()
    assert [type(thing) for thing in said] == [Fork, Seen]
    assert said[1] == Seen(node_id_bytes(OWNER), tip)
    assert "signed two blocks at height 1" in bench.machine.notices[0]
    bench.says(OWNER, vote(item))
    assert heads(bench)[OWNER] == 2


def test_a_frozen_authors_block_is_taken_in_once_somebody_names_it() -> None:
    bench = Bench()
    item, other = bench.tx(amount=1), bench.tx(amount=2)
    bench.says(OWNER, item, other)
    bench.says(W3, vote(item))
    bench.rewind(W3)
    branch = bench.block(W3, vote(other), confirm(other))
    bench.push(branch, sender=W3)
    for witness in (W1, W2):
        bench.says(witness, vote(other), confirm(other))
    assert bench.balance(PAYEE) == START_MICRO
    bench.says(PAYEE, Seen(node_id_bytes(W3), branch.digest))
    bench.restart()  # what was named is remembered
    bench.calm()
    bench.push(branch, sender=W2)
    assert bench.machine._chains.holds(branch.digest)
    assert bench.balance(PAYEE) == START_MICRO + 2


def test_evidence_from_another_freezes_too_and_is_answered_with_what_is_held() -> None:
    bench, other = Bench(), Bench()
    held = bench.block(OWNER, bench.tx(amount=1))
    bench.push(held)
    bench.take_said()
    other.push(CheckedBlock(held.signed, held.items, held.raw))
    other.says(OWNER, other.tx(amount=2))
    (fork,) = [thing for thing in other.take_said() if isinstance(thing, Fork)]
    bench.says(W2, fork)
    assert bench.take_said() == [fork, Seen(node_id_bytes(OWNER), held.digest)]
    bench.says(W3, fork)
    assert bench.take_said() == []


def test_a_quiet_node_tells_of_a_fork_once_it_may_speak() -> None:
    bench = Bench()
    bench.says(OWNER, bench.tx(amount=1))
    bench.take_said()
    bench.restart()
    bench.rewind(OWNER)
    bench.says(OWNER, bench.tx(amount=2))
    assert bench.take_said() == []
    bench.restart()
    bench.calm()
    assert {type(thing) for thing in bench.take_said()} >= {Fork, Seen}


def forked_with_a_branch(bench: Bench) -> CheckedBlock:
    """W3 forked, which all know, and has a block more beside its chain, which nobody has named yet."""
    bench.says(W3, vote(bench.tx(amount=1)))
    bench.rewind(W3)
    bench.says(W3, vote(bench.tx(amount=2)))
    bench.take_said()
    bench.rewind_to(W3, 0, bench.root)
    return bench.block(W3, vote(bench.tx(amount=3)))


def test_what_a_withheld_block_has_named_is_told_by_whoever_has_taken_it_in() -> None:
    bench = Bench()
    branch = forked_with_a_branch(bench)
    bench.push(bench.block(OWNER, vote(bench.tx()), parents=(branch.digest, b"w" * 32)), branch, sender=OWNER)
    assert bench.machine._chains.holds(branch.digest)
    assert bench.take_said() == [Seen(node_id_bytes(W3), branch.digest)]
    bench.push(branch, sender=W1)
    bench.wait(QUIET_MS)
    assert bench.take_said() == [], "once"


def test_a_quiet_node_tells_what_a_withheld_block_has_named_once_it_may_speak() -> None:
    bench = Bench()
    branch = forked_with_a_branch(bench)
    bench.restart()
    bench.push(bench.block(OWNER, vote(bench.tx()), parents=(branch.digest, b"w" * 32)), branch, sender=OWNER)
    assert bench.take_said() == []
    bench.restart()
    bench.calm()
    assert Seen(node_id_bytes(W3), branch.digest) in bench.take_said()
    bench.restart()
    bench.calm()
    assert bench.take_said() == [], "once"


def test_what_a_block_that_came_with_it_leans_on_needs_no_telling() -> None:
    bench = Bench()
    branch = forked_with_a_branch(bench)
    bench.push(bench.block(OWNER, vote(bench.tx()), parents=(branch.digest,)), branch, sender=OWNER)
    assert heads(bench)[OWNER] == 1
    assert bench.take_said() == []


def test_a_seen_of_an_author_who_never_forked_is_nothing_to_ask_for() -> None:
    bench = Bench()
    bench.says(W1, Seen(node_id_bytes(PAYEE), b"j" * 32))
    assert not bench.machine._orphans.is_wanted(b"j" * 32)


def test_below_its_fork_a_frozen_authors_chain_is_served_and_taken_in_like_any_other() -> None:
    late, holder = Bench(), Bench()
    chain = [holder.block(OWNER, vote(holder.tx())) for _ in range(40)]
    holder.rewind_to(OWNER, 39, chain[38].digest)
    branch = holder.block(OWNER, vote(holder.tx(amount=7)))
    fork = fork_of(chain[39].signed, branch.signed)
    holder.push(*chain, branch)
    late.says(W1, fork)
    holder.up(W3)
    synced(holder)
    assert [height for author, height in pushed(holder, W3) if author == OWNER] == [*range(1, 41)]
    late.take_said()
    late.push(*chain, branch, sender=W2)
    assert heads(late)[OWNER] == 39
    assert late.take_said() == [Seen(node_id_bytes(OWNER), chain[38].digest)]
    late.says(W2, fork, Seen(node_id_bytes(OWNER), chain[39].digest))
    late.push(*chain, branch, sender=W2)
    assert late.machine._chains.holds(chain[39].digest)
    assert not late.machine._chains.holds(branch.digest)


# ---- pushing


def test_own_blocks_go_to_everybody_in_a_small_mesh_and_others_are_not_passed_on() -> None:
    bench = Bench()
    bench.up(W1, W2, W3)
    synced(bench)
    item = bench.tx()
    bench.says(OWNER, item)
    calls = bench.take_calls("PushBlocks")
    assert {call.node for call in calls} == {W1, W2, W3}
    bench.calls = calls
    assert set(pushed(bench)) == {(SELF, 1)}


def test_in_a_large_mesh_a_block_goes_to_some_and_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip, "DIRECT_MAX", 2)
    monkeypatch.setattr(gossip, "RELAY_PEERS", 1)
    bench = Bench()
    bench.up(W1, W2, W3, PAYEE)
    synced(bench)
    bench.push(bench.block(OWNER, bench.tx()), sender=W1)
    calls = bench.take_calls("PushBlocks")
    sent = [(call.node, [len(call.request.blocks)]) for call in calls]  # type: ignore[attr-defined]
    assert 2 <= len({node for node, _ in sent}) <= 3
    bench.calls = calls
    assert sorted(set(pushed(bench))) == sorted({(SELF, 1), (OWNER, 1)})


def test_one_push_to_a_peer_is_under_way_and_what_comes_up_shares_the_next() -> None:
    bench = Bench()
    bench.up(W1)
    synced(bench)
    for index in range(3):
        bench.says(OWNER, bench.tx(seq=index, amount=index + 1))
        bench.says(W2, bench.tx(W2, amount=index + 1))
    (first,) = bench.take_calls("PushBlocks")
    bench.answer(first, ledger_pb2.PushBlocksResponse())
    (second,) = bench.take_calls("PushBlocks")
    assert len(second.request.blocks) > 1  # type: ignore[attr-defined]


def test_pushes_are_bounded_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip, "PUSH_BLOCKS_MAX", 4)
    bench = Bench()
    for index in range(6):
        bench.says(OWNER, bench.tx(seq=index))
    bench.up(W1)
    synced(bench)
    sizes = []
    for _ in range(9):
        for call in bench.take_calls():
            if isinstance(call.request, ledger_pb2.PushBlocksRequest):
                sizes.append(len(call.request.blocks))
                bench.answer(call, ledger_pb2.PushBlocksResponse())
            else:
                held = sum(sizes)
                places = range(1, held + 1)
                answer = ledger_pb2.SyncBlocksResponse()
                chains = bench.machine._chains
                for place in places:
                    header = chains._header_at(place)
                    assert header is not None
                    answer.heads.add(author=header.header.author_id, height=header.header.height, digest=header.digest)
                bench.answer(call, answer)
    assert max(sizes) == 4
    assert sum(sizes) == sum(heads(bench).values())


def test_a_peer_that_went_down_is_told_nothing() -> None:
    bench = Bench()
    bench.up(W1)
    synced(bench)
    bench.step(PeerDown(W1))
    bench.says(OWNER, bench.tx())
    bench.wait(10_000)
    assert bench.take_calls() == []


# ---- anti-entropy


def test_a_peer_is_met_when_it_comes_up_and_somebody_every_two_seconds() -> None:
    bench = Bench()
    bench.up(W1, W2)
    assert {call.node for call in bench.take_calls("SyncBlocks")} == {W1, W2}
    bench = Bench()
    bench.up(W1)
    synced(bench)
    met = 0
    for _ in range(5):
        bench.wait(gossip.SYNC_MS)
        calls = bench.take_calls("SyncBlocks")
        met += len(calls)
        bench.calls = calls
        synced(bench)
    assert met == 5


def test_both_sides_of_a_meeting_push_what_the_other_lacks() -> None:
    bench = Bench()
    bench.up(W1)
    item = bench.tx()
    bench.says(OWNER, item)
    bench.says(W2, vote(item))
    bench.take_calls("PushBlocks")
    digest = bench.machine._chains.author(node_id_bytes(OWNER)).digest
    bench = settle_pushes(bench)
    bench.sync(W1, heads=((node_id_bytes(OWNER), 1, digest),))
    assert set(pushed(bench)) == {(W2, 1), (SELF, 1)}
    response = bench.replies[-1]
    assert isinstance(response, ledger_pb2.SyncBlocksResponse)
    assert {head.author: head.height for head in response.heads} == {OWNER: 1, W2: 1, SELF: 1}


def settle_pushes(bench: Bench) -> Bench:
    """As if every push so far had failed."""
    bench.answer(
        Call("ledger", W1, "PushBlocks", ledger_pb2.PushBlocksRequest(), gossip.Tag("PushBlocks", W1), 1),
        Unavailable("x"),
    )
    bench.take_calls()
    return bench


def test_an_answer_with_older_heads_is_answered_with_the_rest_in_the_order_of_coming() -> None:
    bench = Bench()
    item = bench.tx()
    bench.says(OWNER, item)
    bench.says(W2, vote(item))
    bench.says(OWNER, vote(item))
    bench.up(W1)
    synced(bench)
    assert pushed(bench) == [(OWNER, 1), (SELF, 1), (W2, 1), (OWNER, 2)]


def test_a_block_asked_for_by_name_comes_with_those_before_it() -> None:
    bench = Bench()
    bench.up(W1)
    synced(bench)
    for index in range(3):
        bench.says(OWNER, bench.tx(seq=index))
    bench = settle_pushes(bench)
    chains = bench.machine._chains
    everything = tuple((name, author.height, author.digest) for name, author in chains.authors.items())
    bench.sync(W1, heads=everything, wanted=(chains.author(node_id_bytes(OWNER)).digest, bytes(32)))
    assert [entry for entry in pushed(bench) if entry[0] == OWNER] == [(OWNER, 1), (OWNER, 2), (OWNER, 3)]


def test_a_peer_that_shows_an_endless_hunger_is_fed_no_faster_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip, "PUSH_BLOCKS_MAX", 2)
    bench = Bench()
    for index in range(5):
        bench.says(OWNER, bench.tx(seq=index))
    bench.up(W1)
    calls = 0
    for _ in range(20):
        for call in bench.take_calls():
            calls += 1
            reply = (
                ledger_pb2.SyncBlocksResponse()
                if call.method.endswith("SyncBlocks")
                else ledger_pb2.PushBlocksResponse()
            )
            bench.answer(call, reply)
    assert calls < 10


def test_malformed_heads_in_an_answer_are_left_out() -> None:
    bench = Bench()
    bench.up(W1)
    synced(bench, ("no node", 5, bytes(32)), (SELF, 5, b"x" * 600), (OWNER, 3, b""))
    assert bench.machine.muted_why == ""


# ---- the genesis


def test_the_genesis_travels_with_a_meeting_until_the_peer_has_it() -> None:
    bench = Bench()
    bench.up(W1)
    (call,) = bench.take_calls("SyncBlocks")
    assert call.request.ledger_genesis == bench.signed  # type: ignore[attr-defined]
    bench.answer(call, ledger_pb2.SyncBlocksResponse())
    bench.wait(gossip.SYNC_MS)
    (call,) = bench.take_calls("SyncBlocks")
    assert not call.request.HasField("ledger_genesis")
    assert call.request.genesis_digest == bench.root  # type: ignore[attr-defined]


def test_a_node_without_a_genesis_takes_the_first_that_comes() -> None:
    bench = Bench(opened=False)
    bench.up(W1)
    bench.sync(W1)
    assert isinstance(bench.replies[-1], FailedPrecondition)
    assert bench.replies[-1].reason == "LedgerNotOpen"
    bench.ask(SyncBlocks(W1, (), (), bench.root, (bench.signed, bench.genesis)), W1)
    assert bench.machine.is_open
    assert bench.balance(OWNER) == START_MICRO
    assert bench.views.genesis == bench.genesis


# ---- what is worth checking


def of_use(bench: Bench, *blocks: CheckedBlock) -> list[bool]:
    return bench.machine.of_use([block.signed for block in blocks])


def test_a_block_that_is_held_or_far_beyond_its_chain_is_not_worth_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "HEIGHTS_AHEAD_MAX", 2)
    bench = Bench()
    chain = [bench.block(W1, vote(bench.tx(amount=1 + number))) for number in range(4)]
    assert of_use(bench, *chain) == [True, True, False, False]
    bench.push(*chain[2:])
    assert not bench.machine._orphans.is_wanted(chain[1].digest), "nor is it looked at, whoever has checked it"
    bench.push(*chain[:2])
    assert of_use(bench, *chain) == [False, False, True, True]
    bench.rewind_to(W1, 1, chain[0].digest)
    assert of_use(bench, bench.block(W1, vote(bench.tx(amount=9)))) == [True], "a fork is"
    bench.rewind_to(SELF, 7, b"s" * 32)
    assert of_use(bench, bench.block(SELF, vote(bench.tx()))) == [True], "and so is what this node has signed itself"


def test_of_an_author_who_forked_only_what_is_named_is_worth_it_with_what_comes_along() -> None:
    bench = Bench()
    bench.says(W3, vote(bench.tx(amount=1)))
    bench.rewind(W3)
    bench.says(W3, vote(bench.tx(amount=2)))
    bench.rewind_to(W3, 1, b"p" * 32)
    branch = [bench.block(W3, vote(bench.tx(amount=3 + number))) for number in range(3)]
    assert of_use(bench, *branch) == [False] * 3
    bench.says(W1, Seen(node_id_bytes(W3), branch[1].digest))
    assert of_use(bench, *branch) == [True, True, False]


def test_pushes_are_bounded_in_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip, "PUSH_SIGNATURES_MAX", 4)
    bench = Bench()
    for index in range(5):
        bench.says(OWNER, bench.tx(seq=index))
    bench.up(W1)
    synced(bench)
    sizes = []
    while calls := bench.take_calls("PushBlocks"):
        for call in calls:
            blocks = call.request.blocks  # type: ignore[attr-defined]
            sizes.append(sum(signatures_of(block) for block in blocks))
            bench.answer(call, ledger_pb2.PushBlocksResponse())
    assert max(sizes) == 4
    assert sum(sizes) == 5 * 2 + 1, "nothing is left behind: transactions and headers, and this node's vote"


def test_what_a_step_has_to_say_is_bounded_in_signatures_for_each_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BLOCK_SIGNATURES_MAX", 3)
    bench = Bench()
    bench.machine._voice._quiet_until_ms = bench.now_ms + 20  # what it finds out meanwhile is told in one step
    for liar in (W1, W2, W3):
        bench.says(liar, vote(bench.tx(amount=1)))
        bench.rewind(liar)
        bench.says(liar, vote(bench.tx(amount=2)))
    bench.take_said()
    bench.wait(QUIET_MS)
    assert sum(isinstance(item, Fork) for item in bench.take_said()) == 3
    blocks = [ledger_pb2.Block.FromString(raw) for _, raw in bench.store.scan(LOG)]
    assert [signatures_of(one) for one in blocks if header_of(one, SALT).header.author_id == SELF] == [3, 3, 3]


def test_there_is_one_genesis_for_ever() -> None:
    bench = Bench()
    other = LedgerGenesis(OWNER, ((W1, 1_000),), (), 0, 2)
    refused = bench.ask(OpenLedger(common_pb2.Signed(body=other.encode()), other))
    assert isinstance(refused, AlreadyExists)
    assert refused.reason == "LedgerOpen"
    assert not isinstance(bench.ask(OpenLedger(bench.signed, bench.genesis)), AlreadyExists)
    refused = bench.ask(SyncBlocks(W1, (), (), other.digest(SALT), None), W1)
    assert isinstance(refused, FailedPrecondition)
    assert refused.reason == "OtherLedger"
    assert "another ledger" in bench.machine.notices[0]


# ---- a node that lost its memory


def test_a_node_that_meets_its_own_unknown_block_is_mute_for_ever() -> None:
    bench = Bench()
    item = bench.tx()
    lost = bench.block(SELF, vote(item))
    bench.push(lost, sender=W1)
    assert "was it restored" in bench.machine.muted_why
    bench.take_said()
    for index in range(2):
        bench.says(W2, bench.tx(PAYEE, seq=index, amount=5), vote(item))
        assert bench.take_said() == []
        refused = bench.transfer(5)
        assert isinstance(refused, FailedPrecondition)
        assert refused.reason == "Muted"
        bench.restart()
        bench.calm()
    assert bench.machine.muted_why


def test_of_each_liar_there_is_one_notice_and_they_wipe_out_nothing_else() -> None:
    bench = Bench()
    bench.sync(W1)
    bench.ask(SyncBlocks(W2, (), (), b"o" * 32, None), W2)
    for number in range(100, 100 + 2 * NOTICES_MAX):
        liar = name_of(number)
        for amount in (1, 2):
            bench.rewind_to(liar, 0, bench.root)
            bench.says(liar, vote(bench.tx(amount=amount)))
    assert len(bench.machine.notices) == 1 + NOTICES_MAX
    assert f"{W2} has another ledger" in bench.machine.notices[0]


def test_of_what_a_peer_asks_for_by_name_no_more_is_read_than_one_push_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip, "PUSH_BLOCKS_MAX", 4)
    monkeypatch.setattr(gossip, "ANCESTORS_MAX", 3)
    bench = Bench()
    chain = [bench.block(OWNER, vote(bench.tx())) for _ in range(12)]
    bench.push(*chain)
    bench.up(W1)
    read: list[int] = []
    raw = bench.machine._chains.raw
    monkeypatch.setattr(bench.machine._chains, "raw", lambda place: read.append(place) or raw(place))
    heads_of_all = tuple((node_id_bytes(head.author), head.height, head.digest) for head in bench.views.heads())
    bench.sync(W1, heads_of_all, tuple(block.digest for block in reversed(chain)))
    assert len(read) <= 2 * (4 + 3), "once to find the one before, once to send it"
    assert sorted(pushed(bench, W1)) == [(OWNER, height) for height in (9, 10, 11, 12)]


def test_somebody_with_another_ledger_makes_one_notice_whatever_it_shows() -> None:
    bench = Bench()
    bench.sync(W1)
    for number in range(2 * NOTICES_MAX):
        bench.ask(SyncBlocks(W2, (), (), bytes([number]) * 32, None), W2)
    bench.up(W3)
    (call,) = bench.take_calls("SyncBlocks")
    bench.answer(call, FailedPrecondition("whatever it likes", reason="OtherLedger"))
    assert bench.machine.notices == [
        f"{W2} has another ledger: genesis {'0' * 16}, here it is {bench.root.hex()[:16]}",
        f"{W3} has another ledger",
    ]


def test_a_witness_is_heard_or_off_or_neither() -> None:
    bench = Bench(opened=False)
    bench.ask(OpenLedger(bench.signed, bench.genesis))
    bench.up(W1, W2, W3)
    for call in bench.take_calls("SyncBlocks"):
        if call.node == W1:
            bench.answer(call, FailedPrecondition("economy.enabled is false", reason="EconomyOff"))
        if call.node == W2:
            bench.answer(call, ledger_pb2.SyncBlocksResponse())
    heard, unheard, off = (
        ledger_pb2.WITNESS_STATE_HEARD, ledger_pb2.WITNESS_STATE_UNHEARD, ledger_pb2.WITNESS_STATE_ECONOMY_OFF,
    )  # fmt: skip
    states = [bench.machine.witness_state(node) for node in (SELF, W1, W2, W3)]
    assert states == [heard, off, heard, unheard]
    bench.says(W3, vote(bench.tx()))
    bench.up(W1)
    bench.restart()
    states = [bench.machine.witness_state(node) for node in (SELF, W1, W2, W3)]
    assert states == [heard, unheard, unheard, heard], "its blocks are remembered"
    off_here = LedgerMachine(replace(bench.settings, enabled=False))
    off_here.load(bench.store, bench.now())
    assert off_here.witness_state(SELF) == off


def test_what_was_signed_in_the_very_step_that_makes_it_mute_does_not_go_out() -> None:
    bench = Bench()
    bench.up(W1)
    synced(bench)
    transfer = CreateTransfer(((node_id_bytes(PAYEE), 5),), 0, b"", "")
    lost = PushBlocks(W1, (bench.block(SELF, vote(bench.tx())),))
    bench.step(Asked(1, "owner", transfer), Asked(2, W1, lost))
    assert bench.machine.muted_why
    assert pushed(bench) == []


def test_a_node_that_meets_its_own_unknown_transaction_is_mute() -> None:
    bench = Bench()
    bench.says(W1, bench.tx(SELF, amount=9))
    assert "was it restored" in bench.machine.muted_why


def test_after_a_start_there_is_no_vote_before_a_quorum_of_witnesses_has_shown_what_it_holds() -> None:
    bench = Bench()
    bench.restart()
    bench.up(W1)
    bench.says(OWNER, bench.tx())
    synced(bench)
    bench.sync(OWNER)
    bench.sync(W1)
    bench.wait(10 * QUIET_MS)
    assert bench.take_said() == []
    bench.sync(W2)
    assert bench.take_said() == [vote(bench.tx())]


def test_witnesses_that_have_not_shown_what_they_hold_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip, "SYNC_MS", QUIET_MS)
    bench = Bench()
    bench.restart()
    bench.up(W1, W2, W3)
    for call in bench.take_calls("SyncBlocks"):
        bench.answer(call, Unavailable("no answer"))
    bench.wait(gossip.SYNC_MS)
    assert {call.node for call in bench.take_calls("SyncBlocks")} == {W1, W2, W3}


def test_alone_after_a_start_a_node_signs_what_is_its_own_and_no_vote() -> None:
    bench = Bench()
    bench.restart()
    bench.says(OWNER, bench.tx())
    bench.transfer(5)
    bench.wait(QUIET_MS)
    (own,) = bench.take_said()
    assert isinstance(own, TxItem)


def test_a_witness_that_is_a_quorum_by_itself_needs_nobody() -> None:
    bench = Bench(witnesses=(SELF,))
    bench.restart()
    bench.says(OWNER, bench.tx())
    bench.wait(QUIET_MS)
    assert vote(bench.tx()) in bench.take_said()


def test_a_peer_that_holds_more_of_this_node_is_asked_for_it_first() -> None:
    bench = Bench()
    bench.restart()
    bench.up(W1)
    lost = bench.block(SELF, vote(bench.tx()))
    bench.says(OWNER, bench.tx())
    synced(bench, (SELF, 1, lost.digest))
    assert bench.take_said() == []
    bench.wait(ASK_MS)
    (ask,) = bench.take_calls("SyncBlocks")
    assert list(ask.request.wanted) == [lost.digest]  # type: ignore[attr-defined]
    bench.push(lost, sender=W1)
    assert bench.machine.muted_why


def test_a_mute_node_still_follows_and_passes_on() -> None:
    bench = Bench()
    bench.push(bench.block(SELF, vote(bench.tx(amount=3))))
    item = bench.tx()
    bench.says(OWNER, item)
    bench.finish(item)
    assert bench.balance(PAYEE) == START_MICRO + 100
    bench.up(name_of(77))
    synced(bench)
    assert (OWNER, 1) in pushed(bench)
