"""The soak of damages: harm is done, and whoever looks tells a wrong answer from a refusal."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from offgrid_tools.soak.damage_look import Seen, _compare
from offgrid_tools.soak.damages import Round, _count, _violations
from offgrid_tools.soak.harm import _OF, KINDS, Harm, harmed

WHOLE = bytes(range(1, 252)) * 100 + bytes(9_000)


def test_each_damage_changes_the_file_and_a_seed_brings_it_back() -> None:
    seen = set[str]()
    for seed in range(200):
        harm = harmed(WHOLE, Random(seed), earlier=bytes(reversed(WHOLE)))
        assert harm is not None
        assert harm.content != WHOLE
        assert len(harm.content) == len(WHOLE) or harm.kind == "truncated"
        assert harmed(WHOLE, Random(seed), earlier=bytes(reversed(WHOLE))) == harm
        seen.add(harm.kind)
    assert seen == {*KINDS, "stale", "strayed"} == {*_OF, "stale"}


def test_most_damages_are_where_something_is() -> None:
    used = len(WHOLE.rstrip(b"\0"))
    harms = [harmed(WHOLE + bytes(1 << 20), Random(seed)) for seed in range(100)]
    assert sum(harm is not None and harm.content[:used] != WHOLE[:used] for harm in harms) > 80


def test_there_is_no_damage_of_nothing() -> None:
    assert harmed(b"", Random(1)) is None


@pytest.mark.parametrize(
    ("answer", "told", "wrong"),
    [
        ("right", 0, 0),
        ("left", 0, 1),
        ("!Corrupt ChecksumMismatch: row x", 1, 0),
        ("!Unavailable DiskError: x", 1, 0),
        ("!NotFound SessionNotFound: there is none", 0, 1),
        ("!Internal FlowFailed: a defect", 0, 1),
        ("", 0, 1),
    ],
)
def test_what_is_not_right_must_be_a_refusal_that_is_nobody_elses_fault(answer: str, told: int, wrong: int) -> None:
    seen = Seen()
    _compare({"question": answer}, {"question": "right"}, "", seen)
    assert (len(seen.told), len(seen.wrong)) == (told, wrong)


@pytest.mark.parametrize(
    ("seen", "repaired", "outcome", "violations"),
    [
        (Seen(), "", "harmless", 0),
        (Seen(told=["row x"]), "yes", "detected", 0),
        (Seen(told=["row x"]), "what came back is not what was backed up", "detected", 1),
        (Seen(told=["row x"], wrong=["journal"]), "yes", "wrong", 1),
        (Seen(killed="SIGBUS", told=["restore it"]), "yes", "killed", 0),
        (Seen(killed="SIGBUS", wrong=["the next process is told that it can be read"]), "yes", "wrong", 1),
    ],
)
def test_what_a_round_comes_to(seen: Seen, repaired: str, outcome: str, violations: int) -> None:
    done = Round("data.mdb", Harm("flip", "bit 1", b""), "stopped", seen, repaired)
    count, kinds = Counter[str](), Counter[str]()
    _count(done, count, kinds)
    assert count[outcome] == count["damages"] == 1
    assert len(_violations(done)) == violations
