"""Bodies of the ledger: golden vectors, one form for each value, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.blocks import leaves
from offgrid_node.protocol.ledger.items import Seen, SignedHeader, Statement, TxItem, decode_item, double_of, fork_of
from offgrid_node.protocol.ledger.records import (
    AMOUNT_MAX,
    HEADER_KIND,
    META_BYTES_MAX,
    TX_KIND,
    Header,
    LedgerGenesis,
    Tx,
    booking_digest,
    decode_meta,
    encode_meta,
    meta_text,
    request_mark,
    tx_id_of,
)
from offgrid_node.protocol.ledger.sources import LaneSource, NodeSource
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.ledgersim.keys import SALT

A, B = bytes(range(20)), bytes(range(20, 40))
NINES = bytes([9]) * 32
GENESIS = LedgerGenesis(
    base32(A), ((base32(A), 1_000), (base32(B), 2_500)), ((base32(B), 10**12),), 1_000, 1_700_000_000_000_000
)
TX = Tx(
    NodeSource(A),
    7,
    NINES,
    1_000,
    ((B, 250_000),),
    encode_meta({"job_id": "j-1", "action": "compute"}),
    request_mark("may", SALT),
)
HEADER = Header(A, 3, bytes([1]) * 32, (bytes([2]) * 32,), 0, bytes([3]) * 32, 2, 1_700_000_000_000_000)

ids = st.binary(min_size=20, max_size=20)
digests = st.binary(min_size=32, max_size=32)
amounts = st.integers(1, 10**15)
metas = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True, alphabet=st.characters(codec="ascii")),
    st.text(st.characters(codec="utf-8", categories=["L", "N"]), max_size=20),
    max_size=10,  # what is larger than META_BYTES_MAX is refused, which is another test's business
)
sources = st.one_of(
    st.builds(NodeSource, ids),
    st.builds(LaneSource, ids, st.integers(1, 2**16 - 1), st.integers(0, 2**16 - 1)),
)
txs = st.builds(
    Tx,
    sources,
    st.integers(0, 2**40),
    digests,
    st.integers(0, 10**9),
    st.lists(st.tuples(ids, amounts), min_size=1, max_size=5).map(tuple),
    metas.map(encode_meta),
)
headers = st.builds(
    Header,
    ids,
    st.integers(1, 2**40),
    digests,
    st.lists(digests, max_size=4, unique=True).map(tuple),
    st.just(0),
    digests,
    st.integers(1, 99),
    st.integers(0, 2**60),
).filter(lambda header: header.prev not in header.parents)
statements = st.builds(Statement, st.booleans(), ids, st.integers(0, 2**40), st.just(0), digests)


# ---- golden vectors: what is signed never changes


def test_the_genesis_has_this_body_and_digest() -> None:
    assert GENESIS.encode().hex() == (
        "01000102030405060708090a0b0c0d0e0f101112130000000000000000000003e800060a24181e4000"
        "0002000102030405060708090a0b0c0d0e0f10111213000003e8"
        "1415161718191a1b1c1d1e1f2021222324252627000009c4"
        "00011415161718191a1b1c1d1e1f2021222324252627000000e8d4a51000"
    )
    assert GENESIS.digest(SALT).hex() == "7882221273e4686d3ba7bf9678a98b4ecabab06878034801d84052ffb45584b5"


def test_a_transaction_has_this_body_digest_and_id() -> None:
    assert TX.encode().hex() == (
        "0100000102030405060708090a0b0c0d0e0f10111213" + "0000000000000007" + "09" * 32 + "00000000000003e8"
        "011415161718191a1b1c1d1e1f2021222324252627000000000003d090"
        "001c06616374696f6e0007636f6d70757465066a6f625f696400036a2d31" + "68428ac6386e18ab50930446672eadac"
    )
    assert TX.digest(SALT).hex() == "6250dd8aef4a06a20239977fc0b2129c2005ebe1d97ca0471bd1b322be7873cc"
    assert tx_id_of(TX.digest(SALT)) == "mjin3cxpjidkearzs574bmqstqqal27b3f6kary32gzsfptyopga"


def test_a_block_header_has_this_body_and_digest() -> None:
    assert HEADER.encode().hex() == (
        "01000102030405060708090a0b0c0d0e0f10111213" + "0000000000000003" + "01" * 32 + "01" + "02" * 32
        + "00000000" + "03" * 32 + "00000002" + "00060a24181e4000"
    )  # fmt: skip
    assert HEADER.digest(SALT).hex() == "f7bf0ac3fc7148c863c338cc0ba61d7a59fb484ade6194a8dd259dbe3f051516"


def test_statements_and_sightings_have_these_bytes() -> None:
    slot = A.hex() + "0000000000000007" + "00000000" + "09" * 32
    assert Statement(False, A, 7, 0, NINES).encode().hex() == "02" + slot
    assert Statement(True, A, 7, 0, NINES).encode().hex() == "03" + slot
    assert Seen(A, bytes([4]) * 32).encode().hex() == "06" + A.hex() + "04" * 32
    leaf = leaves([Statement(False, A, 7, 0, NINES).encode()], SALT)[0]
    assert leaf.hex() == "7229b930237c4625f4299e524c6c419e2f72b94a593864e785f9f7ac91097fab"


def test_a_booking_has_this_digest() -> None:
    digest = booking_digest(SALT, "j-1", 2, B, 250_000, "compute")
    assert digest.hex() == "93a5db8c83a61dbb7614ebd148684b089b79af315bc566758b69a78261823fd7"


# ---- one form for each value


@given(txs)
def test_a_transaction_survives_the_way_there_and_back(tx: Tx) -> None:
    assert Tx.decode(tx.encode()) == tx


@given(headers)
def test_a_header_survives_the_way_there_and_back(header: Header) -> None:
    assert Header.decode(header.encode()) == header


@given(statements)
def test_a_statement_survives_the_way_there_and_back(statement: Statement) -> None:
    assert decode_item(statement.encode(), SALT) == statement


@given(metas)
def test_meta_survives_the_way_there_and_back(meta: dict[str, str]) -> None:
    assert decode_meta(encode_meta(meta)) == meta


@given(st.one_of(txs, headers), st.data())
def test_a_flipped_bit_is_refused_or_gives_another_digest(value: Tx | Header, data: st.DataObject) -> None:
    body = bytearray(value.encode())
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = type(value).decode(bytes(body))
    except PeerFault:
        return
    assert other.encode() == bytes(body)
    assert other.digest(SALT) != value.digest(SALT)


@given(st.binary(max_size=300))
def test_no_bytes_at_all_make_a_decoder_fail_otherwise_than_by_a_peer_fault(data: bytes) -> None:
    for decode in (Tx.decode, Header.decode, LedgerGenesis.decode, lambda body: decode_item(body, SALT)):
        try:
            value: Any = decode(data)
        except PeerFault:
            continue
        assert value.encode() == data


# ---- what is refused


@pytest.mark.parametrize(
    ("tx", "why"),
    [
        (Tx(NodeSource(A), 0, NINES, 0, ()), "0 outputs"),
        (Tx(NodeSource(A), 0, NINES, 0, tuple((B, 1) for _ in range(65))), "65 outputs"),
        (Tx(NodeSource(A), 0, NINES, 0, ((B, 0),)), "output of nothing"),
        (Tx(NodeSource(A), 0, NINES, 1, ((B, AMOUNT_MAX),)), "are at most"),
        (Tx(NodeSource(A), 2**63, NINES, 0, ((B, 1),)), "slot's number"),
        (Tx(NodeSource(A), 0, NINES, 0, ((B, 1),), b"\x01"), "meta ends too early"),
        (Tx(NodeSource(A), 0, NINES, 0, ((B, 1),), b"\x01b\x00\x00\x01a\x00\x00"), "keys must ascend"),
        (Tx(NodeSource(A), 0, NINES, 0, ((B, 1),), b"\x01a\x00\x01\x07"), "control characters"),
        (Tx(NodeSource(A), 0, NINES, 0, ((B, 1),), b"\x01A\x00\x00"), "meta key"),
    ],
)
def test_a_transaction_that_moves_what_cannot_be_moved_is_refused(tx: Tx, why: str) -> None:
    with pytest.raises(PeerFault, match=why):
        Tx.decode(tx.encode())


@pytest.mark.parametrize(
    ("genesis", "why"),
    [
        (LedgerGenesis(base32(A), (), (), 0, 0), "0 witnesses"),
        (LedgerGenesis(base32(A), ((base32(A), 1), (base32(A), 1)), (), 0, 0), "named twice"),
        (LedgerGenesis(base32(A), ((base32(A), 0),), (), 0, 0), "weighs nothing"),
        (LedgerGenesis(base32(A), ((base32(A), 1),), ((base32(A), 2**62), (base32(B), 1)), 0, 0), "at most"),
        (LedgerGenesis(base32(A), ((base32(A), 1),), (), 0, 0, epoch=1), "epoch 0"),
    ],
)
def test_a_ledger_cannot_begin_without_witnesses_or_with_endless_money(genesis: LedgerGenesis, why: str) -> None:
    with pytest.raises(PeerFault, match=why):
        LedgerGenesis.decode(genesis.encode())


def test_a_header_names_no_parent_twice_and_heights_begin_with_one() -> None:
    for header in (Header(A, 0, NINES, (), 0, NINES, 1, 0), Header(A, 1, NINES, (NINES,), 0, NINES, 1, 0)):
        with pytest.raises(PeerFault):
            Header.decode(header.encode())


def test_evidence_holds_two_different_bodies_of_one_place_in_one_order() -> None:
    def signed_tx(amount: int, seq: int = 0) -> TxItem:
        body = Tx(NodeSource(A), seq, NINES, 0, ((B, amount),)).encode()
        return TxItem(Tx.decode(body), body, bytes(64), digest_of(TX_KIND, SALT, body))

    def signed_header(height: int, root: bytes) -> SignedHeader:
        header = Header(A, height, NINES, (), 0, root, 1, 0)
        return SignedHeader(header, header.encode(), bytes(64), digest_of(HEADER_KIND, SALT, header.encode()))

    double = double_of(signed_tx(2), signed_tx(1))
    fork = fork_of(signed_header(4, A + bytes(12)), signed_header(4, B + bytes(12)))
    assert decode_item(double.encode(), SALT) == double == double_of(signed_tx(1), signed_tx(2))
    assert decode_item(fork.encode(), SALT) == fork
    for wrong in (
        double_of(signed_tx(1), signed_tx(1)),
        double_of(signed_tx(1), signed_tx(2, seq=1)),
        fork_of(signed_header(4, A + bytes(12)), signed_header(5, B + bytes(12))),
        type(double)(double.second, double.first),
    ):
        with pytest.raises(PeerFault):
            decode_item(wrong.encode(), SALT)


def test_meta_takes_text_but_nothing_that_no_reader_should_meet() -> None:
    assert decode_meta(encode_meta({"note": "für Zoë ✓"})) == {"note": "für Zoë ✓"}
    for value in ("a\nb", "\x1b[31m", "\u202eabc", "\x9b", "x" * 257):
        with pytest.raises(ValueError, match="meta note"):
            encode_meta({"note": value})
    with pytest.raises(ValueError, match="bytes of meta"):
        encode_meta({f"k{i}": "x" * 256 for i in range(META_BYTES_MAX // 256)})
    assert meta_text("a\n\u202eb" + "é" * 200) == "ab" + "é" * 127
