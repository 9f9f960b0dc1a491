"""What a planted bug of the ledger is: a small patch of the rules from outside, and the level at which it shows."""

from __future__ import annotations

from offgrid_tools.sim.mutants.patches import Mutant


class Planted(Mutant, frozen=True):
    """`unseen` says why it may go unseen; empty for all that must be found. `ends`: it shows only where epochs end."""

    level: str = "slots"
    unseen: str = ""
    ends: bool = False
