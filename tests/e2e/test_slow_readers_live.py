"""Readers that stop reading what a real node streams to them over gRPC: it is held up by none, keeps no read of its
store open for them, and tells them what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import lmdb
import pytest
from live import GIVE_UP_S, eventually, mesh_of

from offgrid.client.errors import from_rpc
from offgrid.v1 import state_pb2
from offgrid_node.local_mesh import LocalNode
from offgrid_node.services.state import BACKLOG_BYTES_MAX

LARGE = "x" * 16_000  # a mission's description, and an event of it
MANY = 5 * BACKLOG_BYTES_MAX // (4 * len(LARGE))  # more than may wait behind what gRPC takes ahead of a reader
AHEAD = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))  # it takes no more on a slow machine
RECORDS = 100


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    with mesh_of(tmp_path_factory.mktemp("slow"), {"lone": ["core"]}) as mesh:
        yield mesh["lone"]


@contextmanager
def reading(lone: LocalNode, method: str, request: bytes) -> Iterator[Iterator[bytes]]:
    with grpc.insecure_channel(lone.socket, AHEAD) as channel:
        call = channel.unary_stream(f"/offgrid.v1.{method}")(request, timeout=GIVE_UP_S)
        yield call
        call.cancel()


def open_reads(lone: LocalNode) -> list[str]:
    """Transactions that read its store now, of all processes: as LMDB's lock file has them."""
    env = lmdb.open(str(lone.folder / "data" / "memory.db"), readonly=True, max_dbs=1)
    try:
        rows = [line.split() for line in env.readers().splitlines()[1:]]
        return [" ".join(row) for row in rows if row[-1] != "-"]
    finally:
        env.close()


def test_a_reader_of_the_journal_is_cut_off_told_and_may_go_on(lone: LocalNode) -> None:
    with lone.client() as client:
        mission = client.missions.create("long")
        start = client.mesh.status().journal_seq
        request = state_pb2.WatchEventsRequest(after_seq=start)
        with reading(lone, "StateService/WatchEvents", request.SerializeToString()) as stalled:
            client.missions.update(mission.mission_id, description="the first")
            first = state_pb2.WatchEventsResponse.FromString(next(stalled)).event.seq
            for _ in range(2):
                with ThreadPoolExecutor(16) as pool:
                    for each in [
                        pool.submit(client.missions.update, mission.mission_id, description=LARGE)
                        for _ in range(MANY // 2)
                    ]:
                        each.result()
                eventually(lambda: not open_reads(lone), "none is for the reader")
            newest = client.mesh.status().journal_seq
            seen, fault = [first], None
            try:
                seen += [state_pb2.WatchEventsResponse.FromString(each).event.seq for each in stalled]
            except grpc.RpcError as raised:
                fault = from_rpc(raised)
        assert fault is not None
        assert fault.reason == "SlowReader"
        assert "bytes behind" in fault.message
        assert seen == [*range(first, seen[-1] + 1)]
        assert seen[-1] < newest
        rest = client.events.watch(after_seq=seen[-1])
        assert [next(rest).seq for _ in range(newest - seen[-1])] == [*range(seen[-1] + 1, newest + 1)]


def test_a_reader_of_a_session_misses_nothing_and_holds_nobody_up(lone: LocalNode) -> None:
    with lone.client() as client, client.session("long") as session:
        request = state_pb2.WatchSessionRequest(session=session.session_id, after=0)
        with reading(lone, "SessionService/WatchSession", request.SerializeToString()) as stalled:
            for number in range(RECORDS):
                session.record("health.heartbeat", {"number": number, "pad": LARGE * 4})
                if number % 10 == 0:
                    assert session.flush(), "it is not held up"
                if number % 25 == 0:
                    eventually(lambda: not open_reads(lone), "none is for the reader")
            assert session.flush()
            numbers = [state_pb2.WatchSessionResponse.FromString(next(stalled)).record.number for _ in range(RECORDS)]
        assert numbers == [*range(1, RECORDS + 1)]
