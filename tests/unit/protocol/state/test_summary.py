"""A summary: what it takes of events, what it says of them, and that of parts is that of the whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import jobs_pb2, ledger_pb2, state_pb2
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.state.sessions.blocks import Entry
from offgrid_node.protocol.state.summaries import journal_facts, session_facts
from offgrid_node.protocol.state.summaries.summary import Facts, Gathering, Summary, decode, encode, join

Events = list[tuple[str, list[str], int]]  # type, keys, and a number
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["JOB_CREATED", "TX_FINAL"]),
        st.lists(st.sampled_from([f"k{n}" for n in range(20)]), max_size=4),
        st.integers(-1_000, 1_000),
    ),
    min_size=1,
    max_size=60,
)


def gathered(events: Events, first: int = 1) -> Summary:
    gathering = Gathering("window_0 journal")
    for number, (type_name, keys, value) in enumerate(events, first):
        gathering.add(number, 1_000 + value, Facts(type_name, keys, [("n", value)], "text"))
    return gathering.summary()


@given(EVENTS, st.data())
def test_of_parts_is_that_of_the_whole(events: Events, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(events)))
    parts = [gathered(events[:at])] + ([gathered(events[at:], at + 1)] if at < len(events) else [])
    whole = encode(gathered(events))
    assert encode(join(parts)) == whole
    assert encode(join(parts[::-1])) == whole
    assert encode(decode(whole)) == whole


def test_has_a_form_that_stays() -> None:
    made = gathered([("TX_FINAL", ["b", "a"], 2), ("JOB_CREATED", ["a"], 1)])
    assert decode(encode(made)) == made
    assert (
        encode(made)
        .hex()
        .startswith("9802cd03e9cd03ea82ab4a4f425f4352454154454401a854585f46494e414c0181a16e9402cb3ff00000")
    )


def test_that_is_damaged_is_said_to_be() -> None:
    with pytest.raises(Corrupt, match="cannot be read"):
        decode(encode(gathered([("TX_FINAL", [], 1)]))[:-3])


def test_counts_a_key_once_for_each_event_that_has_it() -> None:
    assert gathered([("a", ["k", "k", ""], 1), ("a", ["k"], 1)]).hitters.counts == {"k": 2}


def test_bounds_how_often_a_key_came() -> None:
    few = gathered([("a", ["k"], 1), ("a", ["l"], 1), ("a", ["k"], 1)])
    assert (few.bounds("k"), few.bounds("l"), few.bounds("m")) == ((2, 2), (1, 1), (0, 0))
    many = gathered([("a", [f"k{n}"], 1) for n in range(40)] + [("a", ["often"], 1)] * 3)
    assert many.hitters.error == 1
    assert (many.bounds("often"), many.bounds("k7"), many.bounds("never")) == ((2, 3), (0, 1), (0, 0))
    assert gathered([("a", [f"k{n}" for n in range(99)], 1)]).bounds("k7")[1] == 1, "no more than there are events"


class TestOfTheJournal:
    def test_each_case_of_an_event_is_known(self) -> None:
        cases = {each.name for each in state_pb2.Event.DESCRIPTOR.oneofs_by_name["data"].fields}
        assert {*journal_facts._FIELDS} == cases
        for case, fields in journal_facts._FIELDS.items():
            named = state_pb2.Event.DESCRIPTOR.fields_by_name[case].message_type.fields_by_name
            assert {*fields.keys, *fields.numbers} <= {*named}

    def test_ids_names_and_amounts_are_taken(self) -> None:
        job = jobs_pb2.Job(job_id="j-1", task_id="t-1", host="h", price_micro=7)
        facts = journal_facts.facts_of(state_pb2.Event(etype=14, subject="j-1", job=job))
        assert facts.type == "JOB_CREATED"
        assert {"j-1", "t-1", "h"} <= {*facts.keys}
        assert facts.numbers == [("JOB_CREATED/price_micro", 7)]
        paid = ledger_pb2.LedgerEvent(tx_id="x", src="s", amount_micro=5, fee_micro=1)
        facts = journal_facts.facts_of(state_pb2.Event(etype=28, subject="x", ledger=paid))
        assert facts.numbers == [("TX_FINAL/amount_micro", 5), ("TX_FINAL/fee_micro", 1)]

    def test_what_a_newer_node_wrote_is_shown_as_its_number(self) -> None:
        facts = journal_facts.facts_of(state_pb2.Event(etype=77, subject="s"))
        assert (facts.type, [*facts.keys]) == ("77", ["s"])


class TestOfASession:
    def facts(self, data: dict[str, Any], *keys: str, energy_delta: float | None = None) -> Facts:
        return session_facts.facts_of(Entry(1, "a.b", None, energy_delta, json.dumps(data).encode()), keys)

    def test_numbers_are_named_by_kind_and_path(self) -> None:
        facts = self.facts({"x": 1, "y": {"z": 2.5}, "no": True, "list": [1], "text": "1"}, energy_delta=0.5)
        assert facts.numbers == [("a.b/x", 1), ("a.b/y/z", 2.5), ("energy_delta", 0.5)]

    def test_numbers_are_not_sought_too_deep(self) -> None:
        assert self.facts({"a": {"b": {"c": {"d": 1}}}}).numbers == [("a.b/a/b/c/d", 1)]
        assert self.facts({"a": {"b": {"c": {"d": {"e": 1}}}}}).numbers == []

    def test_of_very_many_numbers_some_are_taken(self) -> None:
        assert len(self.facts({f"n{n}": n for n in range(1_000)}).numbers) == session_facts.NUMBERS_MAX

    def test_keys_are_what_the_kind_calls_so(self) -> None:
        data = {"id": "i", "ids": ["j", "k", 3], "other": "o", "number": 4}
        assert self.facts(data, "id", "ids", "number", "missing").keys == ["i", "j", "k"]
