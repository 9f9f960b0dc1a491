"""Payloads on an open road: only the host that won reads them, and only under their own order."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from offgrid.v1 import jobs_pb2, mesh_pb2
from offgrid_node.keys.letters import Letters
from offgrid_node.keys.store import NodeKey
from offgrid_node.protocol.errors import InvalidRequest, NotFound, PermissionDenied
from offgrid_node.services.jobs.envelopes import Envelopes

CORE, HOST, OTHER = (NodeKey(bytes([seed]) * 32) for seed in (1, 2, 3))
KEYS = {key.node_id: key.public_key for key in (CORE, HOST, OTHER)}
ORDER, PAYLOAD = b"the order of job j-1", b"nobody else's business"
REQUEST = jobs_pb2.StartJobsRequest(
    starts=[jobs_pb2.StartJob(order=ORDER, payload=PAYLOAD, price_micro=7)], root_signature=b"signed"
)


def envelopes(key: NodeKey) -> Envelopes:
    return Envelopes(Letters(key, os.urandom), key.node_id, lambda: SimpleNamespace(current_key=KEYS.get))


def sealed() -> jobs_pb2.StartJobsRequest:
    request = envelopes(CORE).closed(HOST.node_id, REQUEST)
    assert isinstance(request, jobs_pb2.StartJobsRequest)
    return request


def test_the_host_reads_what_was_sealed_for_it() -> None:
    request = sealed()
    assert PAYLOAD not in request.SerializeToString()
    assert (request.starts[0].order, request.root_signature) == (ORDER, b"signed")
    assert REQUEST.starts[0].payload == PAYLOAD, "what is closed is a copy: another road may need none"
    envelopes(HOST).open("starts[0]", CORE.node_id, request.starts[0])
    assert request == REQUEST


@pytest.mark.parametrize("reader", [OTHER, CORE], ids=["another host", "its own sender"])
def test_nobody_else_does(reader: NodeKey) -> None:
    with pytest.raises(PermissionDenied):
        envelopes(reader).open("starts[0]", CORE.node_id, sealed().starts[0])


def test_it_opens_under_its_own_order_and_from_its_own_core_alone() -> None:
    for core, order in ((OTHER.node_id, ORDER), (CORE.node_id, b"another order")):
        start = sealed().starts[0]
        start.order = order
        with pytest.raises(PermissionDenied):
            envelopes(HOST).open("starts[0]", core, start)


def test_a_letter_beside_a_payload_is_refused() -> None:
    start = sealed().starts[0]
    start.payload = PAYLOAD
    with pytest.raises(InvalidRequest, match=r"starts\[0\]\.sealed_payload"):
        envelopes(HOST).open("starts[0]", CORE.node_id, start)


def test_who_has_no_key_gets_nothing() -> None:
    with pytest.raises(NotFound):
        envelopes(CORE).closed("nobody", REQUEST)


def test_what_holds_no_payload_goes_as_it_is() -> None:
    for request in (mesh_pb2.PingRequest(), jobs_pb2.StartJobsRequest(settled=[jobs_pb2.LeaseKey(job_id="j")])):
        assert envelopes(CORE).closed(HOST.node_id, request) is request
