"""A job's whole road over packets: core, broker and two hosts joined by nothing but a lossy packet link.

The nodes are assembled as the daemon's are, only their road and their way in are packets: no service
depends on gRPC.
"""

from __future__ import annotations

import pytest
from quiet_world import Cable, World, key_of

from offgrid.v1 import jobs_pb2
from offgrid_node.keys import verify
from offgrid_node.protocol.events import BROKER, CORE, HOST
from offgrid_node.protocol.jobs.receipts import verify_receipt
from offgrid_node.protocol.jobs.table import COMPLETED
from offgrid_transports.memory import Faults, MemoryNetwork

FOUR = {"core": (CORE,), "broker": (BROKER,), "host-a": (HOST,), "host-b": (HOST,)}
INPUT = b"several fragments " * 1_000


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_job_goes_from_core_over_broker_to_host_and_back_by_packets_alone(
    loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = list[bytes]()
    carry = MemoryNetwork.carry

    def overheard(self: MemoryNetwork, source: str, target: str, frame: bytes) -> None:
        heard.append(frame)
        carry(self, source, target, frame)

    monkeypatch.setattr(MemoryNetwork, "carry", overheard)
    faults = Faults(loss=loss, duplicate=loss / 2, delay_ms=10, jitter_ms=10)
    mesh = World(FOUR, Cable(faults), prices={"host-b": 2_000_000})
    mesh.see_each_other()
    job = mesh.run_job("core", INPUT)
    winner = key_of("host-a")
    assert (job.state, job.host, job.route) == (COMPLETED, winner.node_id, jobs_pb2.ROUTE_OFFGRID)
    assert job.result.output == INPUT.upper()
    body = verify_receipt(job.result.receipt, winner.public_key, verify, mesh.nodes["core"].directory.salt)
    assert (body.node, body.job_id) == (winner.node_id, job.job_id)
    for words in (b"several fragments", b"(module)", b"SEVERAL FRAGMENTS"):
        assert not [frame for frame in heard if words in frame], "whoever listens reads neither payload nor result"
    assert job.price_micro == -(-2_000_000 * job.size_tokens // 1_000_000)  # the runner-up's price
