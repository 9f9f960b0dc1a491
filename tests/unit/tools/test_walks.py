"""Blocks of README and guides: each is run, checked or declared with a reason; how commands are taken from them."""

from __future__ import annotations

import os
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from pathlib import Path

import pytest

from offgrid_node.manual import Library
from offgrid_tools.walks.blocks import BadBlock, blocks_of
from offgrid_tools.walks.catalogue import BY_TESTS, WALKED, machines_of
from offgrid_tools.walks.checking import CHECKS, WalkFailed
from offgrid_tools.walks.not_run import NOT_RUN
from offgrid_tools.walks.stage import ROOT, Stage
from offgrid_tools.walks.statements import filled, holes_of, is_like, statements_of
from offgrid_tools.walks.walking import ASK, HEARD, Walk

DOCUMENTS = Library.found().pages
NOT_RUN_MAX = 6  # blocks


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_says_what_it_is_and_what_is_to_be_typed_is_typed(name: str) -> None:
    for block in blocks_of(ROOT / name, machines_of(name)):
        if block.language in CHECKS:
            CHECKS[block.language](block.text)
        elif block.language == "python":
            compile(block.text, name, "exec", flags=PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if block.runs:
            assert name in (*WALKED, *BY_TESTS), f"{name}:{block.line}: nothing types this"
        if block.runs and block.language != "python" and name in WALKED:
            for statement in statements_of(block.text, console=block.language == "console"):
                assert {hole.kind for hole in holes_of(statement.text)} <= {*HEARD, *ASK}, f"{name}:{block.line}"


def test_no_guide_is_left_out_and_no_walk_is_of_a_page_that_is_gone() -> None:
    assert {name for name in DOCUMENTS if name.startswith("docs/guide/")} <= set(WALKED)
    assert {*WALKED, *BY_TESTS} <= set(DOCUMENTS)


@pytest.mark.parametrize(("document", "test"), BY_TESTS.items())
def test_a_page_that_a_test_types_is_named_there(document: str, test: str) -> None:
    assert Path(document).parts[1] in (ROOT / test).read_text("utf-8")


def test_what_nothing_runs_is_declared_with_a_reason_and_is_little() -> None:
    declared = [(name, block) for name in DOCUMENTS for block in blocks_of(ROOT / name, machines_of(name))]
    declared = [(name, block) for name, block in declared if block.not_run]
    for name, block in declared:
        print(f"not run: {name}:{block.line}: {NOT_RUN[block.not_run]}")  # noqa: T201
    assert {block.not_run for _, block in declared} == set(NOT_RUN)
    assert len(declared) <= NOT_RUN_MAX


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("    offgrid status\n", "x.md:1: an indented block"),
        ("```\noffgrid status\n```\n", "x.md:1: a block of nothing"),
        ("two\n\n```bash\noffgrid status\n```\n", "x.md:3: a block of bash"),
        ("```sh somewhere\noffgrid status\n```\n", "'somewhere' is no machine"),
    ],
)
def test_a_block_that_says_nothing_of_what_it_is_is_refused(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text(text)
    with pytest.raises(BadBlock, match=why):
        blocks_of(tmp_path / "x.md")


@pytest.mark.parametrize(
    ("language", "right", "wrong", "why"),
    [
        ("toml", "[host.llm]\nslots = 2\n", "[host.llm]\nslot = 2\n", "slot"),
        ("link", "udp:*:7700?multicast=on   both", "upd:*:7700", "did you mean 'udp'"),
        ("requirements", "memory_mb >= 1\n", "memory_mb >= 1\nmemory > 1\n", "memory > 1"),
    ],
)
def test_what_is_not_typed_is_held_against_what_reads_it(language: str, right: str, wrong: str, why: str) -> None:
    CHECKS[language](right)
    with pytest.raises(WalkFailed, match=why):
        CHECKS[language](wrong)


@pytest.mark.skipif(os.name == "nt", reason="guides are typed into bash")
class TestAWalk:
    """On a machine without a node."""

    @pytest.mark.parametrize(
        ("block", "why"),
        [
            ("```sh\ntrue\nfalse\n```", r"x\.md:3: false\nended with 1"),
            ("```console\n$ echo one\ntwo\n```", r"x\.md:3: echo one\nis shown to say\ntwo\nand says\none"),
            ("```python\nraise SystemExit(3)\n```", r"x\.md:3: python program\.py\nended with 3"),
            ("```sh\nofgrid status\n```", "not found"),
            ("```sh\noffgrid-node join og1:…\n```", "nothing that begins with og1: was said before"),
        ],
    )
    def test_fails_where_it_is_not_as_the_page_says(self, block: str, why: str, tmp_path: Path) -> None:
        with pytest.raises(WalkFailed, match=why):
            self._walk(f"# X\n\n{block}\n", tmp_path)

    def test_counts_what_it_ran_and_leaves_out_what_the_soak_runs(self, tmp_path: Path) -> None:
        text = "```sh\necho a > a\ncat a\n```\n\n```sh soak\nfalse\n```\n\n```text\nfalse\n```\n"
        assert self._walk(text, tmp_path) == 2
        assert (tmp_path / "stage" / "attic" / "a").read_text() == "a\n"

    @staticmethod
    def _walk(text: str, folder: Path) -> int:
        (folder / "x.md").write_text(text)
        with Stage(folder / "stage") as stage:
            stage.add_bare("attic")
            return Walk(folder / "x.md", stage, lambda line: None, soak=False).go()


class TestStatements:
    def test_are_lines_without_comments_and_go_on_behind_a_backslash(self) -> None:
        told = statements_of("# first\noffgrid a \\\n  b\n\noffgrid c   # why\n", console=False)
        assert [statement.text for statement in told] == ["offgrid a   b", "offgrid c   # why"]
        assert all(statement.expected is None for statement in told)

    def test_of_a_console_have_what_they_answer(self) -> None:
        told = statements_of("$ a\n$ b\none\ntwo\n", console=True)
        assert [(statement.text, statement.expected) for statement in told] == [("a", []), ("b", ["one", "two"])]

    def test_have_holes_for_what_only_the_reader_knows(self) -> None:
        command = "offgrid tx show TX --job j-2akz… # as j-…"
        assert [hole.kind for hole in holes_of(command)] == ["TX", "j-"]
        assert filled(command, {"TX": "abc", "j-2akz…": "j-1"}) == "offgrid tx show abc --job j-1 # as j-…"


@pytest.mark.parametrize(
    ("expected", "output", "alike"),
    [
        (["one  two"], "one two\n", True),
        (["one"], "one\ntwo\n", False),
        (["one", "…"], "one\ntwo\nthree\n", True),
        (["…", "kept as … copies"], "a\nkept as   3 copies\n", True),
        (["j-… done"], "j-abc failed\n", False),
        ([], "", True),
        ([], "something\n", False),
    ],
)
def test_an_answer_is_as_shown_but_where_there_are_three_dots(expected: list[str], output: str, alike: bool) -> None:
    assert is_like(expected, output) is alike
