"""Receipts: what a host signs for work done, many at once under one signature.

The receipts of one batch are the leaves of a Merkle tree (RFC 9162, section 2.1: an odd node moves up, it is never
doubled); the host signs the root and the leaf count. A receipt with its path stands alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.signing import BodyReader, BodyWriter, decode_body, digest_of

LEAF_KIND, NODE_KIND, ROOT_KIND = b"og.receipt.v1", b"og.merkle.v1", b"og.receipts.v1"
VERSION = 1
LEAVES_MAX = 1 << 20
COMPLETED, FAILED = "completed", "failed"
_STATUS = {COMPLETED: 1, FAILED: 2}
_STATUS_NAMES = {code: name for name, code in _STATUS.items()}


@dataclass(frozen=True, slots=True)
class ReceiptBody:
    """What a host vouches for. `latency_us` is the execution's own time; `price_micro` is what the award said."""

    node: str
    core: str
    job_id: str
    attempt: int
    payload_digest: bytes
    result_digest: bytes
    status: str
    size_tokens: int
    latency_us: int
    price_micro: int
    executor: str

    def encode(self) -> bytes:
        writer = BodyWriter().uint(VERSION, 1).fixed(node_id_bytes(self.node), 20)
        writer.fixed(node_id_bytes(self.core), 20).text(self.job_id).uint(self.attempt, 4)
        writer.fixed(self.payload_digest, 32).fixed(self.result_digest, 32).uint(_STATUS[self.status], 1)
        writer.uint(self.size_tokens, 8).uint(self.latency_us, 8).uint(self.price_micro, 8).text(self.executor)
        return writer.done()

    @classmethod
    def decode(cls, body: bytes) -> ReceiptBody:
        """Raises PeerFault for anything that `encode` would not have written."""
        return decode_body("receipt", body, cls._read, cls.encode)

    @classmethod
    def _read(cls, reader: BodyReader) -> ReceiptBody:
        if (version := reader.uint(1)) != VERSION:
            raise ValueError(f"version {version}, only {VERSION} is known")
        node, core, job_id, attempt = base32(reader.fixed(20)), base32(reader.fixed(20)), reader.text(), reader.uint(4)
        payload, result, status = reader.fixed(32), reader.fixed(32), reader.uint(1)
        if status not in _STATUS_NAMES:
            raise ValueError(f"status {status} is not known")
        tokens, latency, price = reader.uint(8), reader.uint(8), reader.uint(8)
        return cls(
            node,
            core,
            job_id,
            attempt,
            payload,
            result,
            _STATUS_NAMES[status],
            tokens,
            latency,
            price,
            reader.text(),
        )

    def facts(self) -> jobs_pb2.ReceiptFacts:
        """The same, for people."""
        return jobs_pb2.ReceiptFacts(
            node_id=self.node,
            job_id=self.job_id,
            attempt=self.attempt,
            core_id=self.core,
            result_digest=self.result_digest,
            compute_tokens_m=self.size_tokens / 1e6,
            latency_ms=self.latency_us / 1e3,
            price_micro=self.price_micro,
            executor=self.executor,
            status=self.status,
        )


def result_digest(exit_code: int, output: bytes) -> bytes:
    """BLAKE2b-256 over exit code and output: what redundant executions are compared by."""
    head = exit_code.to_bytes(4, "big", signed=True)
    return hashlib.blake2b(head + output, digest_size=32, person=b"og.result.v1").digest()


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.blake2b(left + right, digest_size=32, person=NODE_KIND).digest()


def _root_digest(salt: bytes, count: int, root: bytes) -> bytes:
    return digest_of(ROOT_KIND, salt, count.to_bytes(4, "big") + root)


def sign_receipts(bodies: Sequence[bytes], signer: Signer, salt: bytes) -> list[jobs_pb2.Receipt]:
    """Receipts for all bodies under one signature, in their order."""
    level = [digest_of(LEAF_KIND, salt, body) for body in bodies]
    paths: list[list[bytes]] = [[] for _ in bodies]
    places = list(range(len(bodies)))
    while len(level) > 1:
        for leaf, place in enumerate(places):
            sibling = place ^ 1
            if sibling < len(level):
                paths[leaf].append(level[sibling])
            places[leaf] = place >> 1
        pairs = range(0, len(level), 2)
        level = [_join(level[i], level[i + 1]) if i + 1 < len(level) else level[i] for i in pairs]
    signature = signer.sign(_root_digest(salt, len(bodies), level[0])) if bodies else b""
    return [
        jobs_pb2.Receipt(body=body, index=index, path=paths[index], root_signature=signature, count=len(bodies))
        for index, body in enumerate(bodies)
    ]


def verify_receipt(receipt: jobs_pb2.Receipt, public_key: bytes, verify: Verifier, salt: bytes) -> ReceiptBody:
    """The body, if the receipt was signed by `public_key` in this mesh; raises PeerFault otherwise."""
    body = ReceiptBody.decode(receipt.body)
    if not 0 <= receipt.index < receipt.count <= LEAVES_MAX:
        raise PeerFault(f"receipt {body.job_id}: leaf {receipt.index} of {receipt.count}", reason="MalformedReceipt")
    node, place, last, path = digest_of(LEAF_KIND, salt, receipt.body), receipt.index, receipt.count - 1, receipt.path
    used = 0
    while last:
        if place & 1 or place < last:
            if used == len(path):
                raise PeerFault(f"receipt {body.job_id}: its path is too short", reason="MalformedReceipt")
            node = _join(path[used], node) if place & 1 else _join(node, path[used])
            used += 1
        place, last = place >> 1, last >> 1
    if used != len(path):
        raise PeerFault(f"receipt {body.job_id}: its path is too long", reason="MalformedReceipt")
    if not verify(public_key, _root_digest(salt, receipt.count, node), receipt.root_signature):
        raise PeerFault(f"receipt {body.job_id}: the signature is not {body.node}'s", reason="BadSignature")
    return body
