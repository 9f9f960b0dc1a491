"""Tables on a terminal: what is left out, shortened and wrapped so that no line is too wide."""

from __future__ import annotations

import pytest
from click import unstyle
from hypothesis import given
from hypothesis import strategies as st

from offgrid_tools.cli.fitting import fitted, width_of, wrap
from offgrid_tools.cli.output import fitting

JOB = "j-2al2guvfzgbi7zyngyftd6cf-000"
OBJECT = "o-zbunq5slwtt43c2n4au4xfw5iqequ7sz"
STAMP = "2026-11-23 03:18:18.680"


def drawn(columns: list[str], rows: list[list[str]], width: int = 80) -> list[str]:
    return [unstyle(line) for line in fitting(columns, rows, width)]


def test_what_fits_stays_as_it_is() -> None:
    assert drawn(["name", "since"], [["attic", STAMP]]) == ["name   since", f"attic  {STAMP}"]


def test_columns_that_say_nothing_are_left_out_but_for_the_first() -> None:
    assert drawn(["name", "domain", "state"], [["", "", "alive"]]) == ["name  state", "      alive"]


@pytest.mark.parametrize(("width", "stamp"), [(60, STAMP), (54, STAMP[:19]), (45, STAMP[5:16])])
def test_a_stamp_says_as_much_as_there_is_room_for(width: int, stamp: str) -> None:
    assert fitted(["job", "created"], [[JOB, STAMP]], width).rows[0][1][0] == stamp


def test_an_id_that_names_its_row_is_never_broken_if_it_must_be_copied_whole() -> None:
    lines = drawn(["job", "created", "about"], [[JOB, STAMP, "word " * 40]])
    assert lines[1].startswith(JOB)
    assert all(width_of(line) <= 80 for line in lines)


def test_an_object_s_id_is_cut_to_what_names_it() -> None:
    line = drawn(["object", "name", "created"], [[OBJECT, "n" * 16, STAMP]], 50)[1]
    assert line.startswith("o-zbunq5slwt…")


def test_words_are_not_broken_columns_give_way_instead_and_are_named() -> None:
    columns = ["job", "state", "attempt", "host", "needs", "created", "input", "error"]
    row = [JOB, "failed", "1", "host-a", "builtin:echo", STAMP, "notes.txt", "NoHostsAvailable"]
    lines = drawn(columns, [row])
    assert "NoHostsAvailable" in lines[1], "what says what is wrong stays"
    assert lines[-1] == "no room here for needs, created, input: --json has all"


def test_sentences_are_wrapped_between_words() -> None:
    assert wrap("the journal tells of it", 12) == ["the journal", "tells of it"]
    assert wrap("extraordinarily long", 8) == ["extraord", "inarily", "long"]


def test_wide_characters_take_two_columns() -> None:
    assert width_of("日本") == 4
    assert wrap("日本語", 4) == ["日本", "語"]


TEXT = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=60)


@given(
    st.integers(2, 9).flatmap(
        lambda count: st.tuples(
            st.lists(st.text("abc", min_size=1, max_size=12), min_size=count, max_size=count),
            st.lists(st.lists(TEXT, min_size=count, max_size=count), min_size=1, max_size=4),
        )
    ),
    st.integers(40, 120),
)
def test_no_line_is_ever_too_wide(table: tuple[list[str], list[list[str]]], width: int) -> None:
    made = fitted(*table, width)
    assert sum(made.widths) + 2 * (len(made.widths) - 1) <= width
    for row in made.rows:
        for lines, at_most in zip(row, made.widths, strict=True):
            assert all(width_of(line) <= at_most for line in lines)
