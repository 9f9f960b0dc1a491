"""Light receipts: small, of one form, and believed for what witnesses signed and nothing else."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from signed_ledger import BOTH, LEDGER, TX, WITNESSES, epoch_of, papers_of, receipt_of, shown, written
from signed_receipts import ADMIN, GENESIS, HOST, OTHER, ROOT, follow

from offgrid.v1 import ledger_pb2
from offgrid_node.keys import NodeKey, verify
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.papers import PAPERS_BYTES_MAX, TX_BYTES_MAX, Verdict, check_receipt
from offgrid_node.protocol.ledger.receipts import Final, LightReceipt, least, receipt_of_text
from offgrid_node.protocol.ledger.records import LedgerGenesis
from offgrid_node.protocol.mesh.records import Genesis

PAPERS = written(papers_of())
RECEIPT = receipt_of(HOST, OTHER)


def checked(
    receipt: bytes | LightReceipt = RECEIPT, tx: bytes = shown(), papers: bytes = PAPERS, **wanted: Any
) -> Verdict:
    data = receipt.encode() if isinstance(receipt, LightReceipt) else receipt
    return check_receipt(data, tx, papers, verify, **wanted)


def problem(verdict: Verdict) -> str:
    [found] = verdict.problems
    return f"{found.field}: {found.what}"


# ---- the form


def test_a_receipt_of_four_equal_witnesses_has_two_signatures_and_135_bytes() -> None:
    assert len(receipt_of(*WITNESSES).signatures) == 2
    assert len(RECEIPT.encode()) == 135


def test_one_of_twenty_has_seven_signatures_and_at_most_457_bytes() -> None:
    committee = Committee(tuple((NodeKey(bytes((n,)) * 32).node_id, 1_000) for n in range(20)))
    found = least(committee, {1 << n: bytes(64) for n in range(13, 20)}, 0)
    assert found is not None
    assert len(found.signatures) == 7
    assert len(found.encode()) == 457


def test_the_heaviest_sign_first() -> None:
    committee = Committee(tuple((key.node_id, weight) for key, weight in zip(WITNESSES, (1, 1, 9, 2), strict=True)))
    found = least(committee, {1: b"a" * 64, 2: b"b" * 64, 4: b"c" * 64, 8: b"d" * 64}, 0)
    assert found == LightReceipt(0, 4, (b"c" * 64,))
    assert least(committee, {1: b"a" * 64, 2: b"b" * 64}, 0) is None


def test_its_bytes_and_what_is_signed_are_fixed() -> None:
    final = Final(bytes(range(32, 64)), bytes(range(20)), 0x0102030405060708, bytes(range(32)), 0x0A0B0C0D)
    ledger, tx = bytes(range(32, 64)).hex(), bytes(range(32)).hex()
    body = "01" + ledger + "0a0b0c0d" + bytes(range(20)).hex() + "0102030405060708" + tx
    signed = blake2b(bytes.fromhex(body), digest_size=32, person=b"og.final.v1", salt=bytes(range(16))).hexdigest()
    assert final.digest(bytes(range(16))).hex() == signed
    assert signed == "91b82ea75c433d0a06d372564ccab5e48f25fe39845b7cbf113ed1fd898b95ee"
    receipt = LightReceipt(5, 0b100000010, (b"\x11" * 64, b"\x22" * 64))
    assert receipt.encode().hex() == "0100000005020102" + "11" * 64 + "22" * 64


signatures = st.binary(min_size=64, max_size=64)


@st.composite
def receipts(draw: st.DrawFn) -> LightReceipt:
    witnesses = draw(st.sets(st.integers(0, 63), min_size=1, max_size=30))
    made = tuple(draw(signatures) for _ in witnesses)
    return LightReceipt(draw(st.integers(0, 2**32 - 1)), sum(1 << bit for bit in witnesses), made)


@given(receipts())
def test_a_receipt_survives_the_way_there_and_back_as_bytes_and_as_text(receipt: LightReceipt) -> None:
    assert LightReceipt.decode(receipt.encode()) == receipt
    text = receipt.text
    assert receipt_of_text(text) == receipt
    assert receipt_of_text("\n".join(text[at : at + 40].upper() + " " for at in range(0, len(text), 40))) == receipt


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_fail_otherwise_than_by_a_peer_fault(data: bytes) -> None:
    with suppress(PeerFault):
        assert LightReceipt.decode(data).encode() == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "body ends"),
        ("02000000000101" + "00" * 64, "version 2"),
        ("010000000000", "0 bytes of witnesses"),
        ("010000000009" + "01" * 9, "9 bytes of witnesses"),
        ("01000000000100", "names no witness"),
        ("0100000000020001" + "00" * 64, "canonical"),
        ("01000000000103" + "00" * 64, "body ends"),
        ("01000000000101" + "00" * 65, "left over"),
    ],
)
def test_another_form_is_refused_by_what_is_wrong_with_it(data: str, why: str) -> None:
    assert why in problem(checked(bytes.fromhex(data)))


# ---- what holds


@pytest.mark.parametrize("keys", [(HOST, OTHER), (ADMIN, BOTH), (BOTH, HOST)])
def test_a_receipt_proves_its_transaction(keys: tuple[NodeKey, NodeKey]) -> None:
    verdict = checked(receipt_of(*keys), mesh=GENESIS.mesh_id[:12])
    assert verdict.problems == []
    assert verdict.tx == TX
    assert {weight for _, weight in verdict.said} == {1_000}
    assert len(verdict.said) == 2


def test_as_text_too() -> None:
    assert checked(RECEIPT.text.encode()).valid


def test_by_a_key_of_before_and_by_the_one_that_followed() -> None:
    following = NodeKey(b"2" * 32)
    papers = written(papers_of(changes={HOST.node_id: [follow(HOST, following)]}))
    assert checked(RECEIPT, papers=papers).valid
    final = Final(LEDGER.digest(GENESIS.salt), TX.src, TX.seq, TX.digest(GENESIS.salt))
    digest = final.digest(GENESIS.salt)
    late = LightReceipt(0, 0b11, (following.sign(digest), OTHER.sign(digest)))
    assert checked(late, papers=papers).valid
    assert not checked(late).valid


def test_for_a_transaction_as_it_was_signed_by_hand() -> None:
    file = {"offgrid_transaction": 1, "mesh_id": GENESIS.mesh_id, "body": TX.encode().hex(), "signature": "00" * 64}
    assert checked(tx=json.dumps(file).encode()).valid
    assert "no hexadecimal digits" in problem(checked(tx=json.dumps({**file, "body": "zz"}).encode()))


# ---- what does not


def test_of_one_witness_alone_proves_nothing() -> None:
    assert "weigh 1.0; 1.334 or more are needed" in problem(checked(receipt_of(HOST)))


def test_for_another_transaction_proves_nothing_of_this_one() -> None:
    other = replace(TX, outputs=((TX.outputs[0][0], 2_500_001),))
    assert "is not for this transaction" in checked(tx=shown(other)).problems[0].what
    assert not checked(receipt_of(HOST, OTHER, tx=replace(TX, seq=4))).valid


def test_of_another_mesh_proves_nothing_in_this_one() -> None:
    elsewhere = Genesis("away", ROOT.public_key, 5, bytes(15) + b"x")
    receipt, papers = receipt_of(HOST, OTHER, mesh=elsewhere), written(papers_of(mesh=elsewhere))
    assert not checked(receipt).valid
    assert checked(receipt, papers=papers).valid
    assert "is another mesh than" in problem(checked(receipt, papers=papers, mesh=GENESIS.mesh_id))


def test_of_another_ledger_of_the_mesh_proves_nothing_though_the_same_witness() -> None:
    trial = replace(LEDGER, created_us=LEDGER.created_us + 1)
    receipt = receipt_of(HOST, OTHER, ledger=trial)
    assert checked(receipt, papers=written(papers_of(trial))).valid
    assert not checked(receipt).valid


def test_of_another_ledgers_witnesses_proves_nothing() -> None:
    fewer = replace(LEDGER, witnesses=LEDGER.witnesses[:2])
    assert "names witness 4, the ledger has 2" in problem(
        checked(receipt_of(ADMIN, BOTH), papers=written(papers_of(fewer)))
    )


def test_of_an_epoch_that_the_papers_are_not_for_proves_nothing() -> None:
    assert "it is of epoch 1" in problem(checked(receipt_of(HOST, OTHER, epoch=1)))


NEXT = (OTHER, BOTH)  # who witness after the first epoch
ENDED = epoch_of(HOST, OTHER, then=NEXT)


def of_next(*keys: NodeKey) -> LightReceipt:
    return receipt_of(*keys, epoch=1, committee=Committee(tuple((key.node_id, 1_000) for key in NEXT)))


def test_of_an_epoch_by_whom_the_checkpoint_before_it_names() -> None:
    papers = written(papers_of(epochs=[ENDED]))
    assert checked(papers=papers).valid
    verdict = checked(of_next(*NEXT), papers=papers)
    assert verdict.valid, verdict.problems
    assert verdict.papers is not None
    assert [len(witnesses) for witnesses in verdict.papers.committees] == [4, 2]


def test_of_an_epoch_by_whom_only_another_one_names_proves_nothing() -> None:
    papers = written(papers_of(epochs=[ENDED]))
    of_first = receipt_of(HOST, OTHER, epoch=1)  # by their places in the first committee
    verdict = checked(of_first, papers=papers)
    assert {found.what.partition(" is not for ")[2] for found in verdict.problems} == {
        "this transaction, or not by its key"
    }


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (epoch_of(HOST, then=NEXT), r"epochs\[0\].seals: they weigh 1.*; 1.334 or more"),
        (epoch_of(HOST, OTHER, then=NEXT, number=1), r"epochs\[0\].checkpoint: it does not follow"),
        (epoch_of(HOST, OTHER, then=NEXT, previous=b"p" * 32), r"epochs\[0\].checkpoint: it does not follow"),
        (epoch_of(HOST, NodeKey(b"z" * 32), then=NEXT), r"epochs\[0\].seals: .* did not witness epoch 0"),
        (epoch_of(HOST, OTHER, then=NEXT, salt=b"another mesh 16b"), r"epochs\[0\].checkpoint: it does not follow"),
    ],
)
def test_checkpoints_that_do_not_follow_or_that_too_few_have_sealed_prove_nothing(
    ended: ledger_pb2.Epoch, why: str
) -> None:
    found = problem(checked(papers=written(papers_of(epochs=[ended]))))
    assert re.match(why, found), found


def test_a_seal_for_something_else_proves_nothing() -> None:
    forged = ledger_pb2.Epoch()
    forged.CopyFrom(ENDED)
    forged.seals[0] = HOST.sign(bytes(32))
    found = problem(checked(papers=written(papers_of(epochs=[forged]))))
    assert "is not for this checkpoint, or not by its key" in found


def test_papers_end_before_an_epoch_whose_end_too_few_have_sealed_yet() -> None:
    young = ledger_pb2.Epoch()
    young.CopyFrom(ENDED)
    young.is_sealed = False
    assert papers_of(epochs=[young])["epochs"] == []


def test_swapped_signatures_prove_nothing() -> None:
    swapped = LightReceipt(0, RECEIPT.witnesses, RECEIPT.signatures[::-1])
    assert len(checked(swapped).problems) == 2


@given(st.integers(0, len(RECEIPT.encode()) - 1), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found(at: int, bit: int) -> None:
    data = bytearray(RECEIPT.encode())
    data[at] ^= 1 << bit
    assert not checked(bytes(data)).valid


@given(st.integers(0, len(RECEIPT.encode()) - 1))
def test_so_is_a_cut_one(end: int) -> None:
    assert not checked(RECEIPT.encode()[:end]).valid
    assert not checked(RECEIPT.encode() + RECEIPT.encode()[: end + 1]).valid


@pytest.mark.parametrize(
    ("tx", "why"),
    [
        (b"{", "no JSON of ours"),
        (b"[]", "no signed.body"),
        (b'{"signed": {"body": ""}}', "no signed.body"),
        (b'{"signed": {"body": "%%"}}', "no base64"),
        (b'{"signed": {"body": "AAAA"}}', "transaction: version 0"),
        (b" " * (TX_BYTES_MAX + 1), "which no transaction has"),
    ],
)
def test_what_is_no_transaction_is_refused(tx: bytes, why: str) -> None:
    assert why in problem(checked(tx=tx))


# ---- the papers


def _issued_by_a_member(papers: dict[str, Any]) -> dict[str, Any]:
    return papers_of(admin=False)


def _a_stranger_opened_it(papers: dict[str, Any]) -> dict[str, Any]:
    return papers_of(by=HOST)


def _names_witnesses_of_its_own(papers: dict[str, Any]) -> dict[str, Any]:
    own = LedgerGenesis(HOST.node_id, ((HOST.node_id, 1_000),), (), 0, 7)
    return papers_of(own, by=HOST, admin=False)


def _lacks_a_witness(papers: dict[str, Any]) -> dict[str, Any]:
    return {**papers, "witnesses": papers["witnesses"][:3]}


def _shows_another_witness(papers: dict[str, Any]) -> dict[str, Any]:
    return {**papers, "witnesses": [papers["witnesses"][1], *papers["witnesses"][1:]]}


def _says_another_name(papers: dict[str, Any]) -> dict[str, Any]:
    papers["witnesses"][2]["name"] = "barn"
    return papers


def _is_no_ledger(papers: dict[str, Any]) -> dict[str, Any]:
    return {**papers, "offgrid_ledger": 2}


def _has_more(papers: dict[str, Any]) -> dict[str, Any]:
    return {**papers, "more": 1}


def _has_another_genesis(papers: dict[str, Any]) -> dict[str, Any]:
    heavier = replace(LEDGER, witnesses=((HOST.node_id, 9_000), *LEDGER.witnesses[1:]))
    papers["genesis"]["body"] = heavier.encode().hex()
    return papers


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_issued_by_a_member, "issuer"),
        (_a_stranger_opened_it, "genesis"),
        (_names_witnesses_of_its_own, "issuer"),
        (_lacks_a_witness, "witnesses"),
        (_shows_another_witness, "witnesses[0].records"),
        (_says_another_name, "witnesses[2].name"),
        (_is_no_ledger, "offgrid_ledger"),
        (_has_more, "file"),
        (_has_another_genesis, "genesis"),
    ],
)
def test_papers_that_the_root_does_not_stand_behind_are_refused(
    change: Callable[[dict[str, Any]], dict[str, Any]], field: str
) -> None:
    verdict = checked(papers=written(change(copy.deepcopy(papers_of()))))
    assert [found.field for found in verdict.problems] == [field]


def test_papers_have_a_size() -> None:
    assert "more than" in problem(checked(papers=b" " * (PAPERS_BYTES_MAX + 1)))


@given(st.data())
def test_a_changed_digit_in_the_papers_is_found(data: st.DataObject) -> None:
    whole = papers_of()
    places = list(_texts(whole))
    path = data.draw(st.sampled_from(places))
    part: Any = whole
    for step in path[:-1]:
        part = part[step]
    text = part[path[-1]]
    at = data.draw(st.integers(0, len(text) - 1))
    part[path[-1]] = text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :]
    assert not checked(papers=written(whole)).valid


def _texts(value: Any, path: tuple[Any, ...] = ()) -> Any:
    if isinstance(value, str) and value:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _texts(inner, (*path, key))


@given(st.binary(max_size=64))
def test_no_file_makes_the_check_raise(data: bytes) -> None:
    assert not check_receipt(data, data, data, verify).valid
    assert not check_receipt(RECEIPT.encode(), json.dumps(base32(data)).encode(), data, verify).valid
