"""Audits: what one costs on the wire and at a host, and whether each of a thousand wrong bytes is caught, by the sums
of a real coder over real shards.

Bytes are those of lanes on the framed carrier: questions and answers, what lanes put around them, the frame's length,
and what TLS 1.3 adds to a record. They are the same on every machine.
"""

from __future__ import annotations

import os
import time
from random import Random

from google.protobuf.message import Message

from offgrid.frames import frame
from offgrid.v1 import lane_pb2, objects_pb2
from offgrid_node.coding.choice import choose
from offgrid_node.coding.coder import Coder
from offgrid_node.protocol.objects.audit import ANSWER_BYTES, NAME_BYTES, NONCE_BYTES, answer_of, encode_answers, judge
from offgrid_node.protocol.objects.audits import TOGETHER_MAX
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_tools.bench.figures import Figure

MB = 1_000_000
NEEDED, TOTAL, HOSTS = 12, 20, 10
TLS_RECORD_BYTES = 22  # RFC 8446, 5.2: head, type and tag
DAMAGES = 1_000
PER_NONCE = 50  # damages that are looked for with the same one
SHARD_BYTES = 20_000
READ_BYTES, READ_BYTES_QUICK = 16 * MB, 2 * MB
METHOD = METHOD_NUMBERS["offgrid.v1.ObjectService/AuditReplicas"]


def measure_audits(rounds: int, read_bytes: int) -> list[Figure]:
    """Processor time is the least of all rounds."""
    coder = choose().coder
    caught, named = damages_caught(coder, DAMAGES, seed=1)
    took_s = min(_summing_s(coder, read_bytes) for _ in range(rounds))
    miss = "what is no single byte is missed below 2⁻⁴⁴"
    return [
        Figure("audit_bytes_per_object", wire_bytes(TOGETHER_MAX) / TOGETHER_MAX, note=f"{TOGETHER_MAX} together"),
        Figure("audit_bytes_alone", wire_bytes(1), note="20 shards on 10 hosts"),
        Figure("audit_damages_caught", caught, note=f"single bytes of {DAMAGES}, and {named} shards named; {miss}"),
        Figure("audit_cpu_ms_per_mb", 1_000 * took_s * MB / read_bytes, note=coder.name),
    ]


def wire_bytes(objects: int) -> int:
    """For so many objects of 20 shards on ten hosts, two at each."""
    request = objects_pb2.AuditReplicasRequest(question=bytes(NONCE_BYTES + NAME_BYTES * objects))
    sums = encode_answers([dict.fromkeys(range(TOTAL // HOSTS), bytes(ANSWER_BYTES))] * objects, objects)
    number = 1 << 20  # of a lane that has carried many calls before
    call = lane_pb2.LaneCall(number=number, method=METHOD, request=request.SerializeToString())
    response = objects_pb2.AuditReplicasResponse(answers=sums).SerializeToString()
    answer = lane_pb2.LaneAnswer(number=number, response=response)
    messages = lane_pb2.CarryRequest(calls=[call]), lane_pb2.CarryResponse(answers=[answer])
    return HOSTS * sum(map(_on_the_wire, messages))


def _on_the_wire(message: Message) -> int:
    return len(frame(message.SerializeToString())) + TLS_RECORD_BYTES


def damages_caught(coder: Coder, damages: int, seed: int) -> tuple[int, int]:
    """Of so many wrong bytes, each alone: how many were seen, and of how many the very shard was named."""
    rng = Random(seed)  # noqa: S311 - the same damages every time
    shards = coder.encode(NEEDED, TOTAL, [rng.randbytes(SHARD_BYTES) for _ in range(NEEDED)], range(TOTAL))
    seen = named = 0
    for start in range(0, damages, PER_NONCE):
        nonce = rng.randbytes(NONCE_BYTES)
        answers = {shard: _answer(coder, nonce, data) for shard, data in enumerate(shards)}
        for _ in range(min(PER_NONCE, damages - start)):
            victim, place = rng.randrange(TOTAL), rng.randrange(SHARD_BYTES)
            damaged = bytearray(shards[victim])
            damaged[place] ^= rng.randrange(1, 256)
            verdict = judge(NEEDED, TOTAL, {**answers, victim: _answer(coder, nonce, bytes(damaged))})
            seen, named = seen + (not verdict.whole), named + (verdict.wrong == (victim,))
    return seen, named


def _summing_s(coder: Coder, size: int) -> float:
    data = os.urandom(size)
    began = time.process_time()
    _answer(coder, bytes(NONCE_BYTES), data)
    return time.process_time() - began


def _answer(coder: Coder, nonce: bytes, shard: bytes) -> bytes:
    return answer_of(nonce, len(shard), lambda offset, length: shard[offset : offset + length], coder.combine)
