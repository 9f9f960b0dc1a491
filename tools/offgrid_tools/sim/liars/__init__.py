"""Members that lie, a file per kind of lie. What they send is well-formed and signed with their own keys, or with
such as were replaced; only the rules of the honest can refuse it."""

from offgrid_tools.sim.liars.box import LyingBox
from offgrid_tools.sim.liars.broker import LyingBroker
from offgrid_tools.sim.liars.forger import Forger
from offgrid_tools.sim.liars.host import LyingHost
from offgrid_tools.sim.liars.jobs import JobLiar
from offgrid_tools.sim.liars.ledger import LedgerLiar
from offgrid_tools.sim.liars.owner import LyingOwner
from offgrid_tools.sim.liars.thief import IdentityThief, RootThief
from offgrid_tools.sim.liars.worker import FalseWorker

__all__ = [
    "FalseWorker",
    "Forger",
    "IdentityThief",
    "JobLiar",
    "LedgerLiar",
    "LyingBox",
    "LyingBroker",
    "LyingHost",
    "LyingOwner",
    "RootThief",
]
