"""Receipts: what a host signs for work done, many at once under one signature.

The receipts of one batch are the leaves of a Merkle tree (`protocol/merkle.py`); the host signs the root and the leaf
count. A receipt with its path stands alone.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import node_id_bytes, node_id_from
from offgrid_node.protocol.jobs.batch import BatchKind
from offgrid_node.protocol.merkle import PathError, root_by_path, tree_of
from offgrid_node.protocol.signing import BODY_BYTES_MAX, BodyReader, check_version, decode_body

RECEIPTS = BatchKind(b"og.receipt.v1", b"og.receipts.v1")
VERSION = 2
DIGEST_BYTES = 32
_HEAD, _TAIL = Struct(">B20s20sH"), Struct(">I32s32sBQQQQQQQH")
COMPLETED, FAILED = "completed", "failed"
_STATUS = {COMPLETED: 1, FAILED: 2}
_STATUS_NAMES = {code: name for name, code in _STATUS.items()}


class ReceiptBody(NamedTuple):
    """What a host vouches for. `latency_us` is the execution's own time; `price_micro` is what the award said.

    Of what it used, 0 is what was not measured; `used_tokens` is what the work itself counted (a language model's
    tokens, a module's fuel), and where it counted nothing the order's `size_tokens` stand for it.
    """

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
    cpu_us: int = 0
    memory_peak_bytes: int = 0
    output_bytes: int = 0
    used_tokens: int = 0

    def encode(self) -> bytes:
        job_id, executor = self.job_id.encode(), self.executor.encode()
        if {len(self.payload_digest), len(self.result_digest)} != {DIGEST_BYTES}:
            raise ValueError(f"digests have {DIGEST_BYTES} bytes")
        return b"".join(
            (
                _HEAD.pack(VERSION, node_id_bytes(self.node), node_id_bytes(self.core), len(job_id)),
                job_id,
                _TAIL.pack(
                    self.attempt,
                    self.payload_digest,
                    self.result_digest,
                    _STATUS[self.status],
                    self.size_tokens,
                    self.latency_us,
                    self.price_micro,
                    self.cpu_us,
                    self.memory_peak_bytes,
                    self.output_bytes,
                    self.used_tokens,
                    len(executor),
                ),
                executor,
            )
        )

    @classmethod
    def decode(cls, body: bytes) -> ReceiptBody:
        """Raises PeerFault for anything that `encode` would not have written."""
        try:
            receipt = cls._read_at_once(body)
        except (ValueError, struct.error):
            receipt = None
        return receipt or decode_body("receipt", body, cls._read)

    @classmethod
    def _read_at_once(cls, body: bytes) -> ReceiptBody | None:
        """What `_read` reads, in half of the time: cores decode one for every job. None, or an error of Python's own,
        where it does not look as it should: then `_read` says what is wrong."""
        version, node, core, length = _HEAD.unpack_from(body)
        at = _HEAD.size + length
        job_id = body[_HEAD.size : at].decode()
        attempt, payload, result, code, tokens, latency, price, *used, length = _TAIL.unpack_from(body, at)
        at += _TAIL.size
        status = _STATUS_NAMES.get(code)
        if version != VERSION or status is None or at + length != len(body) or len(body) > BODY_BYTES_MAX:
            return None
        work = attempt, payload, result, status, tokens, latency, price, body[at:].decode()
        return cls._make((node_id_from(node), node_id_from(core), job_id, *work, *used))

    @classmethod
    def _read(cls, reader: BodyReader) -> ReceiptBody:
        version, node, core, length = reader.unpack(_HEAD)
        check_version(version, VERSION)
        job_id = reader.fixed(length).decode()
        attempt, payload, result, status, tokens, latency, price, *used, length = reader.unpack(_TAIL)
        if status not in _STATUS_NAMES:
            raise ValueError(f"status {status} is not known")
        executor = reader.fixed(length).decode()
        work = job_id, attempt, payload, result, _STATUS_NAMES[status], tokens, latency, price, executor
        return cls(node_id_from(node), node_id_from(core), *work, *used)

    def facts(self) -> jobs_pb2.ReceiptFacts:
        """The same, for people."""
        facts = jobs_pb2.ReceiptFacts()
        self.tell(facts)
        return facts

    def tell(self, facts: jobs_pb2.ReceiptFacts) -> None:
        """Fills in the same, where it is to stand: made apart and copied it costs twice as much."""
        facts.node_id, facts.core_id, facts.job_id, facts.attempt = self.node, self.core, self.job_id, self.attempt
        facts.result_digest, facts.status, facts.executor = self.result_digest, self.status, self.executor
        facts.compute_tokens_m = (self.used_tokens or self.size_tokens) / 1e6
        facts.latency_ms, facts.price_micro = self.latency_us / 1e3, self.price_micro
        if self.cpu_us or self.memory_peak_bytes or self.output_bytes:
            facts.cpu_ms, facts.memory_peak_bytes = self.cpu_us / 1e3, self.memory_peak_bytes
            facts.output_bytes = self.output_bytes


def result_digest(exit_code: int, output: bytes) -> bytes:
    """BLAKE2b-256 over exit code and output: what redundant executions are compared by."""
    head = exit_code.to_bytes(4, "big", signed=True)
    return hashlib.blake2b(head + output, digest_size=32, person=b"og.result.v1").digest()


def digest_with_files(digest: bytes, files_digest: bytes) -> bytes:
    """That of a result with files: over the digest of exit code and output, and that of the archive; of one without
    (`files_digest` is empty) it stays what it is."""
    if not files_digest:
        return digest
    return hashlib.blake2b(digest + files_digest, digest_size=32, person=b"og.resultfiles1").digest()


def sign_receipts(bodies: Sequence[bytes], signer: Signer, salt: bytes) -> list[jobs_pb2.Receipt]:
    """Receipts for all bodies under one signature, in their order, each of which stands alone."""
    if not bodies:
        return []
    _, paths = tree_of([RECEIPTS.leaf_digest(salt, body) for body in bodies])
    receipts = [jobs_pb2.Receipt() for _ in bodies]
    for proof, receipt in zip(proofs_of(bodies, RECEIPTS.sign(bodies, signer, salt), paths), receipts, strict=True):
        proof.tell(receipt)
    return receipts


class Proof(NamedTuple):
    """A body with what makes it stand alone."""

    body: bytes
    place: int
    path: Sequence[bytes]
    root_signature: bytes
    leaves: int

    def tell(self, receipt: jobs_pb2.Receipt) -> None:
        """Makes it say this, and nothing else: where it is to stand, for a message of its own would be copied there."""
        receipt.Clear()
        receipt.body, receipt.index, receipt.count = self.body, self.place, self.leaves
        receipt.root_signature = self.root_signature
        receipt.path.extend(self.path)


def proofs_of(bodies: Sequence[bytes], signature: bytes, paths: Sequence[Sequence[bytes]]) -> list[Proof]:
    """Of all the bodies under one signature, in their order."""
    count, places = len(bodies), enumerate(zip(bodies, paths, strict=True))
    return [Proof(body, index, path, signature, count) for index, (body, path) in places]


def verify_receipt(receipt: jobs_pb2.Receipt, public_key: bytes, verify: Verifier, salt: bytes) -> ReceiptBody:
    """The body, if the receipt was signed by `public_key` in this mesh; raises PeerFault otherwise."""
    body = ReceiptBody.decode(receipt.body)
    leaf = RECEIPTS.leaf_digest(salt, receipt.body)
    try:
        root = root_by_path(leaf, receipt.index, receipt.count, receipt.path)
    except PathError as error:
        raise PeerFault(f"receipt {body.job_id}: {error}", reason="MalformedReceipt") from error
    if not verify(public_key, RECEIPTS.root_digest(salt, receipt.count, root), receipt.root_signature):
        raise PeerFault(f"receipt {body.job_id}: the signature is not {body.node}'s", reason="BadSignature")
    return body
