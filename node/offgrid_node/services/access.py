"""Who may call what, and of which node: one table, deny by default.

A test walks every RPC, every kind of caller and every role of the node that is called against it.
"""

from __future__ import annotations

from collections.abc import Set

import msgspec

from offgrid_node.protocol.errors import FailedPrecondition, PermissionDenied
from offgrid_node.protocol.events import BROKER, CORE, HOST
from offgrid_node.services.caller import Caller, Kind

ANYONE, MEMBERS, ADMINS = frozenset({"anonymous"}), frozenset({"member"}), frozenset({"admin"})
CORES, BROKERS, HOSTS = frozenset({"core"}), frozenset({"broker"}), frozenset({"host"})
ROLE_NAMES = {CORE: "core", BROKER: "broker", HOST: "host"}
ALL_ROLES = frozenset(ROLE_NAMES)


class Row(msgspec.Struct, frozen=True):
    """Who may call, and the role that this node itself must have in force to answer; None: any, or none."""

    callers: frozenset[str]
    own: int | None = None


ACCESS: dict[str, Row] = {
    "offgrid.v1.MailService/SendMail": Row(ADMINS),
    "offgrid.v1.MailService/GetMail": Row(ADMINS),
    "offgrid.v1.MailService/ListMail": Row(ADMINS),
    "offgrid.v1.MailService/ListMessages": Row(ADMINS),
    "offgrid.v1.MailService/ReadMessage": Row(ADMINS),
    "offgrid.v1.MailService/DeleteMessage": Row(ADMINS),
    "offgrid.v1.MailService/GetMailbox": Row(ADMINS),
    "offgrid.v1.MailService/DepositParcel": Row(MEMBERS),
    "offgrid.v1.MailService/DeliverParcel": Row(MEMBERS),
    "offgrid.v1.MailService/DropParcels": Row(MEMBERS),
    "offgrid.v1.MailService/TakeMessage": Row(MEMBERS),
    "offgrid.v1.MailService/TakeJob": Row(MEMBERS, CORE),
    "offgrid.v1.JoinService/Join": Row(ANYONE),
    "offgrid.v1.MeshService/GetStatus": Row(MEMBERS | ADMINS),
    "offgrid.v1.MeshService/ListPeers": Row(MEMBERS | ADMINS),
    "offgrid.v1.MeshService/CreateInvite": Row(ADMINS),
    "offgrid.v1.MeshService/ListInvites": Row(ADMINS),
    "offgrid.v1.MeshService/RevokeInvite": Row(ADMINS),
    "offgrid.v1.MeshService/RemoveMember": Row(ADMINS),
    "offgrid.v1.MeshService/GetMemberProof": Row(MEMBERS | ADMINS),
    "offgrid.v1.MeshService/CreatePageLink": Row(ADMINS),
    "offgrid.v1.MeshService/StopNode": Row(ADMINS),
    "offgrid.v1.MeshService/Ping": Row(MEMBERS),
    "offgrid.v1.MeshService/PingVia": Row(MEMBERS),
    "offgrid.v1.MeshService/SyncMembers": Row(MEMBERS),
    "offgrid.v1.LinkService/Echo": Row(MEMBERS),
    "offgrid.v1.LinkService/ListLinks": Row(ADMINS),
    "offgrid.v1.LinkService/ListRoads": Row(ADMINS),
    "offgrid.v1.LinkService/PingPeer": Row(ADMINS),
    "offgrid.v1.LinkService/CheckPeers": Row(ADMINS),
    "offgrid.v1.LinkService/LookBack": Row(MEMBERS),
    "offgrid.v1.JobService/CreateMission": Row(ADMINS, CORE),
    "offgrid.v1.JobService/GetMission": Row(ADMINS),
    "offgrid.v1.JobService/ListMissions": Row(ADMINS),
    "offgrid.v1.JobService/UpdateMission": Row(ADMINS, CORE),
    "offgrid.v1.JobService/CreateTask": Row(ADMINS, CORE),
    "offgrid.v1.JobService/GetTask": Row(ADMINS),
    "offgrid.v1.JobService/ListTasks": Row(ADMINS),
    "offgrid.v1.JobService/CreateJob": Row(ADMINS, CORE),
    "offgrid.v1.JobService/GetJob": Row(ADMINS),
    "offgrid.v1.JobService/ListJobs": Row(ADMINS),
    "offgrid.v1.JobService/DispatchJob": Row(ADMINS, CORE),
    "offgrid.v1.JobService/CancelJobs": Row(ADMINS, CORE),
    "offgrid.v1.JobService/ExplainJob": Row(ADMINS, CORE),
    "offgrid.v1.JobService/WatchJob": Row(ADMINS),
    "offgrid.v1.JobService/RunJobs": Row(ADMINS, CORE),
    "offgrid.v1.JobService/WatchJobs": Row(ADMINS),
    "offgrid.v1.JobService/CreateSchedule": Row(ADMINS, CORE),
    "offgrid.v1.JobService/ListSchedules": Row(ADMINS),
    "offgrid.v1.JobService/UpdateSchedule": Row(ADMINS, CORE),
    "offgrid.v1.JobService/DeleteSchedule": Row(ADMINS, CORE),
    "offgrid.v1.MarketService/PostOffers": Row(HOSTS, BROKER),
    "offgrid.v1.JobService/WatchProgress": Row(ADMINS),
    "offgrid.v1.MarketService/SubmitJobs": Row(CORES, BROKER),
    "offgrid.v1.MarketService/DeliverAwards": Row(BROKERS, CORE),
    "offgrid.v1.MarketService/StartJobs": Row(CORES, HOST),
    "offgrid.v1.MarketService/CancelStarts": Row(CORES, HOST),
    "offgrid.v1.MarketService/RenewLeases": Row(HOSTS, CORE),
    "offgrid.v1.MarketService/ReportResults": Row(HOSTS, CORE),
    "offgrid.v1.MarketService/ReportProgress": Row(HOSTS, CORE),
    "offgrid.v1.MarketService/CloseLeases": Row(CORES, BROKER),
    "offgrid.v1.MarketService/ListOffers": Row(MEMBERS | ADMINS),
    "offgrid.v1.MarketService/ExplainOrder": Row(CORES, BROKER),
    "offgrid.v1.HostService/ToggleHost": Row(ADMINS, HOST),
    "offgrid.v1.HostService/GetHost": Row(ADMINS, HOST),
    "offgrid.v1.HostService/WatchDrain": Row(ADMINS, HOST),
    "offgrid.v1.HostService/DropKept": Row(ADMINS, HOST),
    "offgrid.v1.ObjectService/GetCapacity": Row(MEMBERS | ADMINS),
    "offgrid.v1.ObjectService/ExplainPlacement": Row(ADMINS),
    "offgrid.v1.ObjectService/PutObject": Row(ADMINS),
    "offgrid.v1.ObjectService/OpenUpload": Row(ADMINS),
    "offgrid.v1.ObjectService/WriteUpload": Row(ADMINS),
    "offgrid.v1.ObjectService/CommitUpload": Row(ADMINS),
    "offgrid.v1.ObjectService/AbortUpload": Row(ADMINS),
    "offgrid.v1.ObjectService/Enqueue": Row(ADMINS),
    "offgrid.v1.ObjectService/GetObject": Row(ADMINS),
    "offgrid.v1.ObjectService/WatchObject": Row(ADMINS),
    "offgrid.v1.ObjectService/ListObjects": Row(ADMINS),
    "offgrid.v1.ObjectService/ReadObject": Row(ADMINS),
    "offgrid.v1.ObjectService/DeleteObject": Row(ADMINS),
    "offgrid.v1.ObjectService/ListDeletions": Row(ADMINS),
    "offgrid.v1.ObjectService/ListRegained": Row(ADMINS),
    "offgrid.v1.ObjectService/ShareObject": Row(ADMINS),
    "offgrid.v1.ObjectService/UnshareObject": Row(ADMINS),
    "offgrid.v1.ObjectService/RotateDataKeys": Row(ADMINS),
    "offgrid.v1.ObjectService/GetDataKeys": Row(ADMINS),
    "offgrid.v1.ObjectService/ReencryptObjects": Row(ADMINS),
    "offgrid.v1.ObjectService/StopReencryption": Row(ADMINS),
    "offgrid.v1.ObjectService/ListOutbox": Row(ADMINS),
    "offgrid.v1.ObjectService/CancelOutboxEntry": Row(ADMINS),
    "offgrid.v1.ObjectService/PutReplica": Row(MEMBERS, HOST),
    "offgrid.v1.ObjectService/OpenReplica": Row(MEMBERS, HOST),
    "offgrid.v1.ObjectService/WriteReplica": Row(MEMBERS, HOST),
    "offgrid.v1.ObjectService/CommitReplica": Row(MEMBERS, HOST),
    "offgrid.v1.ObjectService/RebuildReplica": Row(MEMBERS, HOST),
    "offgrid.v1.ObjectService/CombineRows": Row(MEMBERS),
    "offgrid.v1.ObjectService/ReadReplica": Row(MEMBERS),
    "offgrid.v1.ObjectService/DeliverNotices": Row(MEMBERS),
    "offgrid.v1.ObjectService/CompareInventory": Row(MEMBERS),
    "offgrid.v1.ObjectService/NameInventory": Row(MEMBERS),
    "offgrid.v1.ObjectService/ShowReplica": Row(MEMBERS),
    "offgrid.v1.ObjectService/ReportChange": Row(MEMBERS),
    "offgrid.v1.ObjectService/AuditObject": Row(ADMINS),
    "offgrid.v1.ObjectService/AuditReplicas": Row(MEMBERS),
    "offgrid.v1.ObjectService/ScrubReplicas": Row(ADMINS),
    "offgrid.v1.ObjectService/ListSegments": Row(MEMBERS),
    "offgrid.v1.ObjectService/BeginLife": Row(MEMBERS),
    "offgrid.v1.QuorumService/ListWeights": Row(MEMBERS | ADMINS),
    "offgrid.v1.QuorumService/CreateQuorum": Row(ADMINS),
    "offgrid.v1.QuorumService/AckQuorum": Row(ADMINS),
    "offgrid.v1.QuorumService/GetQuorum": Row(ADMINS),
    "offgrid.v1.QuorumService/ListQuorums": Row(ADMINS),
    "offgrid.v1.QuorumService/SignAck": Row(MEMBERS),
    "offgrid.v1.QuorumService/TrackQuorums": Row(MEMBERS, BROKER),
    "offgrid.v1.LedgerService/GetGenesis": Row(MEMBERS | ADMINS),
    "offgrid.v1.LedgerService/OpenLedger": Row(ADMINS),
    "offgrid.v1.LedgerService/GetBalance": Row(ADMINS),
    "offgrid.v1.LedgerService/ListBalances": Row(ADMINS),
    "offgrid.v1.LedgerService/CreateTransfer": Row(ADMINS),
    "offgrid.v1.LedgerService/UnlockSlot": Row(ADMINS),
    "offgrid.v1.LedgerService/GetTransaction": Row(ADMINS),
    "offgrid.v1.LedgerService/WatchTransaction": Row(ADMINS),
    "offgrid.v1.LedgerService/ListTransactions": Row(ADMINS),
    "offgrid.v1.LedgerService/ListBookings": Row(ADMINS),
    "offgrid.v1.LedgerService/SetCreditLine": Row(ADMINS),
    "offgrid.v1.LedgerService/ListCreditLines": Row(ADMINS),
    "offgrid.v1.LedgerService/CreateTransaction": Row(ADMINS),
    "offgrid.v1.LedgerService/SignTransaction": Row(ADMINS),
    "offgrid.v1.LedgerService/SendTransaction": Row(ADMINS),
    "offgrid.v1.LedgerService/GetWallet": Row(ADMINS),
    "offgrid.v1.LedgerService/OpenLanes": Row(ADMINS),
    "offgrid.v1.LedgerService/GetLedgerStatus": Row(ADMINS),
    "offgrid.v1.LedgerService/OrderCommittee": Row(ADMINS),
    "offgrid.v1.LedgerService/EndEpoch": Row(ADMINS),
    "offgrid.v1.LedgerService/ListEpochs": Row(ADMINS),
    "offgrid.v1.LedgerService/GetCheckpoint": Row(ADMINS),
    "offgrid.v1.LedgerService/GetReceipt": Row(ADMINS),
    "offgrid.v1.LedgerService/ListBlocks": Row(ADMINS),
    "offgrid.v1.LedgerService/SignFinal": Row(MEMBERS),
    "offgrid.v1.LedgerService/PushBlocks": Row(MEMBERS),
    "offgrid.v1.LedgerService/SyncBlocks": Row(MEMBERS),
    "offgrid.v1.LedgerService/AskCheckpoints": Row(MEMBERS),
    "offgrid.v1.LedgerService/PushCheckpoints": Row(MEMBERS),
    "offgrid.v1.LedgerService/ListEpochAccounts": Row(MEMBERS | ADMINS),
    "offgrid.v1.LedgerService/Settle": Row(ADMINS),
    "offgrid.v1.LedgerService/DeliverVouchers": Row(MEMBERS),
    "offgrid.v1.StateService/ListEvents": Row(ADMINS),
    "offgrid.v1.StateService/WatchEvents": Row(ADMINS),
    "offgrid.v1.StateService/GetRetention": Row(ADMINS),
    "offgrid.v1.SessionService/StartSession": Row(ADMINS),
    "offgrid.v1.SessionService/EndSession": Row(ADMINS),
    "offgrid.v1.SessionService/GetSession": Row(ADMINS),
    "offgrid.v1.SessionService/ListSessions": Row(ADMINS),
    "offgrid.v1.SessionService/RecordEvents": Row(ADMINS),
    "offgrid.v1.SessionService/ListRecords": Row(ADMINS),
    "offgrid.v1.SessionService/ShowState": Row(ADMINS),
    "offgrid.v1.SessionService/WatchSession": Row(ADMINS),
    "offgrid.v1.SessionService/TakeSnapshot": Row(ADMINS),
    "offgrid.v1.SessionService/PurgeSessions": Row(ADMINS),
    "offgrid.v1.SessionService/PinSession": Row(ADMINS),
    "offgrid.v1.SessionService/RegisterKind": Row(ADMINS),
    "offgrid.v1.SessionService/ListKinds": Row(ADMINS),
    "offgrid.v1.SessionService/ExportSession": Row(ADMINS),
    "offgrid.v1.SessionService/BeginImport": Row(ADMINS),
    "offgrid.v1.SessionService/ImportEvents": Row(ADMINS),
    "offgrid.v1.SessionService/EndImport": Row(ADMINS),
    "offgrid.v1.MemoryService/AskKey": Row(ADMINS),
    "offgrid.v1.MemoryService/AskCount": Row(ADMINS),
    "offgrid.v1.MemoryService/ListSummaries": Row(ADMINS),
    "offgrid.v1.BackupService/CreateBackup": Row(ADMINS),
    "offgrid.v1.BackupService/ListBackups": Row(ADMINS),
    "offgrid.v1.BackupService/CompactStore": Row(ADMINS),
}


