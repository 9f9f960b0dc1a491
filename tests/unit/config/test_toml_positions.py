"""Positions against `tomllib`: the same values, each found where it stands, and no text that throws."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.config.toml_document import FAULTS_MAX, Document
from offgrid_node.config.toml_scan import Path

BARE = st.text("abcXYZ09_-", min_size=1, max_size=3)
CHARS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])
WORDS = st.text(CHARS, max_size=8)


def basic(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def quoted_key(text: str) -> str:
    return f"'{text}'" if "'" not in text and '"' in text else basic(text)


KEYS = BARE | st.text(CHARS, max_size=4).map(quoted_key)
LONG = WORDS.map(lambda w: '"""\n' + w.replace("\\", "\\\\").replace('"""', "") + 'x""""')
LONG_LITERAL = WORDS.map(lambda w: "'''" + w.replace("'", "''\n") + "x''''")
SCALARS = st.one_of(
    st.integers(-(2**63), 2**63).map(str),
    st.sampled_from(["true", "false", "1_000", "0xff", "1.5e3", "inf", "1979-05-27 07:32:00Z", "07:32:00", "'#[{='"]),
    WORDS.map(basic),
    LONG,
    LONG_LITERAL,
)
BLANK = st.sampled_from(["", " ", "\t "])
ONE_LINE = st.one_of(st.integers(0, 99).map(str), WORDS.map(basic))


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    gap = st.sampled_from(["", " ", "\n", " # [ ] , 'é\n  "])
    items = draw(st.lists(inner, max_size=3))
    text = "[" + draw(gap)
    for index, item in enumerate(items):
        text += item + draw(gap)
        if index < len(items) - 1 or draw(st.booleans()):
            text += "," + draw(gap)
    return text + "]"


@st.composite
def inline_tables(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    keys = draw(st.lists(BARE, max_size=3, unique=True))
    fields = [f"{draw(BLANK)}{key}.k{draw(BLANK)}={draw(BLANK)}{draw(inner)}{draw(BLANK)}" for key in keys]
    return "{" + ",".join(fields) + " }"


VALUES = st.recursive(SCALARS, lambda inner: arrays(inner) | inline_tables(inner | ONE_LINE), max_leaves=6)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Documents that are nearly always TOML: sections, arrays of tables, dotted and quoted keys, comments."""
    lines: list[str] = []
    for _ in range(draw(st.integers(0, 8))):
        key = f"{draw(BLANK)}.{draw(BLANK)}".join(draw(st.lists(KEYS, min_size=1, max_size=3)))
        match draw(st.integers(0, 5)):
            case 0:
                lines.append(f"{draw(BLANK)}[{draw(BLANK)}{key}{draw(BLANK)}]{draw(BLANK)}# [x]")
            case 1:
                lines.append(f"[[{key}]]")
            case _:
                lines.append(f"{draw(BLANK)}{key}{draw(BLANK)}={draw(BLANK)}{draw(VALUES)}{draw(BLANK)}")
    return draw(st.sampled_from(["\n", "\r\n", "\n\n"])).join(lines)


def leaves(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """Every path of a tree with its value, tables and lists included."""
    found: list[tuple[Path, Any]] = [(path, value)] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += leaves(inner, (*path, index))
    return found


def valid(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def strict_reading(text: str) -> Document:
    """A document as the statement reader alone sees it, before tomllib has the last word."""

    class Alone(Document):
        def _ask_tomllib(self) -> None:
            pass

    return Alone(text)


@given(texts())
def test_what_tomllib_accepts_the_reader_accepts_with_the_same_values(text: str) -> None:
    expected = valid(text)
    if expected is not None:
        document = strict_reading(text)
        assert document.faults == []
        assert repr(document.data) == repr(tomllib.loads(text.replace("\r\n", "\n")))


@given(texts())
def test_what_tomllib_refuses_has_a_fault_inside_the_text(text: str) -> None:
    document = Document(text)
    assert bool(document.faults) == (valid(text) is None)
    for fault in document.faults:
        line, column = document.line_column(fault.offset)
        lines = text.split("\n")
        assert 1 <= line <= len(lines)
        assert 1 <= column <= len(lines[line - 1]) + 1


@given(texts())
def test_each_key_and_value_is_found_where_it_stands(text: str) -> None:
    expected = valid(text)
    if expected is None:
        return
    document = Document(text)
    for path, value in leaves(expected):
        span = document.spans[path]
        name = path[-1]
        if isinstance(name, str):
            assert text.startswith((name, basic(name), f"'{name}'"), span.key), path
        if isinstance(value, dict | list):
            assert text[span.value] in "[{" or span.value == span.key
        else:
            assert starts_with_value(text, span.value, value), path


def starts_with_value(text: str, at: int, value: object) -> bool:
    """Whether some text from `at` on is `value`: the shortest such run is tried first."""
    for end in range(at + 1, len(text) + 1):
        try:
            found = tomllib.loads(f"v = {text[at:end]}")
        except tomllib.TOMLDecodeError:
            continue
        if found == {"v": value}:
            return True
    return False


@given(texts(), st.data())
def test_a_text_with_damage_never_throws(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 3))
    broken = (
        text[:at]
        + data.draw(st.sampled_from(["", '"', "'", "[", "]", "{", "=", "\n", "\x00", '"""']))
        + text[at + cut :]
    )
    document = Document(broken)
    assert bool(document.faults) == (valid(broken) is None)


