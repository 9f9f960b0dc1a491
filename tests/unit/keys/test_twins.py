"""A process that has a copy of our identity is told from ourselves, and from whoever only says so."""

from __future__ import annotations

import pytest

from offgrid_node.keys import NodeKey, is_twin, issue_leaf
from offgrid_node.keys.leaf import own_leaf

Keys = tuple[NodeKey, NodeKey]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return NodeKey.create(tmp_path_factory.mktemp("a")), NodeKey.create(tmp_path_factory.mktemp("b"))


def test_our_own_leaf_is_none_wherever_it_is_met(keys: Keys) -> None:
    ours = issue_leaf(keys[0])
    assert not is_twin(own_leaf(ours), ours)


def test_another_leaf_of_our_key_is_one(keys: Keys) -> None:
    assert is_twin(own_leaf(issue_leaf(keys[0])), issue_leaf(keys[0]))


def test_nobody_elses_is(keys: Keys) -> None:
    ours = issue_leaf(keys[0])
    assert not is_twin(own_leaf(issue_leaf(keys[1])), ours)
    assert not is_twin(b"no certificate", ours)
