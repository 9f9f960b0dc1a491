"""Which reducers a node folds by: its own, and what packages on its machine register."""

from __future__ import annotations

from importlib.metadata import EntryPoint

from offgrid.installed_reducers import GROUP, load_reducers


class Counting:
    name, version = "counting", 3

    def initial(self) -> int:
        return 0

    def apply(self, state: int, event: object) -> int:
        return state + 1


class Nameless(Counting):
    name = ""


class Unversioned(Counting):
    name, version = "unversioned", 0


class Another(Counting):
    version = 4


READY = Counting()


def point(name: str, what: str) -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{what}", GROUP)


def test_a_class_or_an_object_will_do() -> None:
    for what in ("Counting", "READY"):
        found, problems = load_reducers([point("one", what)])
        assert ([*found], found["counting"].version, problems) == (["session", "counting"], 3, [])


def test_what_cannot_be_used_is_named_and_the_others_are() -> None:
    points = [point("a", "Counting"), point("b", "Another"), point("c", "Nameless"), point("d", "Unversioned")]
    points += [point("e", "no_such"), point("f", "point")]
    found, problems = load_reducers(points)
    assert [*found] == ["session", "counting"]
    assert [problem.split(" is left out: ")[0] for problem in problems] == [
        f"the reducer {each.name} ({each.value})" for each in points[1:]
    ]
    assert "there is a counting already" in problems[0]
    assert "it has no name, version, initial, apply" in problems[4]
