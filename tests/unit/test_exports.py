"""Exports: the same events in three forms, and every cut or change shows."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.exports import yaml_documents
from offgrid.exports.document import BadExport, Head, SessionPart, Tail
from offgrid.exports.parquet import NoPyarrow
from offgrid.exports.reading import Export
from offgrid.exports.writing import FORMS, ExportWriter
from offgrid.kinds import FRAME_MAX, TIME_MAX_US
from offgrid.reducers import Recorded, SessionReducer, show_state

SESSION = SessionPart("s-abcdefghijklmnopqrstuvwx", "run", 1_000, 2_000, {"energy.update": 3}, 1)
NUMBERS = st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, TIME_MAX_US - 1),
        st.sampled_from(["user.prompt", "a.b_c"]),
        st.none() | st.integers(0, FRAME_MAX - 1),
        st.none() | st.floats(-1e15, 1e15),
        st.dictionaries(TEXTS, VALUES, max_size=4),
    ),
    max_size=5,
)


def recorded(found: Iterable[Any], first: int = 1) -> list[Recorded]:
    return [Recorded(number, *fields) for number, fields in enumerate(found, first)]


FEW = recorded(
    [(5, "user.prompt", 7, 1.5, {"x": "yes"}), (6, "user.prompt", None, None, {"x": 2}), (7, "a", 9, 2.0, {})]
)


def written(form: str, events: list[Recorded], first: int = 1) -> tuple[bytes, Tail]:
    file = io.BytesIO()
    head = Head(1, "node", SESSION, "recorded", first, len(events), {"user.prompt": {"type": "object"}, "a": True})
    writer = ExportWriter(file, form, head)
    for event in events:
        writer.add(event)
    tail = writer.end()
    return file.getvalue(), tail


def read(content: bytes) -> tuple[Export, list[Recorded]]:
    export = Export(io.BytesIO(content))
    return export, [*export.events()]


@pytest.fixture(params=FORMS, scope="module")
def form(request: pytest.FixtureRequest) -> str:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return str(request.param)


class TestAForm:
    @given(found=EVENTS)
    def test_gives_back_what_was_written(self, form: str, found: list[Any]) -> None:
        events = recorded(found)
        content, tail = written(form, events)
        export, back = read(content)
        assert back == events
        assert json.dumps([each.data for each in back]) == json.dumps([each.data for each in events]), "order and type"
        assert (export.tail, export.head.session) == (tail, SESSION)

    def test_has_the_same_digest_as_the_others(self, form: str) -> None:
        assert written(form, FEW)[1] == written("json", FEW)[1]

    def test_says_what_its_events_come_to(self, form: str) -> None:
        reducer = SessionReducer()
        state = reducer.initial()
        for event in FEW:
            state = reducer.apply(state, event)
        assert written(form, FEW)[1].state.digest == show_state(reducer, state)[1].hex()

    def test_may_begin_behind_the_first_event(self, form: str) -> None:
        events = recorded([(5, "a", None, None, {})], first=17)
        assert read(written(form, events, first=17)[0])[1] == events

    def test_that_is_cut_anywhere_is_refused(self, form: str) -> None:
        content, _ = written(form, FEW)
        whole = len(content.rstrip())
        for end in range(0, whole, 7):
            with pytest.raises(BadExport):
                read(content[:end])
        with pytest.raises(BadExport):
            read(content[: whole - 1])

    def test_of_which_a_byte_is_another_is_refused_or_says_the_same(self, form: str) -> None:
        """Some bytes say nothing: a space may be a tab."""
        content, _ = written(form, FEW)
        export, events = read(content)
        for place in range(0, len(content), 3):
            changed = bytearray(content)
            changed[place] ^= 1
            try:
                found, back = read(bytes(changed))
            except BadExport:
                continue
            assert (found.head, found.tail, back) == (export.head, export.tail, events), place


class TestAReader:
    def test_names_the_place_and_what_is_allowed(self) -> None:
        lines = written("json", FEW)[0].splitlines()
        for place, change, said in (
            (1, {"timestamp_us": -1}, "line 2: timestamp_us: -1; 0 to"),
            (1, {"frame_id": 1 << 60}, "line 2: frame_id: "),
            (1, {"energy_delta": 1e300}, "line 2: energy_delta: "),
            (1, {"kind": "No Kind"}, "line 2: kind: 'No Kind'"),
            (1, {"data": 3}, "line 2: Expected `object`, got `int` - at `.\\.data`"),
            (1, {"more": 3}, "line 2: .*unknown field `more`"),
            (1, {"data": {"x": "y" * 70_000}}, "line 2: data: .* at most"),
            (2, {"number": 5}, "line 3: event 5, where event 2 is due"),
            (0, {"offgrid_export": 2}, "line 1: an export of the form 2; 1 is known here"),
            (0, {"first": 0}, "line 1: first: 0; 1 to"),
            (0, {"events": 2}, "says at its beginning that there are 2"),
            (4, {"events": 2}, "says at its end that there are 2"),
            (2, {"data": {"x": 3}}, "it was changed: its digest is"),
            (4, {"state": {"reducer": "session", "version": 1, "digest": ""}}, "it was changed"),
        ):
            changed = [*lines]
            changed[place] = msgspec.json.encode(json.loads(lines[place]) | change)
            with pytest.raises(BadExport, match=said):
                read(b"\n".join(changed))

    def test_refuses_what_comes_behind_the_end(self) -> None:
        content, _ = written("json", FEW)
        with pytest.raises(BadExport, match="something comes behind its end"):
            read(content + b"{}\n")

    @pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]", b"\x00\x01", b"PAR1", b"a: b", b"{", b"- *x"])
    def test_says_that_another_file_is_no_export(self, content: bytes) -> None:
        if content == b"PAR1":
            pytest.importorskip("pyarrow")
        with pytest.raises(BadExport):
            read(content)

    def test_takes_no_alias(self) -> None:
        """By which a few lines say something huge."""
        bomb = b"a: &a [x,x]\nb: &b [*a,*a]\n"
        with pytest.raises(BadExport, match="aliases are not allowed"):
            read(bomb)

    def test_reads_no_endless_document(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(yaml_documents, "ITEM_BYTES_MAX", 100_000)
        with pytest.raises(BadExport, match="longer than"):
            read(b"a: '" + b"x" * 300_000 + b"'\n")

    def test_says_how_parquet_is_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(NoPyarrow, match=r"pip install 'offgrid-node\[parquet\]'"):
            read(b"PAR1")
