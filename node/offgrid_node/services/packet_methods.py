"""Numbers for methods on packet links, where a name would cost more than the request.

The numbers are part of the wire: one that was given never changes its meaning and is never given again. The high byte
is the service's, the low byte counts within it. A test holds the table complete and unique.
"""

from __future__ import annotations

from collections.abc import Mapping

METHOD_NUMBERS: Mapping[str, int] = {
    "offgrid.v1.MeshService/GetStatus": 0x0101,
    "offgrid.v1.MeshService/ListPeers": 0x0102,
    "offgrid.v1.MeshService/CreateInvite": 0x0103,
    "offgrid.v1.MeshService/RemoveMember": 0x0104,
    "offgrid.v1.MeshService/Ping": 0x0105,
    "offgrid.v1.MeshService/PingVia": 0x0106,
    "offgrid.v1.MeshService/SyncMembers": 0x0107,
    "offgrid.v1.JoinService/Join": 0x0201,
    "offgrid.v1.JobService/CreateMission": 0x0301,
    "offgrid.v1.JobService/GetMission": 0x0302,
    "offgrid.v1.JobService/ListMissions": 0x0303,
    "offgrid.v1.JobService/UpdateMission": 0x0304,
    "offgrid.v1.JobService/CreateTask": 0x0305,
    "offgrid.v1.JobService/GetTask": 0x0306,
    "offgrid.v1.JobService/ListTasks": 0x0307,
    "offgrid.v1.JobService/CreateJob": 0x0308,
    "offgrid.v1.JobService/GetJob": 0x0309,
    "offgrid.v1.JobService/ListJobs": 0x030A,
    "offgrid.v1.JobService/DispatchJob": 0x030B,
    "offgrid.v1.JobService/WatchJob": 0x030C,
    "offgrid.v1.JobService/RunJobs": 0x030D,
    "offgrid.v1.JobService/WatchJobs": 0x030E,
    "offgrid.v1.JobService/CancelJobs": 0x030F,
    "offgrid.v1.MarketService/PostOffer": 0x0401,
    "offgrid.v1.MarketService/SubmitJobs": 0x0402,
    "offgrid.v1.MarketService/DeliverAwards": 0x0403,
    "offgrid.v1.MarketService/StartJobs": 0x0404,
    "offgrid.v1.MarketService/ReportResults": 0x0405,
    "offgrid.v1.MarketService/CloseLeases": 0x0406,
    "offgrid.v1.MarketService/ListOffers": 0x0407,
    "offgrid.v1.MarketService/CancelStarts": 0x0408,
    "offgrid.v1.MarketService/RenewLeases": 0x0409,
    "offgrid.v1.ObjectService/GetCapacity": 0x0501,
    "offgrid.v1.ObjectService/OpenUpload": 0x0502,
    "offgrid.v1.ObjectService/WriteUpload": 0x0503,
    "offgrid.v1.ObjectService/CommitUpload": 0x0504,
    "offgrid.v1.ObjectService/Enqueue": 0x0505,
    "offgrid.v1.ObjectService/GetObject": 0x0506,
    "offgrid.v1.ObjectService/ListObjects": 0x0507,
    "offgrid.v1.ObjectService/ReadObject": 0x0508,
    "offgrid.v1.ObjectService/ListOutbox": 0x0509,
    "offgrid.v1.ObjectService/OpenReplica": 0x050A,
    "offgrid.v1.ObjectService/WriteReplica": 0x050B,
    "offgrid.v1.ObjectService/CommitReplica": 0x050C,
    "offgrid.v1.ObjectService/ReadReplica": 0x050D,
    "offgrid.v1.ObjectService/CancelOutboxEntry": 0x050E,
    "offgrid.v1.QuorumService/ListWeights": 0x0601,
    "offgrid.v1.QuorumService/CreateQuorum": 0x0602,
    "offgrid.v1.QuorumService/AckQuorum": 0x0603,
    "offgrid.v1.QuorumService/GetQuorum": 0x0604,
    "offgrid.v1.QuorumService/ListQuorums": 0x0605,
    "offgrid.v1.QuorumService/SignAck": 0x0606,
    "offgrid.v1.QuorumService/TrackQuorums": 0x0607,
    "offgrid.v1.LedgerService/GetGenesis": 0x0701,
    "offgrid.v1.LedgerService/OpenLedger": 0x0702,
    "offgrid.v1.LedgerService/GetBalance": 0x0703,
    "offgrid.v1.LedgerService/ListBalances": 0x0704,
    "offgrid.v1.LedgerService/CreateTransfer": 0x0705,
    "offgrid.v1.LedgerService/GetTransaction": 0x0706,
    "offgrid.v1.LedgerService/WatchTransaction": 0x0707,
    "offgrid.v1.LedgerService/ListTransactions": 0x0708,
    "offgrid.v1.LedgerService/ListBookings": 0x0709,
    "offgrid.v1.LedgerService/GetLedgerStatus": 0x070A,
    "offgrid.v1.LedgerService/PushBlocks": 0x070B,
    "offgrid.v1.LedgerService/SyncBlocks": 0x070C,
    "offgrid.v1.StateService/ListEvents": 0x0801,
    "offgrid.v1.StateService/WatchEvents": 0x0802,
}
METHOD_NAMES: Mapping[int, str] = {number: name for name, number in METHOD_NUMBERS.items()}

POLL_INSTEAD: Mapping[str, str] = {
    "offgrid.v1.LedgerService/WatchTransaction": "offgrid.v1.LedgerService/GetTransaction",
    "offgrid.v1.JobService/WatchJob": "offgrid.v1.JobService/GetJob",
    "offgrid.v1.JobService/WatchJobs": "offgrid.v1.JobService/GetJob",
    "offgrid.v1.StateService/WatchEvents": "offgrid.v1.StateService/ListEvents",
}
"""Packets carry no streams; this is the unary call that tells the same when it is repeated."""