def standings(caller: Caller) -> frozenset[str]:
    """Every word of the table that is true of this caller."""
    if caller.kind is Kind.MEMBER:
        return frozenset({"member", *(ROLE_NAMES[role] for role in caller.roles)})
    return frozenset({str(caller.kind)})


def check_access(method: str, caller: Caller) -> None:
    """Raises PermissionDenied unless the table lets this caller in."""
    row = ACCESS.get(method)
    allowed = row.callers if row else frozenset()
    if not allowed & standings(caller):
        wanted = ", ".join(sorted(allowed)) or "nobody"
        raise PermissionDenied(
            f"{method} may be called by {wanted}; the caller is {', '.join(sorted(standings(caller)))}",
            reason="AccessDenied",
            metadata={"method": method, "caller": str(caller)},
        )


def check_own_role(method: str, own: Set[int]) -> None:
    """Raises FailedPrecondition (NotACore, NotABroker, NotAHost) unless this node has the role that the RPC needs."""
    row = ACCESS.get(method)
    if row is not None and row.own is not None:
        check_role(method, row.own, own)


def check_role(method: str, role: int, own: Set[int]) -> None:
    """The same for one role."""
    if role in own:
        return
    needed, has = ROLE_NAMES[role], ", ".join(ROLE_NAMES[role] for role in sorted(own)) or "none"
    raise FailedPrecondition(
        f"{method} is for a {needed}, and this node is none: its roles in force are {has}; node.roles in offgrid.toml "
        "and its membership record decide",
        reason=f"NotA{needed.capitalize()}",
        metadata={"method": method, "role": needed},
    )
