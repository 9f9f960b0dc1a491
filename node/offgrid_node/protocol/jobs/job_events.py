"""A job's events, made of the bytes of its row: what is written twice is put together once.

A message within another is its bytes behind its field's number and their length (protobuf's encoding, LEN), so the
journal's bytes are the row's with a head in front, and the same that the event would serialise to.
"""

from __future__ import annotations

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.etypes import EventType


class JobEvents:
    """All of one step have the same time, and those of one type the same head."""

    def __init__(self) -> None:
        self._heads: dict[EventType, bytes] = {}
        self._at_us = 0

    def of(self, etype: EventType, job_id: str, job: jobs_pb2.Job, row: bytes, now: Now) -> Record:
        """That `etype` has happened to the job, which `row` is the bytes of."""
        if now.utc_us != self._at_us:
            self._heads, self._at_us = {}, now.utc_us
        head = self._heads.get(etype)
        if head is None:
            event = state_pb2.Event(etype=etype, type=etype.name, timestamp_us=now.utc_us)
            head = self._heads[etype] = event.SerializeToString()
        subject = job_id.encode()
        encoded = b"".join((head, _SUBJECT, varint(len(subject)), subject, _JOB, varint(len(row)), row))
        return Record.of_job(etype, job_id, job, encoded)


def with_payload(row: bytes, payload: bytes) -> bytes:
    """The row with a small payload in it."""
    return b"".join((row, _KEPT_PAYLOAD, varint(len(payload)), payload))


def varint(number: int) -> bytes:
    """Seven bits in each byte, the lowest first; all but the last byte have their highest bit set."""
    if number < 0x80:
        return _BYTES[number]
    if number < 0x4000:
        return _BYTES[number & 0x7F | 0x80] + _BYTES[number >> 7]
    return _BYTES[number & 0x7F | 0x80] + varint(number >> 7)


_BYTES = [bytes((number,)) for number in range(256)]
_SUBJECT, _JOB, _KEPT_PAYLOAD = (
    varint(number << 3 | 2)
    for number in (
        state_pb2.Event.SUBJECT_FIELD_NUMBER,
        state_pb2.Event.JOB_FIELD_NUMBER,
        jobs_pb2.Job.KEPT_PAYLOAD_FIELD_NUMBER,
    )
)
