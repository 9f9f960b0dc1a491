"""Planted bugs, a file per domain: a simulator that misses one of them is blind there.

`MUTANTS` names them all; `soak mutants` demands each within a hundred seeds.
"""

from offgrid_tools.sim.mutants import (
    bustle,
    changes,
    comebacks,
    jobs,
    ledger,
    mail,
    market,
    mesh,
    objects,
    outlived,
    perils,
    redundant,
    rotation,
    runtime,
    sessions,
    terms,
    upkeep,
    vault,
)
from offgrid_tools.sim.mutants.patches import Mutant

MUTANTS: dict[str, Mutant] = {
    **runtime.MUTANTS,
    **jobs.MUTANTS,
    **market.MUTANTS,
    **redundant.MUTANTS,
    **terms.MUTANTS,
    **bustle.MUTANTS,
    **perils.MUTANTS,
    **mesh.MUTANTS,
    **objects.MUTANTS,
    **vault.MUTANTS,
    **outlived.MUTANTS,
    **upkeep.MUTANTS,
    **changes.MUTANTS,
    **rotation.MUTANTS,
    **comebacks.MUTANTS,
    **ledger.MUTANTS,
    **sessions.MUTANTS,
    **mail.MUTANTS,
}

__all__ = ["MUTANTS", "Mutant"]
