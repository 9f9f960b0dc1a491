"""A member of a mesh, with an identity that is valid, that says one thing to another as fast as it can.

    python -m offgrid_tools.soak.flooder        reads a Siege as JSON, and writes what came of it as JSON

It knows no manners: it waits for no answer longer than for room, and comes back the moment it is refused.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import msgspec
from google.protobuf.message import Message

from offgrid.frames import HEAD_BYTES, frame
from offgrid.lanes import PIECE_BYTES_MAX
from offgrid.v1 import jobs_pb2, lane_pb2, mesh_pb2, objects_pb2
from offgrid_node.folder import KEYS_NAME
from offgrid_node.keys import NodeKey, issue_leaf
from offgrid_node.protocol.ids import unbase32
from offgrid_node.protocol.jobs.heartbeat import digest_of_page
from offgrid_node.protocol.jobs.orders import ORDERS, JobOrder, payload_digest
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX
from offgrid_node.protocol.jobs.receipts import COMPLETED, RECEIPTS, ReceiptBody, result_digest
from offgrid_node.protocol.signing import SALT_BYTES
from offgrid_node.services.framed_tls import Target
from offgrid_node.services.lane_serving import FRAMED_MESSAGE_BYTES_MAX
from offgrid_node.services.packet_status import fault_from_bytes
from offgrid_node.services.status import described_fault
from offgrid_node.services.tls import channel_credentials

GRPC, FRAMED = "grpc", "framed"
IN_FLIGHT = 64  # calls, of each connection
CONNECTIONS = 4  # framed ones: as many as one member may have
IDLE_CONNECTIONS = 600  # more than a node takes
PREPARED = 256  # words, said over and over: making and signing them takes longer than hearing them
PREPARED_PIECES = 8  # of those: the flooder has to hold them
TIMEOUT_S = 10.0
TASK_MS = 60_000
LABELS = "x" * 100
DETAILS_KEY = "grpc-status-details-bin"


class Siege(msgspec.Struct, frozen=True):
    """Who floods whom with what, by which carrier, and for how long."""

    name: str
    carrier: str
    folder: str  # the flooder's own
    target_folder: str
    address: str
    mesh_id: str
    seconds: float


class Outcome(msgspec.Struct):
    """Of its calls: how many were answered, refused by their reasons, refused with a time to come back, and lost."""

    answered: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    with_retry: int = 0
    lost: int = 0

    def refuse(self, reason: str, *, has_retry: bool) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1
        self.with_retry += has_retry


class Words:
    """What a flooder has to say, signed where it must be: each time something else."""

    def __init__(self, key: NodeKey, target: str, salt: bytes) -> None:
        self._key, self._target, self._salt = key, target, salt
        self._numbers = itertools.count(int(time.time() * 1_000))

    def orders(self, requirements: Callable[[int], str] = lambda number: "") -> jobs_pb2.SubmitJobsRequest:
        """Of work that no host does, so that they wait."""
        bodies = [self._order(number, requirements(number)) for number in self._some()]
        return jobs_pb2.SubmitJobsRequest(orders=bodies, root_signature=ORDERS.sign(bodies, self._key, self._salt))

    def classes(self) -> jobs_pb2.SubmitJobsRequest:
        return self.orders(lambda number: f'memory_mb >= {number % 10_000} and label.x != "{LABELS}"')

    def explanation(self) -> jobs_pb2.ExplainOrderRequest:
        number = next(self._numbers)
        return jobs_pb2.ExplainOrderRequest(order=self._order(number, f"memory_mb >= {number % 10_000}"))

    def offers(self) -> jobs_pb2.PostOffersRequest:
        """All there is room for, anew each time."""
        request = jobs_pb2.PostOffersRequest(host=self._key.node_id, seq=next(self._numbers))
        request.profile.host, request.profile.slots = self._key.node_id, 64
        request.profile.labels.update({f"l{each}-{request.seq}": LABELS for each in range(256)})
        for number in range(1, 257):
            offer = request.offers.add(offer_id=number, slots=64, expiry_ms=60_000, ask_micro=request.seq % 1_000)
            offer.executors.append(f"none:{request.seq}-{number}")
            offer.kinds.append("none")
        return request

    def closings(self) -> jobs_pb2.CloseLeasesRequest:
        leases = [jobs_pb2.ClosedLease(job_id=f"j-{number}", attempt=1) for number in self._some()]
        return jobs_pb2.CloseLeasesRequest(leases=leases)

    def awards(self) -> jobs_pb2.DeliverAwardsRequest:
        """Of jobs that the core has never had, at a host that there is."""
        awarded = jobs_pb2.CLEARING_KIND_AWARDED
        awards = [
            jobs_pb2.Clearing(job_id=f"j-{number}", attempt=1, kind=awarded, host=self._key.node_id)
            for number in self._some()
        ]
        return jobs_pb2.DeliverAwardsRequest(awards=awards)

    def receipts(self) -> jobs_pb2.ReportResultsRequest:
        """For work that was never done."""
        numbers = list(self._some())
        bodies = [self._receipt(number).encode() for number in numbers]
        request = jobs_pb2.ReportResultsRequest(root_signature=RECEIPTS.sign(bodies, self._key, self._salt))
        for number, body in zip(numbers, bodies, strict=True):
            result = request.reports.add(job_id=f"j-{number}", attempt=1).result
            result.status, result.receipt.body = COMPLETED, body
        return request

    def progress(self) -> jobs_pb2.ReportProgressRequest:
        said = [
            jobs_pb2.JobProgress(job_id=f"j-{number}", attempt=1, fraction=0.5, message="x" * 200)
            for number in itertools.islice(self._numbers, 64)
        ]
        return jobs_pb2.ReportProgressRequest(progress=said)

    def renewals(self) -> jobs_pb2.RenewLeasesRequest:
        held = [(f"j-{number}", 1) for number in self._some()]
        leases = [jobs_pb2.LeaseKey(job_id=job_id, attempt=attempt) for job_id, attempt in held]
        return jobs_pb2.RenewLeasesRequest(held=leases, digest=digest_of_page(held))

    def starts(self) -> jobs_pb2.StartJobsRequest:
        """Of orders that no broker has awarded, with payloads, of work that the host does not do."""
        request = jobs_pb2.StartJobsRequest()
        payload = jobs_pb2.JobPayload(input=b"x" * 500)
        payload.process.command = "none"
        data = payload.SerializeToString()
        for number in self._some():
            request.starts.add(order=self._order(number, payload=data, needs="process:none"), payload=data)
        bodies = [start.order for start in request.starts]
        request.root_signature = ORDERS.sign(bodies, self._key, self._salt)
        return request

    def cancels(self) -> jobs_pb2.CancelStartsRequest:
        attempts = [jobs_pb2.LeaseKey(job_id=f"j-{number}", attempt=1) for number in self._some()]
        return jobs_pb2.CancelStartsRequest(attempts=attempts)

    def piece(self) -> objects_pb2.WriteReplicaRequest:
        """Of an object that was never announced."""
        object_id = f"o-{next(self._numbers)}"
        return objects_pb2.WriteReplicaRequest(object_id=object_id, data=os.urandom(PIECE_BYTES_MAX))

    # ---- inside

    def _some(self) -> Iterator[int]:
        return itertools.islice(self._numbers, CALL_ITEMS_MAX)

    def _order(self, number: int, requirements: str = "", payload: bytes = b"", needs: str = "none") -> bytes:
        digest = payload_digest(payload)
        order = JobOrder(
            self._key.node_id, f"j-{number}", 1, "none", needs, 1_000, len(payload), digest, TASK_MS, 0, 0, requirements
        )
        return order.encode()

    def _receipt(self, number: int) -> ReceiptBody:
        digest = result_digest(0, b"")
        return ReceiptBody(
            self._key.node_id, self._target, f"j-{number}", 1, digest, digest, COMPLETED, 1_000, 1, 1, "none"
        )


SAYINGS: dict[str, tuple[str, Callable[[Words], Message]]] = {
    "orders": ("MarketService/SubmitJobs", Words.orders),
    "classes": ("MarketService/SubmitJobs", Words.classes),
    "explanations": ("MarketService/ExplainOrder", Words.explanation),
    "offers": ("MarketService/PostOffers", Words.offers),
    "closings": ("MarketService/CloseLeases", Words.closings),
    "awards": ("MarketService/DeliverAwards", Words.awards),
    "receipts": ("MarketService/ReportResults", Words.receipts),
    "progress": ("MarketService/ReportProgress", Words.progress),
    "renewals": ("MarketService/RenewLeases", Words.renewals),
    "starts": ("MarketService/StartJobs", Words.starts),
    "cancels": ("MarketService/CancelStarts", Words.cancels),
    "pieces": ("ObjectService/WriteReplica", Words.piece),
    "pings": ("MeshService/Ping", lambda words: mesh_pb2.PingRequest()),
}


class Flooder:
    """One siege, under way."""

    def __init__(self, siege: Siege) -> None:
        self._siege, self._outcome = siege, Outcome()
        self._key = _key_in(siege.folder)
        target = _key_in(siege.target_folder)
        self._tls, self._target = issue_leaf(self._key), issue_leaf(target)
        self._words = Words(self._key, target.node_id, unbase32(siege.mesh_id)[:SALT_BYTES])
        self._until_s = 0.0

    async def run(self) -> Outcome:
        await self._flood()
        return self._outcome

    async def _flood(self) -> None:
        special = {"idle": self._idle, "half-frames": self._half_frames, "unread": self._unread}
        if self._siege.name in special:
            self._until_s = time.monotonic() + self._siege.seconds
            await special[self._siege.name]()
            return
        method, words = SAYINGS[self._siege.name]
        prepared = PREPARED_PIECES if self._siege.name == "pieces" else PREPARED
        said = itertools.cycle([words(self._words).SerializeToString() for _ in range(prepared)])
        say = partial(next, said)
        self._until_s = time.monotonic() + self._siege.seconds
        if self._siege.carrier == GRPC:
            async with self._channel() as channel:
                call: Any = channel.unary_unary(f"/offgrid.v1.{method}")
                await asyncio.gather(*(self._say(call, say) for _ in range(IN_FLIGHT)))
        else:
            port = await self._framed_port()
            await asyncio.gather(*(self._say_framed(port, method, say) for _ in range(CONNECTIONS)))

    @property
    def _is_over(self) -> bool:
        return time.monotonic() >= self._until_s

    # ---- over gRPC

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        credentials, options = channel_credentials(self._tls, self._target.identity_der)
        async with grpc.aio.secure_channel(self._siege.address, credentials, options) as channel:
            yield channel

    async def _say(self, call: Any, say: Callable[[], bytes]) -> None:
        while not self._is_over:
            try:
                await call(say(), timeout=TIMEOUT_S)
                self._outcome.answered += 1
            except grpc.aio.AioRpcError as error:
                details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
                self._refused(details if isinstance(details, bytes) else b"", error.code().name)
            await asyncio.sleep(0)

    def _refused(self, status: bytes, otherwise: str) -> None:
        fault = described_fault(status) if status else None
        self._outcome.refuse(fault.reason if fault else otherwise, has_retry=bool(fault and fault.retry_ms))

    # ---- over framed connections

    async def _framed_port(self) -> int:
        async with self._channel() as channel:
            lane: Any = channel.stream_stream("/offgrid.v1.LaneService/Carry")()
            port = lane_pb2.CarryResponse.FromString(await lane.read()).framed_port
            lane.cancel()
            return port

    async def _connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        target = Target(self._tls, self._target.identity_der)
        host = self._siege.address.rpartition(":")[0]
        return await asyncio.open_connection(host, port, ssl=target.context, server_hostname=target.name)

    async def _say_framed(self, port: int, method: str, say: Callable[[], bytes]) -> None:
        """Should it be thrown out, it comes back."""
        while not self._is_over:
            try:
                reader, writer = await self._connect(port)
                room = asyncio.Semaphore(IN_FLIGHT)
                hearing = asyncio.ensure_future(self._hear(reader, room))
                try:
                    await self._speak(writer, room, method, say, hearing)
                finally:
                    hearing.cancel()
                    writer.transport.abort()
                    await asyncio.gather(hearing, return_exceptions=True)
            except (OSError, EOFError):
                self._outcome.lost += 1
                await asyncio.sleep(0.01)

    async def _speak(
        self,
        writer: asyncio.StreamWriter,
        room: asyncio.Semaphore,
        method: str,
        say: Callable[[], bytes],
        hearing: asyncio.Future[None],
    ) -> None:
        for number in itertools.count(1):
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await room.acquire()
            if self._is_over or hearing.done():
                return
            call = lane_pb2.LaneCall(number=number, name=method, request=say())
            writer.write(frame(lane_pb2.CarryRequest(calls=[call]).SerializeToString()))
            await writer.drain()

    async def _hear(self, reader: asyncio.StreamReader, room: asyncio.Semaphore) -> None:
        while True:
            head = await reader.readexactly(HEAD_BYTES)
            message = lane_pb2.CarryResponse.FromString(await reader.readexactly(int.from_bytes(head, "big")))
            for answer in message.answers:
                room.release()
                if not answer.status:
                    self._outcome.answered += 1
                    continue
                fault = fault_from_bytes(answer.status)
                self._outcome.refuse(fault.reason, has_retry=bool(fault.retry_ms))

    # ---- by saying nothing

    async def _idle(self) -> None:
        """Connections without a word, to both of its ports."""
        framed, opened = await self._framed_port(), list[asyncio.StreamWriter]()
        host, port = self._siege.address.rsplit(":", 1)
        try:
            for number in range(IDLE_CONNECTIONS):
                try:
                    _, writer = await asyncio.open_connection(host, framed if number % 2 else int(port))
                    opened.append(writer)
                except OSError:
                    self._outcome.lost += 1
            self._outcome.answered = len(opened)
            await asyncio.sleep(max(0.0, self._until_s - time.monotonic()))
        finally:
            for writer in opened:
                writer.transport.abort()

    async def _half_frames(self) -> None:
        """Each says how long it will be, and stops just before its end."""
        port = await self._framed_port()

        async def stop_short() -> None:
            while not self._is_over:
                try:
                    reader, writer = await self._connect(port)
                    writer.write(
                        FRAMED_MESSAGE_BYTES_MAX.to_bytes(HEAD_BYTES, "big") + bytes(FRAMED_MESSAGE_BYTES_MAX - 1)
                    )
                    await writer.drain()
                    self._outcome.answered += 1
                    with suppress(TimeoutError):
                        async with asyncio.timeout(max(0.1, self._until_s - time.monotonic())):
                            while await reader.read(1 << 16):
                                pass
                    writer.transport.abort()
                except OSError:
                    self._outcome.lost += 1
                await asyncio.sleep(0.01)

        await asyncio.gather(*(stop_short() for _ in range(2 * CONNECTIONS)))

    async def _unread(self) -> None:
        """Asks for the longest answers that there are, and reads none."""
        port = await self._framed_port()

        async def ask() -> None:
            _, writer = await self._connect(port)
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio reads ahead otherwise
            for number in itertools.count(1):
                call = lane_pb2.LaneCall(number=number, name="MeshService/ListPeers")
                writer.write(frame(lane_pb2.CarryRequest(calls=[call]).SerializeToString()))
                self._outcome.answered += 1
                try:
                    async with asyncio.timeout(max(0.01, self._until_s - time.monotonic())):
                        await writer.drain()
                except (TimeoutError, OSError):
                    break
            writer.transport.abort()

        await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))


def _key_in(folder: str) -> NodeKey:
    return NodeKey.load(Path(folder) / KEYS_NAME)


def main() -> int:
    siege = Siege(**json.load(sys.stdin))
    outcome = asyncio.run(Flooder(siege).run())
    json.dump(msgspec.to_builtins(outcome), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
