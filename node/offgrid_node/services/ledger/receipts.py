"""Light receipts: this node's signature for what is final here, where it witnesses, and those of others gathered. The
witnesses of now sign, whenever it became final.

Witnesses are asked, the heaviest first, as many at once as are still needed; whoever does not answer, or not rightly,
is followed by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import FailedPrecondition, Fault, NotFound, Unavailable
from offgrid_node.protocol.ids import node_id_bytes, unbase32
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.receipts import Final, least
from offgrid_node.protocol.ledger.records import Tx, tx_id_of
from offgrid_node.protocol.ledger.tables import TXS
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.quorum.enough import decimal
from offgrid_node.protocol.signing import signed_by
from offgrid_node.services.flow import Flow, Step, together
from offgrid_node.storage.store import Store

SIGN_FINAL = "offgrid.v1.LedgerService/SignFinal"
ASK_TIMEOUT_MS = 5_000  # a person waits for it

Done = Callable[[Message | Fault], None]


class Calls(Protocol):
    """`services.client`."""

    def request(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None: ...


class Receipts:
    """Nothing of it changes anything: what a witness says here binds it to nothing that final rows do not."""

    def __init__(
        self,
        store: Store,
        signer: Signer,
        directory: Callable[[], Directory],
        committee: Callable[[], Committee],
        epoch: Callable[[], int],
        ledger: Callable[[], bytes],
        verify: Verifier,
        calls: Calls,
    ) -> None:
        self._store, self._signer, self._directory = store, signer, directory
        self._committee, self._epoch, self._ledger = committee, epoch, ledger
        self._verify, self._calls = verify, calls

    def sign(self, digest: bytes, muted_why: str) -> ledger_pb2.SignFinalResponse:
        """Raises FailedPrecondition (NoWitness, Muted, NotFinal) and NotFound (TransactionNotFound)."""
        if not self._committee().bit_of(node_id_bytes(self._signer.node_id)):
            raise FailedPrecondition(f"this node is no witness of epoch {self._epoch()}", reason="NoWitness")
        if muted_why:
            raise FailedPrecondition(f"this node signs nothing in the ledger: {muted_why}", reason="Muted")
        value = self._store.get(TXS, digest)
        if value is None:
            raise NotFound(f"there is no transaction {tx_id_of(digest)} here", reason="TransactionNotFound")
        row = ledger_pb2.TxRow.FromString(value)
        if row.state != ledger_pb2.TX_STATE_FINAL:
            raise FailedPrecondition(f"transaction {tx_id_of(digest)} is not final here", reason="NotFinal")
        final = self._final(row.signed.body, digest)
        return ledger_pb2.SignFinalResponse(
            epoch=final.epoch, signature=self._signer.sign(final.digest(self._directory().salt))
        )

    def gather(self, tx: ledger_pb2.Transaction) -> Flow[Message]:
        """Raises FailedPrecondition (NotFinal) for one that cannot be final, Unavailable (TooFewWitnesses) where those
        who answer weigh too little."""
        if tx.state in (ledger_pb2.TX_STATE_QUEUED, ledger_pb2.TX_STATE_VOID):
            raise FailedPrecondition(
                f"transaction {tx.tx_id} is not signed, or void: it is not final", reason="NotFinal"
            )
        digest = unbase32(tx.tx_id)
        final, committee = self._final(tx.signed.body, digest), self._committee()
        left = sorted(committee.nodes_of(committee.all), key=lambda node: -committee.weight_of(node))
        signed, refused = dict[int, bytes](), list[str]()
        while (receipt := least(committee, signed, final.epoch)) is None:
            wave = _needed(left, committee, sum(signed))
            if not wave:
                raise self._too_few(committee, sum(signed), refused)
            del left[: len(wave)]
            answers: Sequence[Message | Fault] = yield together([self._ask(node, digest) for node in wave])
            for node, answer in zip(wave, answers, strict=True):
                wrong = self._wrong(node, answer, final)
                if wrong:
                    refused.append(f"{self._name(node)}: {wrong}")
                else:
                    assert isinstance(answer, ledger_pb2.SignFinalResponse)
                    signed[committee.bit_of(node_id_bytes(node))] = answer.signature
        return ledger_pb2.GetReceiptResponse(
            receipt=receipt.encode(),
            text=receipt.text,
            tx_id=tx.tx_id,
            witnesses=[
                ledger_pb2.Witness(node_id=node, name=self._name(node), weight_milli=committee.weight_of(node))
                for node in committee.nodes_of(receipt.witnesses)
            ],
        )

    # ---- inside

    def _final(self, body: bytes, digest: bytes) -> Final:
        tx = Tx.decode(body)
        return Final(self._ledger(), tx.src, tx.seq, digest, self._epoch())

    def _ask(self, node: str, digest: bytes) -> Step[Message]:
        request = ledger_pb2.SignFinalRequest(tx_digest=digest)
        return lambda done: self._calls.request(node, SIGN_FINAL, request, ASK_TIMEOUT_MS, done)

    def _wrong(self, node: str, answer: Message | Fault, final: Final) -> str:
        """Why this answer does not count; empty when it does."""
        if isinstance(answer, Fault):
            return answer.message
        assert isinstance(answer, ledger_pb2.SignFinalResponse)
        directory = self._directory()
        if answer.epoch != final.epoch:
            return f"it is at epoch {answer.epoch}, not {final.epoch}"
        if not signed_by(directory.keys(node), final.digest(directory.salt), answer.signature, self._verify):
            return "its signature is not its own, or for something else"
        return ""

    def _too_few(self, committee: Committee, mask: int, refused: Sequence[str]) -> Unavailable:
        weight, needed = decimal(committee.weight(mask)), decimal(committee.honest_milli)
        return Unavailable(
            f"witnesses that weigh {weight} of {needed} hold it final and say so; {'; '.join(refused[:8])}",
            reason="TooFewWitnesses",
        )

    def _name(self, node: str) -> str:
        record = self._directory().member(node)
        return record.name if record else node


def _needed(left: Sequence[str], committee: Committee, mask: int) -> list[str]:
    """The first of these that would be enough, or all of them."""
    wave: list[str] = []
    for node in left:
        if committee.one_is_honest(mask):
            break
        mask |= committee.bit_of(node_id_bytes(node))
        wave.append(node)
    return wave
