"""Planted bugs, patched into the assembled node from outside. A simulator that misses one of them is blind there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from unittest.mock import patch

from offgrid_node.node import Node


class Mutant:
    """One planted bug: `patch` changes each node as it is put together, the context changes classes for all."""

    def __init__(self, name: str, says: str, patch_node: Callable[[Node], None] | None = None) -> None:
        self.name, self.says, self._patch_node = name, says, patch_node

    def patch(self, node: Node) -> None:
        if self._patch_node is not None:
            self._patch_node(node)

    def __enter__(self) -> Mutant:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None


MUTANTS: dict[str, Mutant] = {}
