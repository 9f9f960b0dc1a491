"""Who may call what: one table, deny by default. A test walks every RPC and every kind of caller against it."""

from __future__ import annotations

from offgrid_node.protocol.errors import PermissionDenied
from offgrid_node.protocol.events import BROKER, CORE, HOST
from offgrid_node.services.caller import Caller, Kind

ANYONE, MEMBERS, ADMINS = frozenset({"anonymous"}), frozenset({"member"}), frozenset({"admin"})
CORES, BROKERS, HOSTS = frozenset({"core"}), frozenset({"broker"}), frozenset({"host"})
ROLE_NAMES = {CORE: "core", BROKER: "broker", HOST: "host"}

ACCESS: dict[str, frozenset[str]] = {
    "offgrid.v1.JoinService/Join": ANYONE,
    "offgrid.v1.MeshService/GetStatus": MEMBERS | ADMINS,
    "offgrid.v1.MeshService/ListPeers": MEMBERS | ADMINS,
    "offgrid.v1.MeshService/CreateInvite": ADMINS,
    "offgrid.v1.MeshService/RemoveMember": ADMINS,
    "offgrid.v1.MeshService/Ping": MEMBERS,
    "offgrid.v1.MeshService/PingVia": MEMBERS,
    "offgrid.v1.MeshService/SyncMembers": MEMBERS,
    "offgrid.v1.JobService/CreateMission": ADMINS,
    "offgrid.v1.JobService/GetMission": ADMINS,
    "offgrid.v1.JobService/ListMissions": ADMINS,
    "offgrid.v1.JobService/UpdateMission": ADMINS,
    "offgrid.v1.JobService/CreateTask": ADMINS,
    "offgrid.v1.JobService/GetTask": ADMINS,
    "offgrid.v1.JobService/ListTasks": ADMINS,
    "offgrid.v1.JobService/CreateJob": ADMINS,
    "offgrid.v1.JobService/GetJob": ADMINS,
    "offgrid.v1.JobService/ListJobs": ADMINS,
    "offgrid.v1.JobService/DispatchJob": ADMINS,
    "offgrid.v1.JobService/WatchJob": ADMINS,
    "offgrid.v1.MarketService/PostOffer": HOSTS,
    "offgrid.v1.MarketService/SubmitJobs": CORES,
    "offgrid.v1.MarketService/DeliverAwards": BROKERS,
    "offgrid.v1.MarketService/StartJobs": CORES,
    "offgrid.v1.MarketService/ReportResults": HOSTS,
    "offgrid.v1.MarketService/CloseLeases": CORES,
    "offgrid.v1.MarketService/ListOffers": MEMBERS | ADMINS,
    "offgrid.v1.ObjectService/GetCapacity": MEMBERS | ADMINS,
    "offgrid.v1.QuorumService/ListWeights": MEMBERS | ADMINS,
    "offgrid.v1.LedgerService/GetGenesis": MEMBERS | ADMINS,
    "offgrid.v1.StateService/ListEvents": ADMINS,
    "offgrid.v1.StateService/WatchEvents": ADMINS,
}


def standings(caller: Caller) -> frozenset[str]:
    """Every word of the table that is true of this caller."""
    if caller.kind is Kind.MEMBER:
        return frozenset({"member", *(ROLE_NAMES[role] for role in caller.roles)})
    return frozenset({str(caller.kind)})


def check_access(method: str, caller: Caller) -> None:
    """Raises PermissionDenied unless the table lets this caller in."""
    allowed = ACCESS.get(method, frozenset())
    if not allowed & standings(caller):
        wanted = ", ".join(sorted(allowed)) or "nobody"
        raise PermissionDenied(
            f"{method} may be called by {wanted}; the caller is {', '.join(sorted(standings(caller)))}",
            reason="AccessDenied",
            metadata={"method": method, "caller": str(caller)},
        )
