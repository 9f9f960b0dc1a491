"""Which blocks come in: orphans, forks, and what is worth a signature."""

from __future__ import annotations

import pytest
from gossip_bench import asks, heads, pushed, synced
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, confirm, vote

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import intake, orphans
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.items import Fork, Seen, fork_of
from offgrid_node.protocol.ledger.orphans import ASK_MS
from offgrid_node.protocol.ledger.voice import QUIET_MS
from offgrid_tools.ledgersim.keys import START_MICRO


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
    asks(holder, W3, OWNER, 1, 40)
    assert [height for author, height in pushed(holder, W3) if author == OWNER] == [*range(1, 41)]
    late.take_said()
    late.push(*chain, branch, sender=W2)
    assert heads(late)[OWNER] == 39
    assert late.take_said() == [Seen(node_id_bytes(OWNER), chain[38].digest)]
    late.says(W2, fork, Seen(node_id_bytes(OWNER), chain[39].digest))
    late.push(*chain, branch, sender=W2)
    assert late.machine._chains.holds(chain[39].digest)
    assert not late.machine._chains.holds(branch.digest)


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


class TestHeadsOfAnAuthorThatForked:
    """Its element among the heads is that of everybody who holds the same blocks, whatever was seen first."""

    def test_are_the_same_though_the_newest_blocks_told_of_the_fork(self) -> None:
        here, there = Bench(), Bench()
        chain = [here.block(OWNER, vote(here.tx(amount=1 + number))) for number in range(8)]
        there.rewind_to(OWNER, 3, chain[2].digest)
        branch = [there.block(OWNER, vote(there.tx(amount=50 + number))) for number in range(5)]
        here.push(*chain, sender=OWNER)
        there.push(*chain[:3], *branch, sender=OWNER)
        here.push(branch[-1])
        there.push(chain[-1])
        told = here.take_said(), there.take_said()
        assert [type(thing) for thing in told[0]] == [type(thing) for thing in told[1]] == [Fork, Seen]
        here.says(W2, *told[1])
        there.says(W2, *told[0])
        here.push(*branch)
        there.push(*chain)
        assert shown(here) == shown(there) == (3, chain[2].digest)
        for bench in (here, there):
            bench.restart()
        assert shown(here) == shown(there) == (3, chain[2].digest)

    def test_are_the_same_whichever_of_its_forks_was_told_first(self) -> None:
        bench, other = Bench(), Bench()
        chain = [bench.block(OWNER, vote(bench.tx(amount=1 + number))) for number in range(4)]
        forks = []
        for height in (2, 4):
            other.rewind_to(OWNER, height - 1, chain[height - 2].digest)
            forks.append(fork_of(chain[height - 1].signed, other.block(OWNER, vote(other.tx(amount=70))).signed))
        other.push(*chain, sender=OWNER)
        bench.push(*chain, sender=OWNER)
        bench.says(W1, *forks)
        other.says(W1, *forks[::-1])
        assert shown(bench) == shown(other) == (1, chain[0].digest)


def shown(bench: Bench) -> tuple[int, bytes]:
    """The element of OWNER's chain among the heads."""
    return bench.machine._chains.heads._heads[node_id_bytes(OWNER)]
