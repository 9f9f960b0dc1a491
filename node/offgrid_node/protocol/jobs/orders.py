"""The job order: what a core signs so that broker and host may act on it.

The core numbers a job's attempts and that number is the fence: a result for a lower one is worth nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from offgrid.v1 import common_pb2
from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.signing import BodyReader, BodyWriter, decode_body, digest_of

ORDER_KIND = b"og.order.v1"
VERSION = 1
DIGEST_BYTES = 32

JOB_ID_BYTES_MAX = 128  # a job id is its core's own choice and stands in the keys of others' rows

AttemptKey = tuple[str, int]  # (job id, attempt): names an attempt at its own core
ClaimKey = tuple[str, str, int]  # (core, job id, attempt): names it everywhere else, for a job id is its core's choice


def row_key(key: ClaimKey) -> bytes:
    """Core, job id and attempt, so that a job's attempts stand together."""
    return f"{key[0]}/{key[1]}/".encode() + key[2].to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class JobOrder:
    """One attempt of one job. Times in milliseconds, sizes in bytes and tokens."""

    core: str
    job_id: str
    attempt: int
    kind: str
    needs: str
    size_tokens: int
    payload_bytes: int
    payload_digest: bytes
    timeout_ms: int

    @property
    def key(self) -> ClaimKey:
        return self.core, self.job_id, self.attempt

    def encode(self) -> bytes:
        writer = BodyWriter().uint(VERSION, 1).fixed(node_id_bytes(self.core), 20).text(self.job_id)
        writer.uint(self.attempt, 4).text(self.kind).text(self.needs).uint(self.size_tokens, 8)
        writer.uint(self.payload_bytes, 8).fixed(self.payload_digest, DIGEST_BYTES).uint(self.timeout_ms, 4)
        return writer.done()

    @classmethod
    def decode(cls, body: bytes) -> JobOrder:
        """Raises PeerFault for anything that `encode` would not have written."""
        return decode_body("job order", body, cls._read, cls.encode)

    @classmethod
    def _read(cls, reader: BodyReader) -> JobOrder:
        if (version := reader.uint(1)) != VERSION:
            raise ValueError(f"version {version}, only {VERSION} is known")
        core, job_id = base32(reader.fixed(20)), reader.text()
        if len(job_id.encode()) > JOB_ID_BYTES_MAX:
            raise ValueError(f"a job id of more than {JOB_ID_BYTES_MAX} bytes")
        return cls(
            core,
            job_id,
            reader.uint(4),
            reader.text(),
            reader.text(),
            reader.uint(8),
            reader.uint(8),
            reader.fixed(DIGEST_BYTES),
            reader.uint(4),
        )


def sign_order(order: JobOrder, signer: Signer, salt: bytes) -> common_pb2.Signed:
    body = order.encode()
    return common_pb2.Signed(body=body, signature=signer.sign(digest_of(ORDER_KIND, salt, body)))


def payload_digest(payload: bytes) -> bytes:
    """What an order says of its payload: BLAKE2b-256 over the bytes as they are carried."""
    return hashlib.blake2b(payload, digest_size=DIGEST_BYTES, person=b"og.payload.v1").digest()
