"""Planted bugs, a file per level: a simulator that misses one of them is blind there.

`MUTANTS` names them all; `soak ledger-mutants` demands each within a hundred seeds.
"""

from offgrid_tools.ledgersim.mutants import whole
from offgrid_tools.ledgersim.mutants.planted import Planted

MUTANTS: dict[str, Planted] = {**whole.MUTANTS}

__all__ = ["MUTANTS", "Planted"]
