"""The plain loop beside which payments are measured: it is a fair peer only while it checks what ours checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_tools.bench import ledger_plain as plain
from offgrid_tools.bench.ledger_plain import CERTIFICATE, CONFIRM, ORDER, OWNER, QUORUM, VOTE, Witness

BODY, OTHER = bytes(plain.ORDER_BYTES), bytes(range(plain.ORDER_BYTES))


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(0, tmp_path / "locks")


def order(body: bytes = BODY, *, signer: int = OWNER) -> bytes:
    signature = plain.key_of(signer).sign(plain.digest_of(ORDER, body)).signature
    return plain._ORDER.pack(ORDER, 1, body, signature)


def certificate(voters: tuple[int, ...], *, kind: int = VOTE) -> bytes:
    digest = plain.digest_of(ORDER, BODY)
    votes = [plain.key_of(voter).sign(plain.digest_of(kind, digest)).signature for voter in voters]
    return plain._CERTIFICATE.pack(CERTIFICATE, 1, digest, *voters, *votes)


def test_a_witness_votes_for_one_order_of_a_slot_and_keeps_it_first(witness: Witness, tmp_path: Path) -> None:
    vote = witness._on_order(order())
    assert vote is not None
    assert vote[0] == VOTE
    assert (tmp_path / "locks").read_bytes() == order()
    assert witness._on_order(order()) == vote, "the same again is no second order"
    assert witness._on_order(order(OTHER)) is None


def test_an_order_is_its_owners(witness: Witness) -> None:
    assert witness._on_order(order(signer=1)) is None


def test_a_quorums_votes_are_confirmed_and_nothing_less(witness: Witness) -> None:
    confirm = witness._on_certificate(certificate(tuple(range(QUORUM))))
    assert confirm is not None
    assert confirm[0] == CONFIRM
    assert witness._on_certificate(certificate((0,) * QUORUM)) is None, "one witness, three times"
    assert witness._on_certificate(certificate(tuple(range(QUORUM)), kind=CONFIRM)) is None, "signatures of other words"
