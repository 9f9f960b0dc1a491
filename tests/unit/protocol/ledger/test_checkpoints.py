"""The bodies with which an epoch ends, and how fees are paid out: golden vectors, and what is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.checkpoints import (
    ACCOUNTS_PER_LEAF,
    NO_ORDER,
    ORDER_KIND,
    Base,
    Checkpoint,
    Order,
    Target,
    account_leaves,
    accounts_root,
    cut_account,
    heads_digest,
    targets_digest,
)
from offgrid_node.protocol.ledger.items import Cut, OrderItem, Seal, Wish, claims, decode_item, signatures_in
from offgrid_node.protocol.ledger.rewards import rewards
from offgrid_node.protocol.merkle import root_of
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.ledgersim.keys import SALT

A, B, LEDGER = bytes(range(20)), bytes(range(20, 40)), b"\x07" * 32
WITNESSES = ((base32(A), 1_000), (base32(B), 2_500))
ORDER = Order(LEDGER, A, 2, 3, WITNESSES, 1_700_000_000_000_000)
TARGETS = (Target(A, 5, (b"\x05" * 32,)), Target(B, 0, (b"\x01" * 32, b"\x02" * 32)))
HEADS = (Base(A, 9, b"\x09" * 32), Base(B, 4, b"\x04" * 32, 5))
BODY = Checkpoint(
    LEDGER, 2, b"\x01" * 32, b"\x02" * 32, 7, 1_000_000, 42, heads_digest(HEADS, SALT), targets_digest(TARGETS, SALT),
    NO_ORDER, WITNESSES, 1_700_000_000_000_000,
)  # fmt: skip
CUT = Cut(BODY, TARGETS, HEADS)
WITNESSES_HEX = "0002" + A.hex() + "000003e8" + B.hex() + "000009c4"
CREATED_HEX = "00060a24181e4000"


def test_an_order_has_this_body_and_digest() -> None:
    body = "01" + "07" * 32 + A.hex() + "0002" + "00000003" + WITNESSES_HEX + CREATED_HEX
    assert ORDER.encode().hex() == body
    assert Order.decode(ORDER.encode()) == ORDER
    assert ORDER.digest(SALT) == digest_of(b"og.committee.v1", SALT, bytes.fromhex(body))


def test_a_checkpoint_has_this_body_and_digest() -> None:
    body = (
        "01" + "07" * 32 + "00000002" + "01" * 32 + "02" * 32 + "00000007" + "00000000000f4240" + "000000000000002a"
        + heads_digest(HEADS, SALT).hex() + targets_digest(TARGETS, SALT).hex() + "00" * 32
        + WITNESSES_HEX + CREATED_HEX
    )  # fmt: skip
    assert BODY.encode().hex() == body
    assert Checkpoint.decode(BODY.encode()) == BODY
    assert BODY.digest(SALT) == digest_of(b"og.checkpoint.v1", SALT, bytes.fromhex(body))


def test_items_have_these_bytes() -> None:
    assert Wish().encode().hex() == "09"
    assert Seal(3, b"\x05" * 32, b"\x06" * 64).encode().hex() == "0c00000003" + "05" * 32 + "06" * 64
    item = OrderItem(ORDER, ORDER.encode(), b"\x08" * 64, ORDER.digest(SALT))
    assert item.encode().hex() == "0a" + "08" * 64 + ORDER.encode().hex()
    targets = A.hex() + "000000000000000501" + "05" * 32 + B.hex() + "000000000000000002" + "01" * 32 + "02" * 32
    heads = A.hex() + "0000000000000009" + "09" * 32 + "00" * 8 + B.hex() + "0000000000000004" + "04" * 32
    body = BODY.encode()
    assert CUT.encode().hex() == (
        "0b" + len(body).to_bytes(2, "big").hex() + body.hex() + "0002" + targets + "0002" + heads + "0000000000000005"
    )
    for each in (Wish(), Seal(3, b"\x05" * 32, b"\x06" * 64), item, CUT):
        assert decode_item(each.encode(), SALT) == each
    assert targets_digest(TARGETS, SALT) == digest_of(b"og.targets.v1", SALT, bytes.fromhex(targets))
    assert heads_digest(HEADS[:1], SALT) == digest_of(b"og.heads.v1", SALT, bytes.fromhex(heads)[:68])


def test_an_orders_signature_is_a_claim_of_its_issuers_key_of_that_number() -> None:
    item = OrderItem(ORDER, ORDER.encode(), b"\x08" * 64, digest_of(ORDER_KIND, SALT, ORDER.encode()))
    [claim] = claims(item, SALT)
    assert (claim.signer, claim.digest, claim.signature, claim.key) == (base32(A), item.digest, item.signature, 2)
    assert signatures_in([item.encode()]) == 1


def test_the_cuts_account_is_another_one_in_each_epoch_and_ledger() -> None:
    assert cut_account(LEDGER, 1, SALT) == digest_of(b"og.cut.v1", SALT, b"\x01" + LEDGER + b"\x00\x00\x00\x01")[:20]
    assert len({cut_account(LEDGER, 1, SALT), cut_account(LEDGER, 2, SALT), cut_account(b"\x08" * 32, 1, SALT)}) == 3


@pytest.mark.parametrize(
    "order",
    [
        replace(ORDER, epoch=0),
        replace(ORDER, witnesses=()),
        replace(ORDER, witnesses=(WITNESSES[0], WITNESSES[0])),
        replace(ORDER, witnesses=((base32(A), 0),)),
        replace(ORDER, witnesses=tuple((base32(bytes([n]) * 20), 1) for n in range(65))),
        replace(ORDER, created_us=2**63),
    ],
)
def test_no_order_is_read_that_orders_no_committee(order: Order) -> None:
    with pytest.raises(PeerFault):
        Order.decode(order.encode())


@pytest.mark.parametrize(
    "body",
    [
        replace(BODY, epoch=2**32 - 1),
        replace(BODY, supply_micro=2**62 + 1),
        replace(BODY, fees_micro=1_000_001),
        replace(BODY, witnesses=()),
        replace(BODY, created_us=2**63),
    ],
)
def test_no_checkpoint_is_read_that_cannot_be(body: Checkpoint) -> None:
    with pytest.raises(PeerFault):
        Checkpoint.decode(body.encode())


@pytest.mark.parametrize(
    ("targets", "heads", "why"),
    [
        (TARGETS[::-1], HEADS, "accounts must ascend"),
        ((TARGETS[0], TARGETS[0]), HEADS, "accounts must ascend"),
        (TARGETS, HEADS[::-1], "authors must ascend"),
        ((Target(A, 5, ()),), HEADS, "0 slots"),
        ((Target(A, 2**63 - 1, (b"\x05" * 32,)),), HEADS, "slots of"),
        (TARGETS, (Base(A, 2**63, b"\x09" * 32),), "height"),
        (TARGETS, (Base(A, 9, b"\x09" * 32, 2**60),), "0 and 10 are allowed"),
    ],
)
def test_no_cut_is_read_that_is_written_in_another_way(
    targets: tuple[Target, ...], heads: tuple[Base, ...], why: str
) -> None:
    body = replace(BODY, targets=targets_digest(targets, SALT))
    with pytest.raises(PeerFault, match=why):
        decode_item(Cut(body, targets, heads).encode(), SALT)


def test_no_cut_is_read_whose_targets_are_not_those_of_its_checkpoint() -> None:
    with pytest.raises(PeerFault, match="not those of its checkpoint"):
        decode_item(replace(CUT, targets=TARGETS[:1]).encode(), SALT)


@pytest.mark.parametrize("kind", [10, 11])
@given(st.binary(max_size=200))
def test_no_bytes_make_a_reader_fail_otherwise_than_by_a_peer_fault(kind: int, data: bytes) -> None:
    for read in (Order.decode, Checkpoint.decode, lambda it: decode_item(bytes([kind]) + it, SALT)):
        with suppress(PeerFault):
            read(data)


def test_accounts_hang_in_leaves_of_so_many() -> None:
    rows = [number.to_bytes(68, "big") for number in range(ACCOUNTS_PER_LEAF + 1)]
    leaves = [digest_of(b"og.accounts.v1", SALT, b"".join(rows[:-1])), digest_of(b"og.accounts.v1", SALT, rows[-1])]
    assert [*account_leaves(rows, SALT)] == leaves
    assert accounts_root(rows, SALT) == root_of(leaves)
    assert accounts_root([], SALT) == digest_of(b"og.accounts.v1", SALT, b"")


@given(st.integers(0, 2**62), st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=64))
def test_fees_are_paid_by_weight_and_nothing_is_lost(fees: int, weights: list[int]) -> None:
    witnesses = tuple((f"w{place}", weight) for place, weight in enumerate(weights))
    shares, left = rewards(fees, witnesses)
    assert sum(shares.values()) + left == fees
    assert 0 <= left < len(weights)
    assert all(shares[node] == fees * weight // sum(weights) for node, weight in witnesses)
