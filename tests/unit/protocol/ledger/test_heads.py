"""Heads as a set: one element for each author, a summary kept as they move, and their forms on the wire."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_bench import OWNER, W1, W2, Bench, vote

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.heads import (
    HEADS_MAX,
    Heads,
    Span,
    decode_authors,
    decode_heads,
    decode_spans,
    encode_authors,
    encode_heads,
    encode_spans,
)
from offgrid_node.protocol.ledger.records import SEQ_MAX
from offgrid_node.protocol.ledger.words import words_of
from offgrid_node.protocol.reconcile.symbols import SymbolCode

AUTHORS = st.binary(min_size=20, max_size=20)
HEIGHTS = st.integers(1, SEQ_MAX)
ROOT = b"g" * 32


class TestTheSet:
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60))
    def test_is_known_by_its_summary_whatever_way_it_came_about(self, moves: list[tuple[int, int]]) -> None:
        made, last = Heads(), dict[int, int]()
        for author, height in moves:
            made.move(bytes([author]) * 20, height, bytes([height]) * 32)
            last[author] = height
        again = Heads()
        for author, height in sorted(last.items(), reverse=True):
            again.move(bytes([author]) * 20, height, bytes([height]) * 32)
        assert made.summary(ROOT) == again.summary(ROOT)
        assert dict(made.pairs()) == dict(again.pairs())

    def test_differs_by_author_height_block_and_ledger(self) -> None:
        heads = [(b"a" * 20, 1, b"d" * 32), (b"b" * 20, 1, b"d" * 32), (b"a" * 20, 2, b"d" * 32), (b"a" * 20, 1, ROOT)]
        summaries = set()
        for head in heads:
            made = Heads()
            made.move(*head)
            summaries.add(made.summary(ROOT))
        other = Heads()
        other.move(*heads[0])
        summaries.add(other.summary(b"h" * 32))
        assert len(summaries) == 5

    def test_under_another_key_has_other_ids(self) -> None:
        made = Heads()
        made.move(b"a" * 20, 3, b"d" * 32)
        one, other = (made.shortened(SymbolCode(bytes([key]) * 16, 8)) for key in range(2))
        assert [*one.values()] == [*other.values()] == [(b"a" * 20, 3)]
        assert one.keys().isdisjoint(other.keys())


class TestAForkedAuthor:
    def test_stands_in_it_with_what_is_below_the_fork_whichever_branch_came_first(self) -> None:
        benches = Bench(), Bench()
        for bench, amounts in zip(benches, ((2, 3), (3, 2)), strict=True):
            bench.says(OWNER, vote(bench.tx(amount=1)))
            for amount in amounts:
                bench.rewind_to(OWNER, 1, bench.machine._chains.header_at(node_id_bytes(OWNER), 1).digest)  # type: ignore[union-attr]
                bench.says(OWNER, vote(bench.tx(amount=amount)))
        heads = [bench.machine._chains.heads for bench in benches]
        assert [one.height(node_id_bytes(OWNER)) for one in heads] == [1, 1]
        chains = [bench.machine._chains.author(node_id_bytes(OWNER)).digest for bench in benches]
        assert chains[0] != chains[1]
        code = SymbolCode(bytes(16), 8)
        of_owner = [
            [id_ for id_, (author, _) in one.shortened(code).items() if author == node_id_bytes(OWNER)] for one in heads
        ]
        assert of_owner[0] == of_owner[1]

    def test_that_forked_at_its_first_block_does_not_stand_in_it(self) -> None:
        bench = Bench()
        bench.says(OWNER, vote(bench.tx(amount=1)))
        bench.rewind(OWNER)
        bench.says(OWNER, vote(bench.tx(amount=2)))
        assert bench.machine._chains.heads.height(node_id_bytes(OWNER)) == 0

    def test_after_a_restart_it_is_the_same_set(self) -> None:
        bench = Bench()
        for author in (OWNER, W1, W2):
            bench.says(author, vote(bench.tx(amount=1)))
        bench.says(OWNER, vote(bench.tx(amount=2)))
        bench.rewind(OWNER)
        bench.says(OWNER, vote(bench.tx(amount=3)))
        before = bench.machine._chains.heads.summary(bench.root)
        bench.restart()
        assert bench.machine._chains.heads.summary(bench.root) == before


class TestTheWireForms:
    @given(st.dictionaries(AUTHORS, HEIGHTS, max_size=20))
    def test_heads_are_read_as_they_were_written(self, heads: dict[bytes, int]) -> None:
        assert decode_heads(encode_heads(heads.items())) == heads

    @given(st.lists(st.tuples(AUTHORS, HEIGHTS, HEIGHTS), max_size=20))
    def test_spans_too(self, told: list[tuple[bytes, int, int]]) -> None:
        spans = tuple(Span(author, min(one, other), max(one, other)) for author, one, other in told)
        assert decode_spans(encode_spans(spans)) == spans

    @given(st.lists(AUTHORS, max_size=20))
    def test_and_authors(self, authors: list[bytes]) -> None:
        assert decode_authors(encode_authors(authors)) == tuple(authors)

    @given(st.binary(max_size=90))
    def test_what_is_anything_else_is_refused(self, raw: bytes) -> None:
        readings: list[tuple[Callable[[bytes], object], Callable[[], bytes]]] = [
            (decode_heads, lambda: encode_heads(decode_heads(raw).items())),
            (decode_spans, lambda: encode_spans(decode_spans(raw))),
            (decode_authors, lambda: encode_authors(decode_authors(raw))),
        ]
        for read, again in readings:
            try:
                read(raw)
            except PeerFault as fault:
                assert fault.reason == "BadHeads"  # noqa: PT017 - most bytes are refused, some are heads
            else:
                assert again() == raw

    def test_no_more_than_there_are_members_go_in_one_message(self) -> None:
        for number in (HEADS_MAX, HEADS_MAX + 1):
            raw = encode_authors(index.to_bytes(20, "big") for index in range(number))
            if number == HEADS_MAX:
                assert len(decode_authors(raw)) == HEADS_MAX
            else:
                with pytest.raises(PeerFault, match="more than 4096 authors"):
                    decode_authors(raw)

    def test_a_span_beyond_all_heights_is_refused(self) -> None:
        with pytest.raises(PeerFault, match="ends above"):
            decode_spans(encode_spans([Span(b"a" * 20, SEQ_MAX, SEQ_MAX + 1)]))

    def test_words_are_read_as_they_were_written(self) -> None:
        spans = (Span(b"a" * 20, 17, 4_903),)
        words = words_of(
            ledger_pb2.PushBlocksRequest(
                asked=True,
                announced=encode_heads([(b"b" * 20, 5)]),
                prune=b"c" * 20,
                graft=b"d" * 20,
                lacking=encode_spans(spans),
                leave=True,
            )
        )
        assert (words.asked, words.announced, words.leave) == (True, {b"b" * 20: 5}, True)
        assert (words.prune, words.graft, words.lacking) == ((b"c" * 20,), (b"d" * 20,), spans)
