"""Who may call what: every RPC with every kind of caller, over the real listeners, against the table."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf.message import Message
from msgspec.structs import replace

from offgrid_node.keys import NodeKey, issue_leaf
from offgrid_node.protocol.errors import FailedPrecondition, PermissionDenied
from offgrid_node.protocol.events import BROKER, CORE, HOST
from offgrid_node.services.access import ACCESS, ALL_ROLES, standings
from offgrid_node.services.caller import ADMIN, ANONYMOUS, Caller, Kind
from offgrid_node.services.grpc_server import DOOR_LIMITS, GrpcServer
from offgrid_node.services.router import METHODS, Router, snake
from offgrid_node.services.stream import Stream
from offgrid_node.services.tls import channel_credentials

CALLERS = {
    "anonymous": ANONYMOUS,
    "member without roles": Caller(Kind.MEMBER, "m"),
    "core": Caller(Kind.MEMBER, "c", frozenset({CORE})),
    "broker": Caller(Kind.MEMBER, "b", frozenset({BROKER})),
    "host": Caller(Kind.MEMBER, "h", frozenset({HOST})),
    "admin": ADMIN,
}
# What the table means, said a second time and in another way, so that a slip in either shows.
OWNER = "admin"
MEMBERS = "member without roles, core, broker, host"
EVERY_RPC = {
    "JoinService": {"anonymous": "Join"},
    "MeshService": {
        f"{MEMBERS}, {OWNER}": "GetStatus ListPeers GetMemberProof",
        OWNER: "CreateInvite ListInvites RevokeInvite RemoveMember CreatePageLink StopNode",
        MEMBERS: "Ping PingVia SyncMembers",
    },
    "LinkService": {MEMBERS: "Echo LookBack", OWNER: "ListLinks ListRoads PingPeer CheckPeers"},
    "JobService": {
        OWNER: "CreateMission GetMission ListMissions UpdateMission CreateTask GetTask ListTasks CreateJob GetJob "
        "ListJobs DispatchJob WatchJob RunJobs WatchJobs CancelJobs ExplainJob WatchProgress "
        "CreateSchedule ListSchedules UpdateSchedule DeleteSchedule"
    },
    "MarketService": {
        "host": "PostOffers RenewLeases ReportResults ReportProgress",
        "core": "SubmitJobs StartJobs CancelStarts CloseLeases ExplainOrder",
        "broker": "DeliverAwards",
        f"{MEMBERS}, {OWNER}": "ListOffers",
    },
    "HostService": {OWNER: "ToggleHost GetHost WatchDrain DropKept"},
    "ObjectService": {
        f"{MEMBERS}, {OWNER}": "GetCapacity",
        OWNER: "OpenUpload WriteUpload CommitUpload AbortUpload Enqueue GetObject ListObjects ReadObject ListOutbox "
        "PutObject WatchObject CancelOutboxEntry DeleteObject ListDeletions ListRegained "
        "ShareObject UnshareObject ExplainPlacement AuditObject ScrubReplicas RotateDataKeys "
        "GetDataKeys ReencryptObjects StopReencryption",
        MEMBERS: "OpenReplica WriteReplica CommitReplica ReadReplica DeliverNotices CompareInventory NameInventory "
        "ShowReplica "
        "RebuildReplica CombineRows PutReplica ReportChange AuditReplicas ListSegments BeginLife",
    },
    "QuorumService": {
        f"{MEMBERS}, {OWNER}": "ListWeights",
        OWNER: "CreateQuorum AckQuorum GetQuorum ListQuorums",
        MEMBERS: "SignAck TrackQuorums",
    },
    "LedgerService": {
        f"{MEMBERS}, {OWNER}": "GetGenesis ListEpochAccounts",
        OWNER: "OpenLedger GetBalance ListBalances CreateTransfer UnlockSlot GetTransaction WatchTransaction "
        "ListTransactions ListBookings GetLedgerStatus SetCreditLine ListCreditLines "
        "CreateTransaction SignTransaction SendTransaction GetWallet OpenLanes GetReceipt "
        "ListBlocks Settle OrderCommittee EndEpoch ListEpochs GetCheckpoint",
        MEMBERS: "PushBlocks SyncBlocks SignFinal DeliverVouchers AskCheckpoints PushCheckpoints",
    },
    "StateService": {OWNER: "ListEvents WatchEvents GetRetention"},
    "SessionService": {
        OWNER: "StartSession EndSession GetSession ListSessions RecordEvents ListRecords ShowState TakeSnapshot "
        "PurgeSessions RegisterKind ListKinds ExportSession BeginImport ImportEvents EndImport PinSession "
        "WatchSession",
    },
    "MemoryService": {OWNER: "AskKey AskCount ListSummaries"},
    "BackupService": {OWNER: "CreateBackup ListBackups CompactStore"},
    "MailService": {
        OWNER: "SendMail GetMail ListMail ListMessages ReadMessage DeleteMessage GetMailbox",
        MEMBERS: "DepositParcel DeliverParcel DropParcels TakeMessage TakeJob",
    },
}
EXPECTED = {
    f"offgrid.v1.{service}/{method}": frozenset(callers.split(", "))
    for service, groups in EVERY_RPC.items()
    for callers, methods in groups.items()
    for method in methods.split()
}


# Which role the node that is called must have itself; every other RPC asks for none.
OWN_ROLE = {
    CORE: "JobService/CreateMission JobService/UpdateMission JobService/CreateTask JobService/CreateJob "
    "JobService/DispatchJob JobService/RunJobs JobService/CancelJobs JobService/ExplainJob "
    "JobService/CreateSchedule JobService/UpdateSchedule JobService/DeleteSchedule "
    "MarketService/DeliverAwards MarketService/RenewLeases MarketService/ReportResults MarketService/ReportProgress "
    "MailService/TakeJob",
    BROKER: "MarketService/PostOffers MarketService/SubmitJobs MarketService/CloseLeases "
    "MarketService/ExplainOrder QuorumService/TrackQuorums",
    HOST: "HostService/ToggleHost HostService/GetHost HostService/WatchDrain "
    "HostService/DropKept "
    "MarketService/StartJobs MarketService/CancelStarts "
    "ObjectService/OpenReplica ObjectService/WriteReplica ObjectService/CommitReplica ObjectService/RebuildReplica "
    "ObjectService/PutReplica",
}
REASONS = {CORE: "NotACore", BROKER: "NotABroker", HOST: "NotAHost"}


def yes_to_all(own_roles: frozenset[int] = ALL_ROLES) -> Router:
    """A router whose handlers answer anything at once; only the access table can refuse."""

    def answer(response: type[Message]) -> Message:
        return response()

    def nothing(caller: Caller, request: Message) -> Stream:
        stream = Stream()
        stream.end()
        return stream

    services: dict[str, SimpleNamespace] = {}
    for name, method in METHODS.items():
        service, _, rpc = name.partition("/")
        handler = nothing if method.streaming else lambda caller, request, response=method.response: answer(response)
        setattr(services.setdefault(service, SimpleNamespace()), snake(rpc), handler)
    return Router(services, lambda: own_roles)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name, which may have 103 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="og"))
    yield folder
    shutil.rmtree(folder)


def test_the_table_names_every_rpc_and_no_other() -> None:
    assert set(ACCESS) == set(METHODS)


def test_the_table_says_what_this_specification_says() -> None:
    assert {
        method: {name for name, caller in CALLERS.items() if row.callers & standings(caller)}
        for method, row in ACCESS.items()
    } == EXPECTED


@pytest.mark.parametrize("count", range(4))
def test_a_node_answers_only_in_the_roles_that_it_has_itself(count: int) -> None:
    needed = {f"offgrid.v1.{method}": role for role, methods in OWN_ROLE.items() for method in methods.split()}
    for own in combinations((CORE, BROKER, HOST), count):
        router = yes_to_all(frozenset(own))
        for method, known in METHODS.items():
            for name in EXPECTED[method]:
                role = needed.get(method)
                if role is None or role in own:
                    router.dispatch(CALLERS[name], method, known.request())
                    continue
                with pytest.raises(FailedPrecondition, match=r"node\.roles in offgrid\.toml") as refused:
                    router.dispatch(CALLERS[name], method, known.request())
                assert refused.value.reason == REASONS[role]


def test_who_may_not_call_does_not_learn_the_roles() -> None:
    with pytest.raises(PermissionDenied):
        yes_to_all(frozenset()).dispatch(CALLERS["host"], "offgrid.v1.MarketService/StartJobs", b"")


def test_over_the_wire_every_caller_gets_what_the_table_gives_and_nothing_else(short_dir: Path) -> None:
    assert asyncio.run(walk(short_dir)) == EXPECTED


async def walk(folder: Path) -> dict[str, frozenset[str]]:
    """Who was let in, by method: anonymous at the door, the owner at the socket, members over mutual TLS."""
    server = GrpcServer(yes_to_all(), door_limits=replace(DOOR_LIMITS, burst_calls=len(METHODS)))
    node = issue_leaf(NodeKey(b"node".ljust(32)))
    keys = {name: NodeKey(name.encode().ljust(32)) for name, c in CALLERS.items() if c.kind is Kind.MEMBER}
    leaves = {name: issue_leaf(key) for name, key in keys.items()}
    by_fingerprint = {key.node_id: CALLERS[name] for name, key in keys.items()}
    socket = await server.listen_admin(f"unix:{folder / 'admin.sock'}")
    door = await server.listen_door("127.0.0.1:0")
    mesh = await server.listen_mesh(
        "127.0.0.1:0", node, lambda: [leaf.identity_der for leaf in leaves.values()], by_fingerprint.get
    )
    channels = {
        "admin": grpc.aio.insecure_channel(socket),
        "anonymous": grpc.aio.insecure_channel(f"127.0.0.1:{door}"),
    }
    for name, leaf in leaves.items():
        credentials, options = channel_credentials(leaf, node.identity_der)
        channels[name] = grpc.aio.secure_channel(f"127.0.0.1:{mesh}", credentials, options)
    let_in: dict[str, set[str]] = {method: set() for method in METHODS}
    try:
        for name, channel in channels.items():
            for method in METHODS:
                if await is_let_in(channel, method):
                    let_in[method].add(name)
    finally:
        for channel in channels.values():
            await channel.close()
        await server.close()
    return {method: frozenset(names) for method, names in let_in.items()}


async def is_let_in(channel: grpc.aio.Channel, method: str) -> bool:
    call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{method}")
    answer = call(b"", timeout=10)
    with suppress(grpc.aio.AioRpcError):
        async for _ in answer:
            pass
    code = await answer.code()
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED), f"{method}: {code}"
    return code is grpc.StatusCode.OK


def test_what_a_member_adds_to_a_request_is_not_handed_to_whoever_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    got, router, method = list[Message](), yes_to_all(), "offgrid.v1.MeshService/SyncMembers"
    monkeypatch.setitem(router._handlers, method, lambda caller, request: got.append(request) or request)
    router.dispatch(CALLERS["host"], method, bytes((0xFA, 0x3F, 4)) + b"more")  # of field 1,023
    assert [request.ByteSize() for request in got] == [0]
