"""The job order: what a core signs so that broker and host may act on it.

The core numbers a job's attempts and that number is the fence: a result for a lower one is worth nothing.
"""

from __future__ import annotations

import hashlib
import struct
from struct import Struct
from typing import NamedTuple

from offgrid_node.protocol.ids import NODE_ID_BYTES, node_id_bytes, node_id_from
from offgrid_node.protocol.jobs.batch import BatchKind
from offgrid_node.protocol.signing import BODY_BYTES_MAX, BodyReader, check_version, decode_body

ORDERS = BatchKind(b"og.order.v2", b"og.orders.v2")
VERSION = 2
DIGEST_BYTES = 32
_HEAD, _LENGTH, _ATTEMPT, _TAIL = Struct(">B20sH"), Struct(">H"), Struct(">IH"), Struct(">QQ32sIbQBH")
_NODE = Struct(">20s")
_PRIORITY_AT = 52  # in the tail

JOB_ID_BYTES_MAX = 128  # a job id is its core's own choice and stands in the keys of others' rows

AttemptKey = tuple[str, int]  # (job id, attempt): names an attempt at its own core
ClaimKey = tuple[str, str, int]  # (core, job id, attempt): names it everywhere else, for a job id is its core's choice


def row_key(key: ClaimKey) -> bytes:
    """Core, job id and attempt, so that a job's attempts stand together."""
    return f"{key[0]}/{key[1]}/".encode() + key[2].to_bytes(4, "big")


def key_of_row(row_key: bytes) -> ClaimKey:
    """What `row_key` was made of."""
    core, _, job_id = row_key[:-5].decode().partition("/")
    return core, job_id, int.from_bytes(row_key[-4:], "big")


class JobOrder(NamedTuple):
    """One attempt of one job. Times in milliseconds, sizes in bytes and tokens. `requirements` is an expression that a
    host must satisfy, `avoid` names nodes that must not get it; a higher `priority` is cleared first, of what waits;
    `price_max_micro` is the most that is paid per million tokens, 0 what the core's config says."""

    core: str
    job_id: str
    attempt: int
    kind: str
    needs: str
    size_tokens: int
    payload_bytes: int
    payload_digest: bytes
    timeout_ms: int
    priority: int = 0
    price_max_micro: int = 0
    requirements: str = ""
    avoid: tuple[str, ...] = ()

    @property
    def key(self) -> ClaimKey:
        return self[:3]

    def encode(self) -> bytes:
        job_id, kind, needs = self.job_id.encode(), self.kind.encode(), self.needs.encode()
        requirements = self.requirements.encode()
        if len(self.payload_digest) != DIGEST_BYTES:
            raise ValueError(f"a payload digest has {DIGEST_BYTES} bytes, not {len(self.payload_digest)}")
        return b"".join(
            (
                _HEAD.pack(VERSION, node_id_bytes(self.core), len(job_id)),
                job_id,
                _ATTEMPT.pack(self.attempt, len(kind)),
                kind,
                _LENGTH.pack(len(needs)),
                needs,
                _TAIL.pack(
                    self.size_tokens,
                    self.payload_bytes,
                    self.payload_digest,
                    self.timeout_ms,
                    self.priority,
                    self.price_max_micro,
                    len(self.avoid),
                    len(requirements),
                ),
                requirements,
                *map(node_id_bytes, self.avoid),
            )
        )

    @classmethod
    def decode(cls, body: bytes) -> JobOrder:
        """Raises PeerFault for anything that `encode` would not have written."""
        try:
            order = cls._read_at_once(body)
        except (ValueError, struct.error):
            order = None
        return order or decode_body("job order", body, cls._read)

    @classmethod
    def _read_at_once(cls, body: bytes) -> JobOrder | None:
        """What `_read` reads, in a third of the time: brokers decode every order, and at a start all that wait. None,
        or an error of Python's own, where it does not look as it should: then `_read` says what is wrong."""
        version, core, length = _HEAD.unpack_from(body)
        start, at = _HEAD.size, _HEAD.size + length
        job_id = body[start:at].decode()
        attempt, kind_length = _ATTEMPT.unpack_from(body, at)
        start, at = at + _ATTEMPT.size, at + _ATTEMPT.size + kind_length
        kind = body[start:at].decode()
        [needs_length] = _LENGTH.unpack_from(body, at)
        start, at = at + _LENGTH.size, at + _LENGTH.size + needs_length
        needs = body[start:at].decode()
        *plain, avoided, required_length = _TAIL.unpack_from(body, at)
        start, at = at + _TAIL.size, at + _TAIL.size + required_length
        if version != VERSION or length > JOB_ID_BYTES_MAX or at + avoided * NODE_ID_BYTES != len(body):
            return None
        if len(body) > BODY_BYTES_MAX:
            return None
        avoid = tuple(node_id_from(body[at + n * NODE_ID_BYTES :][:NODE_ID_BYTES]) for n in range(avoided))
        requirements = body[start:at].decode()
        return cls._make((node_id_from(core), job_id, attempt, kind, needs, *plain, requirements, avoid))

    @classmethod
    def _read(cls, reader: BodyReader) -> JobOrder:
        version, core, length = reader.unpack(_HEAD)
        check_version(version, VERSION)
        if length > JOB_ID_BYTES_MAX:
            raise ValueError(f"a job id of more than {JOB_ID_BYTES_MAX} bytes")
        job_id = reader.fixed(length).decode()
        attempt, length = reader.unpack(_ATTEMPT)
        kind, needs = reader.fixed(length).decode(), reader.text()
        *plain, avoided, length = reader.unpack(_TAIL)
        requirements = reader.fixed(length).decode()
        avoid = tuple(node_id_from(reader.unpack(_NODE)[0]) for _ in range(avoided))
        return cls._make((node_id_from(core), job_id, attempt, kind, needs, *plain, requirements, avoid))


def alike_and_priority(body: bytes) -> tuple[bytes, int]:
    """Of an encoded order, without reading the rest of it: bytes that are the same for all orders of its core that
    name the same kind, need, requirements, price and nodes to avoid; and its priority."""
    start = _HEAD.size + (body[21] << 8 | body[22]) + 4  # behind version, core, job id and attempt
    at = start + 2 + (body[start] << 8 | body[start + 1])
    at += 2 + (body[at] << 8 | body[at + 1]) + _PRIORITY_AT
    priority = body[at]
    return body[1:21] + body[start : at - _PRIORITY_AT] + body[at + 1 :], priority - 256 if priority > 127 else priority


def payload_digest(payload: bytes) -> bytes:
    """What an order says of its payload: BLAKE2b-256 over the bytes as they are carried."""
    return hashlib.blake2b(payload, digest_size=DIGEST_BYTES, person=b"og.payload.v1").digest()
