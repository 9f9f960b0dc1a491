"""Who names a member that there is not hears which one may be meant."""

from __future__ import annotations

import pytest
from mesh_world import World

from offgrid_node.protocol.errors import NotFound
from offgrid_node.protocol.mesh.directory import Directory


@pytest.fixture(scope="module")
def directory() -> Directory:
    world = World(1, 3)
    world.run_until(world.agreed, 60_000)
    return world.running()[0].mesh.directory


def test_almost_a_name_names_it(directory: Directory) -> None:
    name = next(record.name for node in directory.live() if (record := directory.member(node)))
    typed = name[:-2] + name[-1] + name[-2]
    with pytest.raises(NotFound, match=f"no member is called '{typed}'; did you mean '{name}'\\?"):
        directory.resolve(typed)
    with pytest.raises(NotFound, match=f"did you mean '{name}'"):
        directory.resolve(name.upper())


def test_what_is_like_none_names_none(directory: Directory) -> None:
    with pytest.raises(NotFound) as caught:
        directory.resolve("zzzzzzzz")
    assert str(caught.value) == "no member is called 'zzzzzzzz'"


def test_a_long_word_is_cut(directory: Directory) -> None:
    with pytest.raises(NotFound) as caught:
        directory.resolve("z" * 100_000)
    assert len(str(caught.value)) < 100
