"""Every planted bug fits the code that it breaks: one that fails for want of an argument is found for no reason."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import pytest

from offgrid_tools.ledgersim.mutants import MUTANTS as LEDGERSIM
from offgrid_tools.sim.mutants import MUTANTS as SIM
from offgrid_tools.sim.mutants.patches import Mutant, Patch

ALL: Mapping[str, Mutant] = {
    **{f"sim {name}": bug for name, bug in SIM.items()},
    **{f"ledgersim {name}": bug for name, bug in LEDGERSIM.items()},
}


def misfit(patch: Patch) -> str:
    """Why the broken method cannot be called as the sound one is; empty: it can."""
    sound = getattr(patch.owner, patch.name)
    if not inspect.isfunction(sound):
        return ""
    taken = inspect.signature(sound).parameters.values()
    places = [each for each in taken if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    names = {each.name: None for each in taken if each.kind == each.KEYWORD_ONLY}
    broken = patch.breaks(sound)
    try:
        inspect.signature(broken).bind(*places, **names)
    except TypeError as error:
        return f"{patch.name}: {error}"
    return ""


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_planted_bug_takes_what_the_sound_method_takes(name: str) -> None:
    assert [why for patch in ALL[name].patches if (why := misfit(patch))] == []


def test_one_that_takes_too_little_is_seen() -> None:
    class Owner:
        def act(self, one: int, two: int) -> int:
            return one + two

    assert misfit(Patch(Owner, "act", lambda sound: lambda self, one: one)) == "act: too many positional arguments"
