"""Planted bugs, a file per room of the rules: a simulator that misses one of them is blind there.

`MUTANTS` names them all; `soak ledger-mutants` demands each within a hundred seeds.
"""

from offgrid_tools.ledgersim.mutants import above, begins, ends, rows, rules, whole
from offgrid_tools.ledgersim.mutants.planted import Planted

MUTANTS: dict[str, Planted] = {
    **rules.MUTANTS,
    **above.MUTANTS,
    **ends.MUTANTS,
    **begins.MUTANTS,
    **rows.MUTANTS,
    **whole.MUTANTS,
}

__all__ = ["MUTANTS", "Planted"]
