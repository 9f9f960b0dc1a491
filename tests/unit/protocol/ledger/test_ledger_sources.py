"""Where money comes from: the bodies of lanes and holds, golden and in one form, who signs, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.items import (
    Claim,
    Double,
    TxItem,
    Unlock,
    claims,
    decode_item,
    double_of,
    signatures_in,
)
from offgrid_node.protocol.ledger.records import TX_KIND, Tx, encode_meta, unlock_digest
from offgrid_node.protocol.ledger.sources import (
    NO_ROOT,
    Act,
    Close,
    GiveBack,
    HoldSource,
    HoldTerms,
    LaneSource,
    NodeSource,
    Post,
    Source,
    lane_account,
    lane_source,
)
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.ledgersim.keys import SALT

PAYER, PAYEE = bytes(range(20)), bytes(range(20, 40))
ROOT, SIGNATURE, PREV = bytes([7]) * 32, bytes([8]) * 64, bytes([9]) * 32
TERMS = HoldTerms(PAYER, PAYEE, 5, 1_000_000, 1_000, 1_700_000_000_000_000, 3)
POSTED = Post(250_000, 12, ROOT, SIGNATURE)

keys = st.integers(0, 2**16 - 1)
ids = st.binary(min_size=20, max_size=20)
terms = st.builds(
    HoldTerms, ids, ids, st.integers(0, 2**63), st.integers(1_001, 2**60), st.integers(0, 1_000), st.integers(0, 2**62),
    keys,
).filter(lambda each: each.payer != each.payee)  # fmt: skip


@st.composite
def holds(draw: st.DrawFn) -> HoldSource:
    held = draw(terms)
    amount = draw(st.integers(0, held.room_micro))
    act: Act = draw(st.sampled_from((Post(amount, 3, ROOT, SIGNATURE), GiveBack(), Close(amount))))
    return HoldSource(held, act, draw(keys))


def ending(source: HoldSource, **changes: object) -> Tx:
    """The one transaction that ends a hold so, with what is to be wrong with it."""
    return replace(Tx(source, 0, PREV, source.terms.fee_micro, source.outputs), **changes)  # type: ignore[arg-type]


def item(tx: Tx) -> TxItem:
    body = tx.encode()
    return TxItem(tx, body, SIGNATURE, digest_of(TX_KIND, SALT, body))


# ---- golden vectors


def test_a_lane_has_this_account_and_body() -> None:
    source = LaneSource(PAYER, 2, 1)
    assert source.encode().hex() == "01" + PAYER.hex() + "0002" + "0001"
    assert source.account == lane_account(PAYER, 2)
    assert source.account.hex() == "d81a91651fb08341bd275bb80d622a85ac62a397"


def test_a_hold_has_this_account_and_its_ends_have_these_bodies() -> None:
    said = "01" + PAYER.hex() + PAYEE.hex() + "0000000000000005" + "00000000000f4240" + "00000000000003e8"
    said += "00060a24181e4000" + "0003"
    assert TERMS.encode().hex() == said
    assert TERMS.account.hex() == "f10ab67c5252196f2bee4732950c27397791c9eb"
    post = "01" + "000000000003d090" + "0000000c" + "07" * 32 + "08" * 64
    assert HoldSource(TERMS, POSTED, 4).encode().hex() == "02" + said + "0004" + post
    assert HoldSource(TERMS, GiveBack()).encode().hex() == "02" + said + "0000" + "02"
    assert HoldSource(TERMS, Close(9)).encode().hex() == "02" + said + "0000" + "03" + "0000000000000009"


def test_a_voucher_has_this_digest() -> None:
    assert (
        POSTED.voucher(TERMS.account).digest(SALT).hex()
        == "49f0d3de58e08950617c9acf0f8f458fcced642897ef4d7d5d89ef2a00155226"
    )


# ---- accounts


def test_a_lane_is_an_account_of_its_own_whatever_the_key() -> None:
    accounts = {LaneSource(owner, lane).account for owner in (PAYER, PAYEE) for lane in range(1, 50)}
    assert len(accounts) == 98
    assert LaneSource(PAYER, 7, key=4).account == LaneSource(PAYER, 7, key=9).account
    assert lane_source(PAYER, 0, 4) == NodeSource(PAYER)
    assert lane_source(PAYER, 7, 4) == LaneSource(PAYER, 7, 4)


@pytest.mark.parametrize("field", ["payer", "payee", "number", "funds_micro", "fee_micro", "expires_us", "key"])
def test_other_terms_are_another_hold(field: str) -> None:
    value = bytes(20) if field in ("payer", "payee") else 77
    assert replace(TERMS, **{field: value}).account != TERMS.account


# ---- one form for each value


@given(st.one_of(holds().map(ending), holds().map(lambda source: ending(source, seq=9))))
def test_the_end_of_a_hold_survives_the_way_there_and_back(tx: Tx) -> None:
    assert Tx.decode(tx.encode()) == tx


@given(holds(), st.data())
def test_a_flipped_bit_is_refused_or_gives_another_digest(source: HoldSource, data: st.DataObject) -> None:
    tx = ending(source)
    body = bytearray(tx.encode())
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = Tx.decode(bytes(body))
    except PeerFault:
        return
    assert other.encode() == bytes(body)
    assert other.digest(SALT) != tx.digest(SALT)


@given(holds())
def test_all_of_a_hold_but_the_fee_is_the_two_parties(source: HoldSource) -> None:
    tx = ending(source)
    assert tx.total_micro == source.terms.funds_micro
    assert {account for account, _ in tx.outputs} <= {source.terms.payer, source.terms.payee}


# ---- who signs


def test_who_signs_a_source_and_by_which_key() -> None:
    def of(source: Source) -> list[Claim]:
        outputs = source.outputs if isinstance(source, HoldSource) else ((PAYEE, 1),)
        return [*claims(item(Tx(source, 6, PREV, 1_000, outputs)), SALT)]

    payer, payee = base32(PAYER), base32(PAYEE)
    assert [(each.signer, each.seq, each.key) for each in of(NodeSource(PAYER))] == [(payer, 6, None)]
    assert [(each.signer, each.seq, each.key) for each in of(LaneSource(PAYER, 2, 1))] == [(payer, None, 1)]
    assert [(each.signer, each.seq, each.key) for each in of(HoldSource(TERMS, GiveBack(), 4))] == [(payee, None, 4)]
    assert [(each.signer, each.seq, each.key) for each in of(HoldSource(TERMS, Close(0), 4))] == [(payer, None, 4)]
    own, voucher = of(HoldSource(TERMS, POSTED, 4))
    assert (own.signer, own.key, own.signature) == (payee, 4, SIGNATURE)
    assert voucher == Claim(payer, POSTED.voucher(TERMS.account).digest(SALT), SIGNATURE, key=TERMS.key)


def test_an_unlock_is_of_a_node_or_a_lane_and_signed_by_its_owner() -> None:
    for source in (NodeSource(PAYER), LaneSource(PAYER, 3, 2)):
        unlock = Unlock(source, 4, SIGNATURE, unlock_digest(SALT, source.account, 4))
        assert decode_item(unlock.encode(), SALT) == unlock
        assert [each.signer for each in claims(unlock, SALT)] == [base32(PAYER)]
    for wrong in (HoldSource(TERMS, GiveBack()).encode() + bytes(8), bytes(3), NodeSource(PAYER).encode() + bytes(9)):
        with pytest.raises(PeerFault, match="unlock"):
            decode_item(b"\x07" + SIGNATURE + wrong, SALT)


def test_no_item_holds_more_signatures_than_its_kind_says() -> None:
    ends = [HoldSource(TERMS, act) for act in (POSTED, GiveBack(), Close(1))]
    txs = [item(ending(source)) for source in ends] + [item(Tx(LaneSource(PAYER, 1), 0, PREV, 1_000, ((PAYEE, 1),)))]
    doubles: list[Double] = [double_of(txs[0], txs[1])]
    for each in (*txs, *doubles):
        assert len([*claims(each, SALT)]) <= signatures_in([each.encode()])
    assert signatures_in([txs[0].encode()]) == 2


# ---- what is refused


@pytest.mark.parametrize(
    ("tx", "why"),
    [
        (Tx(LaneSource(PAYER, 0), 0, PREV, 0, ((PAYEE, 1),)), "1 to 65535 are allowed"),
        (ending(HoldSource(TERMS, Close(999_001)), outputs=((PAYEE, 1),)), "at most 999000 are allowed"),
        (ending(HoldSource(TERMS, POSTED), outputs=((PAYEE, 999_000),)), "outputs and fee"),
        (ending(HoldSource(TERMS, POSTED), fee_micro=2_000), "outputs and fee"),
        (ending(HoldSource(TERMS, GiveBack()), meta=encode_meta({"a": "b"})), "neither meta"),
        (ending(HoldSource(TERMS, GiveBack()), request=b"r" * 16), "neither meta"),
        (ending(HoldSource(replace(TERMS, payee=PAYER), GiveBack())), "for itself"),
        (Tx(HoldSource(replace(TERMS, fee_micro=1_000_000), GiveBack()), 0, PREV, 0, ((PAYER, 1),)), "nothing is left"),
        (ending(HoldSource(replace(TERMS, expires_us=2**63), GiveBack())), "at most"),
    ],
)
def test_a_source_that_cannot_be_is_refused(tx: Tx, why: str) -> None:
    with pytest.raises(PeerFault, match=why):
        Tx.decode(tx.encode())


def test_unknown_kinds_of_sources_and_ends_are_refused() -> None:
    body = bytearray(ending(HoldSource(TERMS, GiveBack())).encode())
    act_at = 2 + len(TERMS.encode()) + 2
    for at, why in ((1, "source 9"), (act_at, "end 9")):
        wrong = bytearray(body)
        wrong[at] = 9
        with pytest.raises(PeerFault, match=why):
            Tx.decode(bytes(wrong))
    assert HoldSource(TERMS, Post(0, 0, NO_ROOT, SIGNATURE)).outputs == ((PAYER, TERMS.room_micro),)
