"""When a node may speak: after a start, with another's ledger about, or once it lost its memory."""

from __future__ import annotations

import pytest
from gossip_bench import asks, pushed, synced
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, vote
from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Asked
from offgrid_node.protocol.errors import FailedPrecondition, Unavailable
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import gossip
from offgrid_node.protocol.ledger.commands import CreateTransfer, OpenLedger, PushBlocks, SyncBlocks
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.meeting import Question
from offgrid_node.protocol.ledger.orphans import ASK_MS
from offgrid_node.protocol.ledger.voice import NOTICES_MAX, QUIET_MS
from offgrid_tools.ledgersim.keys import START_MICRO, name_of


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
    bench.ask(SyncBlocks(W2, Question(bytes(16)), genesis_digest=b"o" * 32), W2)
    for number in range(100, 100 + 2 * NOTICES_MAX):
        liar = name_of(number)
        for amount in (1, 2):
            bench.rewind_to(liar, 0, bench.root)
            bench.says(liar, vote(bench.tx(amount=amount)))
    assert len(bench.machine.notices) == 1 + NOTICES_MAX
    assert f"{W2} has another ledger" in bench.machine.notices[0]


def test_somebody_with_another_ledger_makes_one_notice_whatever_it_shows() -> None:
    bench = Bench()
    bench.sync(W1)
    for number in range(2 * NOTICES_MAX):
        bench.ask(SyncBlocks(W2, Question(bytes(16)), genesis_digest=bytes([number + 1]) * 32), W2)
    bench.up(W3)
    (call,) = bench.take_calls("SyncBlocks")
    bench.answer(call, FailedPrecondition("whatever it likes", reason="OtherLedger"))
    assert bench.machine.notices == [
        f"{W2} has another ledger: genesis {'01' * 8}, here it is {bench.root.hex()[:16]}",
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
    asks(bench, name_of(77), OWNER, 1, 1)
    assert (OWNER, 1) in pushed(bench)
