"""Whatever strangers send: who reads it raises only what it says, leaves no traceback, keeps bounds and is soon done.

Each target stands all inputs that were kept, those of old finds among them, and some that nobody has tried. `soak fuzz`
goes on for minutes.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from random import Random

import pytest

from offgrid_tools.fuzz import corpus
from offgrid_tools.fuzz.mutation import INPUT_BYTES_MAX, mutated
from offgrid_tools.fuzz.running import Found, feed, search, shorter
from offgrid_tools.fuzz.targets import TARGETS, Target

SEED = 8


@pytest.mark.parametrize("name", TARGETS)
def test_it_stands_what_was_kept_and_what_is_like_it(name: str) -> None:
    inputs = corpus.kept(name)
    assert inputs, f"{name} has no corpus"
    for data in inputs:
        feed(name, data)
    search(name, Random(SEED), inputs, TARGETS[name].tries)


def test_there_is_no_corpus_without_a_target() -> None:
    assert {path.stem for path in corpus.CORPUS.glob("*.txt")} == set(TARGETS)


@pytest.mark.parametrize(
    ("check", "what"),
    [
        (lambda data: json.loads(b"{") if b"x" in data else None, "JSONDecodeError"),
        (lambda data: logging.getLogger("some.where").error("so") if b"x" in data else None, "the log has"),
    ],
    ids=["raises", "logs"],
)
def test_what_it_does_not_stand_is_found_and_made_short(
    check: object, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "weak", Target(check))  # type: ignore[arg-type]
    with pytest.raises(Found, match=what) as found:
        search("weak", Random(SEED), [bytes(range(100, 150))], 1_000)
    assert shorter(found.value) == b"x"


def test_the_same_seed_makes_the_same_inputs_of_bounded_length() -> None:
    made = [mutated(Random(seed), [b"abc", bytes(5000)]) for seed in range(200)]
    assert made == [mutated(Random(seed), [b"abc", bytes(5000)]) for seed in range(200)]
    assert len(set(made)) > 100
    assert max(map(len, made)) == INPUT_BYTES_MAX


def test_finds_are_kept_with_a_word_about_them(tmp_path: Path) -> None:
    corpus.write("some", [b"bb", b"a", b"", b"found"], [("what it was", b"found")], tmp_path)
    assert corpus.finds("some", tmp_path) == [("what it was", b"found")]
    assert corpus.kept("some", tmp_path) == [b"found", b"", b"a", b"bb"]
    assert (corpus.kept("other", tmp_path), corpus.finds("other", tmp_path)) == ([], [])
