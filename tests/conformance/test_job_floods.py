"""A member that floods the job side, over real gRPC: it is told when to come back, others are served meanwhile."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from offgrid.v1 import jobs_pb2
from offgrid_node.keys import NodeKey, NodeTls, issue_leaf
from offgrid_node.protocol.events import CORE, HOST
from offgrid_node.protocol.jobs.heartbeat import digest_of_page
from offgrid_node.services.access import ALL_ROLES
from offgrid_node.services.budget import Limits
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.grpc_server import GrpcServer
from offgrid_node.services.router import METHODS, Router, snake
from offgrid_node.services.tls import channel_credentials

LIMITS = Limits(calls_per_s=5, burst_calls=20, calls_in_flight=8, bytes_in_flight=200_000)
CALLS = 60
FLOODS = {
    "StartJobs": jobs_pb2.StartJobsRequest(),
    "CancelStarts": jobs_pb2.CancelStartsRequest(attempts=[jobs_pb2.LeaseKey(job_id="j", attempt=1)]),
    "RenewLeases": jobs_pb2.RenewLeasesRequest(digest=digest_of_page([])),
    "ReportResults": jobs_pb2.ReportResultsRequest(),
}


def retry_ms(error: grpc.aio.AioRpcError) -> int:
    """What its RetryInfo says."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    return int(info.retry_delay.ToMilliseconds())
    return -1


class Flooded:
    """A node that answers all of it at once, and two members, each core and host."""

    def __init__(self) -> None:
        self.answered = 0

        def answer(response: type[Message]) -> Message:
            self.answered += 1
            return response()

        services: dict[str, SimpleNamespace] = {}
        for name, method in METHODS.items():
            service, _, rpc = name.partition("/")
            handler = lambda caller, request, response=method.response: answer(response)  # noqa: E731 - bound, not asked
            setattr(services.setdefault(service, SimpleNamespace()), snake(rpc), handler)
        router = Router(services, lambda: ALL_ROLES)
        self.server, self.node = GrpcServer(router, limits=LIMITS), issue_leaf(NodeKey(b"node".ljust(32)))
        self.keys = {name: NodeKey(name.encode().ljust(32)) for name in ("flooder", "other")}
        self.leaves = {name: issue_leaf(key) for name, key in self.keys.items()}

    async def listen(self) -> int:
        callers = {key.node_id: Caller(Kind.MEMBER, key.node_id, frozenset({CORE, HOST})) for key in self.keys.values()}
        trusted = [leaf.identity_der for leaf in self.leaves.values()]
        return await self.server.listen_mesh("127.0.0.1:0", self.node, lambda: trusted, callers.get)

    def channel(self, name: str, port: int) -> grpc.aio.Channel:
        leaf: NodeTls = self.leaves[name]
        credentials, options = channel_credentials(leaf, self.node.identity_der)
        return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)


async def flood(method: str) -> tuple[list[grpc.aio.AioRpcError], int, grpc.StatusCode]:
    """Who was refused how, how many were answered, and how another member fared in the middle of it."""
    world = Flooded()
    port = await world.listen()
    flooder, other = world.channel("flooder", port), world.channel("other", port)
    path, request = f"/offgrid.v1.MarketService/{method}", FLOODS[method].SerializeToString()
    try:
        calls = [flooder.unary_unary(path)(request, timeout=20) for _ in range(CALLS)]
        served = other.unary_unary(path)(request, timeout=20)
        ends = await asyncio.gather(*calls, return_exceptions=True)
        code = await served.code()
    finally:
        await flooder.close()
        await other.close()
        await world.server.close(0)
    return [end for end in ends if isinstance(end, grpc.aio.AioRpcError)], world.answered, code


@pytest.mark.parametrize("method", FLOODS)
def test_a_flood_is_refused_with_the_time_to_come_back_and_others_are_served(method: str) -> None:
    refused, answered, other = asyncio.run(flood(method))
    assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert all(retry_ms(error) > 0 for error in refused)
    assert answered + len(refused) == CALLS + 1
    assert LIMITS.burst_calls // 2 <= len(refused) < CALLS
    assert other is grpc.StatusCode.OK
