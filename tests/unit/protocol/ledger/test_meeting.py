"""How two nodes find out where their heads differ, in bytes that follow the difference."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from gossip_bench import heads, said, synced, take
from hypothesis import given
from hypothesis import strategies as st
from ledger_bench import OWNER, W1, W2, W3, Bench, vote

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition, PeerFault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import gossip
from offgrid_node.protocol.ledger.backfill import WAIT_MS
from offgrid_node.protocol.ledger.commands import OpenLedger, SyncBlocks
from offgrid_node.protocol.ledger.gossip import SYNC_MOST_MS, SYNC_MS
from offgrid_node.protocol.ledger.heads import HEADS_MAX, Heads, Span
from offgrid_node.protocol.ledger.meeting import Learnt, Meeting, Question, answer_to, question_of
from offgrid_node.protocol.ledger.records import LedgerGenesis
from offgrid_tools.ledgersim.keys import SALT, START_MICRO

ROOT, OWNERS = b"g" * 32, node_id_bytes(OWNER)
HEADS = st.dictionaries(st.integers(0, 40), st.tuples(st.integers(1, 2**40), st.integers(0, 3)), max_size=40)


def heads_of(told: dict[int, tuple[int, int]]) -> Heads:
    made = Heads()
    for author, (height, branch) in told.items():
        made.move(author.to_bytes(20, "big"), height, bytes([branch]) * 32)
    return made


def meet(here: Heads, there: Heads, seed: int = 1) -> tuple[Learnt, dict[bytes, int], int]:
    """What the side that asks learns, what the other is shown, and the bytes of all messages."""
    meeting = Meeting(here, ROOT, Random(seed).randbytes(16))
    request, size, shown = meeting.begin(), 0, dict[bytes, int]()
    while True:
        question = question_of(request)
        answer = answer_to(there, question, ROOT)
        size, shown = size + request.ByteSize() + answer.ByteSize(), dict(question.heads) or shown
        following, learnt = meeting.on_answer(answer)
        if learnt is not None:
            return learnt, shown, size
        assert following is not None
        request = following


class TestTwoSides:
    @given(HEADS, HEADS, HEADS, st.integers(0, 99))
    def test_learn_of_every_head_that_differs(
        self, shared: dict[int, tuple[int, int]], here: dict[int, tuple[int, int]],
        there: dict[int, tuple[int, int]], seed: int,
    ) -> None:  # fmt: skip
        here, there = shared | here, shared | there
        learnt, shown, _ = meet(heads_of(here), heads_of(there), seed)
        only_there = {name.to_bytes(20, "big"): head[0] for name, head in there.items() if here.get(name) != head}
        only_here = {name.to_bytes(20, "big"): head[0] for name, head in here.items() if there.get(name) != head}
        assert learnt.in_sync == (not only_there and not only_here)
        assert only_there.items() <= learnt.theirs.items()
        assert only_here.items() <= shown.items()

    def test_in_sync_take_a_hundred_bytes_however_many_there_are(self) -> None:
        many = {author: (author + 1, 0) for author in range(1_000)}
        learnt, _, size = meet(heads_of(many), heads_of(many))
        assert learnt.in_sync
        assert size + 34 <= 100, "with the digest of the other's newest block"

    def test_that_differ_in_little_take_little(self) -> None:
        here = {author: (author + 1, 0) for author in range(1_000)}
        there = here | {author: (author + 2, 1) for author in range(0, 1_000, 100)}
        _, _, size = meet(heads_of(here), heads_of(there))
        assert size < 1_400

    def test_that_differ_in_much_take_no_more_than_a_list(self) -> None:
        here = {author: (author + 1, 0) for author in range(1_000)}
        there = {author: (author + 2, 1) for author in range(1_000)}
        learnt, shown, size = meet(heads_of(here), heads_of(there))
        assert (len(learnt.theirs), len(shown)) == (1_000, 1_000)
        assert size < 60_000

    def test_of_which_one_is_empty(self) -> None:
        many = {author: (author + 1, 0) for author in range(300)}
        learnt, _, _ = meet(heads_of({}), heads_of(many))
        assert len(learnt.theirs) == 300
        _, shown, _ = meet(heads_of(many), heads_of({}))
        assert len(shown) == 300


class TestALiar:
    @given(st.binary(max_size=400), st.integers(0, 2**32 - 1), st.binary(max_size=60))
    def test_that_makes_symbols_up_is_left_sooner_or_later(self, symbols: bytes, items: int, names: bytes) -> None:
        meeting = Meeting(heads_of({1: (1, 0)}), ROOT, bytes(16))
        for _ in range(400):
            answer = ledger_pb2.SyncBlocksResponse(symbols=symbols, items=items, summary=b"s" * 16, heads=names)
            try:
                following, learnt = meeting.on_answer(answer)
            except PeerFault:
                return
            if learnt is not None or following is None:
                return
        raise AssertionError("it goes on and on")

    def test_whose_heads_move_while_they_are_compared_is_met_another_time(self) -> None:
        shared = {author: (author + 1, 0) for author in range(300)}
        meeting = Meeting(heads_of(shared), ROOT, bytes(16))
        others = heads_of(shared | {author: (author + 2, 0) for author in range(30)})
        first = answer_to(others, question_of(meeting.begin()), ROOT)
        following, _ = meeting.on_answer(first)
        assert following is not None
        assert following.count
        first.summary = b"another summary!"
        with pytest.raises(PeerFault) as moved:
            meeting.on_answer(first)
        assert moved.value.reason == "HeadsMoved"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"summary": b"short"},
            {"key": b""},
            {"count": 2_000},
            {"first": 10_000},
            {"ids": b"seven b"},
            {"ids": bytes(8 * (HEADS_MAX + 1))},
            {"heads": b"x" * 20},
            {"heads": (b"a" * 20 + b"\1") * 2},
            {"heads": b"a" * 20 + b"\0"},
        ],
    )
    def test_that_asks_what_nobody_asks_is_refused(self, wrong: dict[str, object]) -> None:
        request = ledger_pb2.SyncBlocksRequest(**{"summary": bytes(16), "key": bytes(16), **wrong})  # type: ignore[arg-type]
        with pytest.raises(PeerFault) as refused:
            question_of(request)
        assert refused.value.reason in ("BadQuestion", "BadHeads")


class TestWhen:
    def test_a_link_is_met_when_it_comes_up(self) -> None:
        bench = Bench()
        bench.up(W1, W2)
        assert {call.node for call in take(bench, "SyncBlocks")} == {W1, W2}

    def test_somebody_is_met_every_two_seconds_and_more_rarely_while_nothing_is_found(self) -> None:
        bench = Bench()
        bench.up(W1)
        synced(bench)
        bench.wait(SYNC_MS)
        met = list[int]()
        while bench.now_ms < 6 * SYNC_MOST_MS:
            bench.wait(1_000)
            for call in take(bench, "SyncBlocks"):
                met.append(bench.now_ms)
                bench.answer(call, ledger_pb2.SyncBlocksResponse(in_sync=True))
        gaps = [after - before for before, after in pairwise(met)]
        assert gaps[-1] > SYNC_MOST_MS - 2_000
        assert sorted(gaps[:6]) == gaps[:6]
        bench.sync(W1, ((OWNERS, 3, bytes(32)),))
        bench.take_calls()
        bench.wait(SYNC_MS)
        assert take(bench, "SyncBlocks"), "there is something to find"

    def test_in_turn_each_link_is_met(self) -> None:
        bench = Bench()
        bench.up(W1, W2, W3)
        met = set[str]()
        for _ in range(6):
            synced(bench)
            bench.wait(SYNC_MOST_MS)
            met |= {call.node for call in bench.calls if call.method.endswith("SyncBlocks")}
        assert met == {W1, W2, W3}

    def test_what_both_lack_is_asked_for_by_both(self) -> None:
        bench, other = Bench(), Bench()
        block = other.block(W2, vote(other.tx()))
        bench.says(OWNER, vote(bench.tx()))
        bench.up(W1)
        synced(bench, (W2, 1, block.digest))
        bench.wait(WAIT_MS)
        lacking = [span for words in said(bench, W1) for span in words.lacking]
        assert lacking == [Span(node_id_bytes(W2), 1, 1)]
        bench.sync(W1, ((node_id_bytes(W3), 4, bytes(32)),))
        bench.take_calls()
        bench.wait(WAIT_MS)
        bench.machine._gossip._links.peer(W1).pushing = False
        assert node_id_bytes(W3) in bench.machine._gossip._backfill._gaps

    def test_that_makes_more_questions_than_anybody_gets_no_symbols(self) -> None:
        bench = Bench()
        bench.says(OWNER, vote(bench.tx()))
        bench.up(W1)
        synced(bench)
        for _ in range(gossip.WINDOWS_MAX + 1):
            bench.sync(W1)
        answer = bench.replies[-1]
        assert isinstance(answer, ledger_pb2.SyncBlocksResponse)
        assert (answer.symbols, answer.in_sync) == (b"", False)
        bench.wait(SYNC_MOST_MS)
        bench.sync(W1)
        answer = bench.replies[-1]
        assert isinstance(answer, ledger_pb2.SyncBlocksResponse)
        assert answer.symbols

    def test_malformed_answers_change_nothing(self) -> None:
        bench = Bench()
        bench.up(W1, W2, W3)
        for call in take(bench, "SyncBlocks"):
            bench.answer(call, ledger_pb2.SyncBlocksResponse(symbols=b"x" * 600, heads=b"y", yours=b"z" * 7))
        assert bench.machine.muted_why == ""
        assert heads(bench) == {}

    def test_that_is_in_sync_however_often_is_told_so(self) -> None:
        bench = Bench()
        bench.up(W1)
        synced(bench)
        question = Question(bench.machine._chains.heads.summary(bench.root), bytes(16))
        for _ in range(gossip.WINDOWS_MAX + 1):
            answer = bench.ask(SyncBlocks(W1, question, b"", (), bench.root), W1)
        assert isinstance(answer, ledger_pb2.SyncBlocksResponse)
        assert answer.in_sync

    def test_that_shows_its_heads_more_often_than_anybody_learns_nothing(self) -> None:
        bench = Bench()
        bench.says(OWNER, vote(bench.tx()))
        bench.up(W1)
        synced(bench)
        for _ in range(2 * gossip.WINDOWS_MAX + 1):
            bench.sync(W1, ((OWNERS, 1, bytes(32)),))
        answer = bench.replies[-1]
        assert isinstance(answer, ledger_pb2.SyncBlocksResponse)
        assert answer.heads == b""


class TestTheGenesis:
    def test_travels_with_a_meeting_until_the_peer_has_it(self) -> None:
        bench = Bench()
        bench.up(W1)
        (call,) = take(bench, "SyncBlocks")
        assert isinstance(call.request, ledger_pb2.SyncBlocksRequest)
        assert call.request.ledger_genesis == bench.signed
        assert call.request.genesis_digest == bench.root
        bench.answer(call, ledger_pb2.SyncBlocksResponse(in_sync=True))
        bench.wait(SYNC_MS)
        (call,) = take(bench, "SyncBlocks")
        assert isinstance(call.request, ledger_pb2.SyncBlocksRequest)
        assert not call.request.HasField("ledger_genesis")
        assert call.request.genesis_digest == b""

    def test_is_taken_by_a_node_that_has_none(self) -> None:
        bench = Bench(opened=False)
        bench.up(W1)
        bench.sync(W1)
        assert isinstance(bench.replies[-1], FailedPrecondition)
        assert bench.replies[-1].reason == "LedgerNotOpen"
        question, genesis = Question(bytes(16), bytes(16)), (bench.signed, bench.genesis)
        bench.ask(SyncBlocks(W1, question, genesis_digest=bench.root, genesis=genesis), W1)
        assert bench.machine.is_open
        assert bench.balance(OWNER) == START_MICRO
        assert bench.views.genesis == bench.genesis

    def test_is_one_for_ever(self) -> None:
        bench = Bench()
        other = LedgerGenesis(OWNER, ((W1, 1_000),), (), 0, 2)
        refused = bench.ask(OpenLedger(common_pb2.Signed(body=other.encode()), other))
        assert isinstance(refused, AlreadyExists)
        assert refused.reason == "LedgerOpen"
        assert not isinstance(bench.ask(OpenLedger(bench.signed, bench.genesis)), AlreadyExists)
        refused = bench.ask(SyncBlocks(W1, Question(bytes(16)), genesis_digest=other.digest(SALT)), W1)
        assert isinstance(refused, FailedPrecondition)
        assert refused.reason == "OtherLedger"
        assert "another ledger" in bench.machine.notices[0]