@given(st.text(st.sampled_from("ab=.[]{}\"'#,\n\r \\1"), max_size=40))
def test_noise_never_throws(text: str) -> None:
    assert bool(Document(text).faults) == (valid(text) is None)


def test_positions_by_example() -> None:
    text = (
        'top = 1\n"a b" . c = [ 1,  # one\n   "zwei",\n]\n'
        "[s]\nt.u = { v = [true], 'w x' = 2 }\n[[rows]]\nr = 1\n[[rows]]\n  r = 2\n[rows.deep]\n"
    )
    document = Document(text)
    values = {path: document.position(path) for path in document.spans}
    assert values == {
        ("top",): (1, 7),
        ("a b",): (2, 1),
        ("a b", "c"): (2, 13),
        ("a b", "c", 0): (2, 15),
        ("a b", "c", 1): (3, 4),
        ("s",): (5, 2),
        ("s", "t"): (6, 1),
        ("s", "t", "u"): (6, 7),
        ("s", "t", "u", "v"): (6, 13),
        ("s", "t", "u", "v", 0): (6, 14),
        ("s", "t", "u", "w x"): (6, 29),
        ("rows",): (7, 3),
        ("rows", 0): (7, 3),
        ("rows", 0, "r"): (8, 5),
        ("rows", 1): (9, 3),
        ("rows", 1, "r"): (10, 7),
        ("rows", 1, "deep"): (11, 7),
    }
    assert document.position(("s", "t", "u", "w x"), of_key=True) == (6, 21)
    assert document.position(("s", "nothing", "there")) == (5, 2)
    assert document.position(("nothing",)) == (1, 1)


@pytest.mark.parametrize("text", ['a = """x"""""\nb = 1', "a = '''''x'''''\nb = 1", 'a = """\\"""""\nb = 1'])
def test_quotes_next_to_the_fence_belong_to_the_text(text: str) -> None:
    document = strict_reading(text)
    assert (document.faults, document.data) == ([], tomllib.loads(text))


@pytest.mark.parametrize(
    ("text", "line", "at"),
    [
        ("[a.b.c]\n[a]\nb.d = 1\n[a.b]\n", 1, (4, 4)),
        ("a.b = 1\n[a]\n", 1, (2, 2)),
        ("[a]\n[a.b]\n[a]\n", 1, (3, 2)),
        ("[a.b]\n[a]\nb.c = 1\n", 1, (3, 1)),
        ("a = { b = 1 }\na.c = 2\n", 1, (2, 1)),
        ("a = [{}]\n[[a]]\n", 1, (2, 3)),
        ("[[a]]\n[a]\n", 1, (2, 2)),
    ],
)
def test_what_is_set_twice_names_the_first_line(text: str, line: int, at: tuple[int, int]) -> None:
    (fault,) = Document(text).faults
    assert fault.message == f"is already set in line {line}"
    assert Document(text).line_column(fault.offset) == at


def test_reading_goes_on_behind_a_fault() -> None:
    document = Document('a = = 1\n[b]\nc = [1\nd = 2\ne = "x\nf = 3\n')
    assert document.data == {"b": {"d": 2, "f": 3}}
    assert [document.line_column(fault.offset) for fault in document.faults] == [(1, 5), (4, 1), (5, 5)]


def test_each_line_that_is_no_statement_is_a_fault() -> None:
    document = Document("a: 1\nb: 2\n]\nc = 3\n")
    assert document.data == {"c": 3}
    assert [document.line_column(fault.offset) for fault in document.faults] == [(1, 2), (2, 2), (3, 1)]


def test_the_rest_of_a_broken_array_is_no_further_fault() -> None:
    document = Document('a = [\n  "x" "y",\n  "z",\n]\nb = 1\n')
    assert document.data == {"b": 1}
    assert [document.line_column(fault.offset) for fault in document.faults] == [(2, 7)]


def test_keys_behind_a_broken_header_are_left_out() -> None:
    document = Document("[a\nb = 1\n[c]\nd = 1\n")
    assert document.data == {"c": {"d": 1}}
    assert len(document.faults) == 1


def test_faults_are_bounded() -> None:
    assert len(Document("= 1\n" * (FAULTS_MAX + 20)).faults) == FAULTS_MAX


LONG_TEXTS = [
    "a = '''" + "''x" * 100_000,
    'a = "' + "\\\\" * 200_000,
    "a" + " " * 400_000,
    "a = " + "\t" * 400_000 + "1",
    "a = [\n" + "b." * 200_000,
    "a = x\n" + " " * 400_000 + "b",
    "a = x\n[" + "b" * 400_000,
]


@pytest.mark.parametrize("text", LONG_TEXTS, ids=range(len(LONG_TEXTS)))
@pytest.mark.timeout(10)
def test_long_texts_are_read_in_linear_time(text: str) -> None:
    assert bool(Document(text).faults) == (valid(text) is None)
