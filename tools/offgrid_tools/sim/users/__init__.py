"""Who asks the nodes of a cluster for anything, a file per kind of person: `person.py` is what all of them do alike."""

from offgrid_tools.sim.users.data_keys import KeyOwner
from offgrid_tools.sim.users.deadly import DeadlyUser
from offgrid_tools.sim.users.demands import DemandingUser
from offgrid_tools.sim.users.jobs import JobUser
from offgrid_tools.sim.users.landlord import HostOwner
from offgrid_tools.sim.users.leaving import LeavingOwner
from offgrid_tools.sim.users.ledger import LedgerOpener, Payer
from offgrid_tools.sim.users.mail import Writer
from offgrid_tools.sim.users.objects import ObjectUser
from offgrid_tools.sim.users.other_keys import IdentityOwner, RootOwner
from offgrid_tools.sim.users.person import Person
from offgrid_tools.sim.users.quorum import QuorumUser
from offgrid_tools.sim.users.rush import RushUser
from offgrid_tools.sim.users.schedules import SchedulingUser
from offgrid_tools.sim.users.sessions import Speaker
from offgrid_tools.sim.users.trusting import TrustingUser

__all__ = [
    "DeadlyUser",
    "DemandingUser",
    "HostOwner",
    "IdentityOwner",
    "JobUser",
    "KeyOwner",
    "LeavingOwner",
    "LedgerOpener",
    "ObjectUser",
    "Payer",
    "Person",
    "QuorumUser",
    "RootOwner",
    "RushUser",
    "SchedulingUser",
    "Speaker",
    "TrustingUser",
    "Writer",
]
