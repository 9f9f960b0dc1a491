"""Receipts: one signature over many, each standing alone, none to be moved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.jobs.orders import JobOrder, payload_digest
from offgrid_node.protocol.jobs.receipts import ReceiptBody, proofs_of, result_digest, sign_receipts, verify_receipt
from offgrid_node.protocol.signing import decode_body
from offgrid_tools.sim.crypto import SimSigner, sim_verify

HOST, CORE, OTHER = SimSigner("host"), SimSigner("core"), SimSigner("other")
SALT = b"s" * 16


def body(number: int, **changes: object) -> ReceiptBody:
    made = ReceiptBody(
        node=HOST.node_id,
        core=CORE.node_id,
        job_id=f"j-{number}",
        attempt=1,
        payload_digest=payload_digest(b"in"),
        result_digest=result_digest(0, b"out"),
        status="completed",
        size_tokens=12,
        latency_us=3400,
        price_micro=56,
        executor="wasm",
        cpu_us=2100,
        memory_peak_bytes=5 << 20,
        output_bytes=3,
        used_tokens=0,
    )
    return made._replace(**changes)


@given(st.integers(1, 70))
def test_every_receipt_of_a_batch_stands_alone(count: int) -> None:
    bodies = [body(number) for number in range(count)]
    receipts = sign_receipts([each.encode() for each in bodies], HOST, SALT)
    assert [verify_receipt(each, HOST.public_key, sim_verify, SALT) for each in receipts] == bodies
    assert len({each.root_signature for each in receipts}) == 1


@given(st.integers(1, 40), st.data())
def test_a_changed_receipt_is_refused(count: int, data: st.DataObject) -> None:
    receipts = sign_receipts([body(number).encode() for number in range(count)], HOST, SALT)
    receipt = receipts[data.draw(st.integers(0, count - 1))]
    forged = jobs_pb2.Receipt()
    forged.CopyFrom(receipt)
    change = data.draw(st.sampled_from(["index", "count", "path", "longer", "body", "signature"]))
    if change == "index":
        forged.index = data.draw(st.integers(0, 80).filter(lambda index: index != receipt.index))
    elif change == "count":
        forged.count = data.draw(st.integers(0, 80).filter(lambda other: other != receipt.count))
    elif change == "path" and forged.path:
        place = data.draw(st.integers(0, len(forged.path) - 1))
        forged.path[place] = bytes([forged.path[place][0] ^ 1]) + forged.path[place][1:]
    elif change == "longer":
        forged.path.append(bytes(32))
    elif change == "signature":
        forged.root_signature = OTHER.sign(bytes(32))
    else:
        forged.body = body(999).encode()
    with pytest.raises(PeerFault):
        verify_receipt(forged, HOST.public_key, sim_verify, SALT)


@given(st.data())
def test_the_fast_reader_reads_what_the_careful_one_does(data: st.DataObject) -> None:
    encoded = bytearray(body(1, executor=data.draw(st.text(max_size=5))).encode())
    for place in data.draw(st.lists(st.integers(0, len(encoded) - 1), max_size=3)):
        encoded[place] = data.draw(st.integers(0, 255))
    changed = bytes(encoded)[: data.draw(st.sampled_from([len(encoded), len(encoded) - 1, 3]))] + data.draw(
        st.sampled_from([b"", b"x"])
    )
    try:
        careful: object = decode_body("receipt", changed, ReceiptBody._read)
    except PeerFault as fault:
        careful = fault.message
    try:
        fast: object = ReceiptBody.decode(changed)
    except PeerFault as fault:
        fast = fault.message
    assert fast == careful


def test_a_proof_leaves_nothing_of_what_the_receipt_claimed() -> None:
    receipt = jobs_pb2.Receipt(body=b"b", path=[b"forged"], root_signature=b"forged", index=3, count=9)
    receipt.facts.price_micro = 10**9
    (proof,) = proofs_of([b"b"], b"signature", [[b"p"]])
    proof.tell(receipt)
    assert receipt == jobs_pb2.Receipt(body=b"b", path=[b"p"], root_signature=b"signature", count=1)


def test_a_receipt_of_another_key_or_mesh_is_refused() -> None:
    (receipt,) = sign_receipts([body(1).encode()], HOST, SALT)
    for key, salt in ((OTHER.public_key, SALT), (HOST.public_key, b"t" * 16)):
        with pytest.raises(PeerFault, match="signature"):
            verify_receipt(receipt, key, sim_verify, salt)


def test_the_facts_say_what_was_used_and_the_orders_size_stands_for_what_was_not_counted() -> None:
    facts = body(1).facts()
    assert (facts.cpu_ms, facts.memory_peak_bytes, facts.output_bytes) == (2.1, 5 << 20, 3)
    assert facts.compute_tokens_m == 12 / 1e6
    assert body(1, used_tokens=34).facts().compute_tokens_m == 34 / 1e6


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=7, max_size=7),
    st.text(max_size=30),
    st.sampled_from(["completed", "failed"]),
)
def test_a_body_survives_its_encoding_and_no_other_bytes_do(counts: list[int], executor: str, status: str) -> None:
    names = "size_tokens", "latency_us", "price_micro", "cpu_us", "memory_peak_bytes", "output_bytes", "used_tokens"
    made = body(1, executor=executor, status=status, **dict(zip(names, counts, strict=True)))
    encoded = made.encode()
    assert ReceiptBody.decode(encoded) == made
    for damaged in (encoded[:-1], encoded + b"\0", b"\1" + encoded[1:]):
        with pytest.raises(PeerFault):
            ReceiptBody.decode(damaged)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_decoders_stumble(data: bytes) -> None:
    for decode in (ReceiptBody.decode, JobOrder.decode):
        with pytest.raises(PeerFault):
            decode(data)


@given(st.data())
def test_orders_and_receipts_survive_their_encoding_and_no_other_bytes_do(data: st.DataObject) -> None:
    text = st.text(max_size=30)
    order = JobOrder(
        CORE.node_id,
        data.draw(text),
        data.draw(st.integers(0, 2**32 - 1)),
        data.draw(text),
        data.draw(text),
        data.draw(st.integers(0, 2**64 - 1)),
        data.draw(st.integers(0, 2**64 - 1)),
        data.draw(st.binary(min_size=32, max_size=32)),
        data.draw(st.integers(0, 2**32 - 1)),
    )
    encoded = order.encode()
    assert JobOrder.decode(encoded) == order
    for damaged in (encoded[:-1], encoded + b"\0"):
        with pytest.raises(PeerFault):
            JobOrder.decode(damaged)
