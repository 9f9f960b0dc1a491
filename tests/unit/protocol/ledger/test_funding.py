"""How much is set aside for whom."""

from __future__ import annotations

from offgrid_node.protocol.ledger.funding import FEES_LEAST, GROWTH, HEADROOM, SHARES, Need, set_aside
from offgrid_node.protocol.ledger.records import OUTPUTS_MAX

A, B = b"a" * 20, b"b" * 20
FEE, FREE = 10, 1_000_000


def one(need: Need, free: int = FREE, held: int = 0) -> int:
    return set_aside({A: need}, free, held, FEE).get(A, 0)


def test_there_is_room_for_what_comes() -> None:
    assert one(Need(1_000, 1, 0)) == HEADROOM * 1_000 + FEE
    assert one(Need(1_000, 1, 50_000)) == GROWTH * 50_000 + FEE
    assert one(Need(1, 1, 0)) == FEES_LEAST * FEE + FEE


def test_who_has_much_sets_a_share_of_it_aside_at_once() -> None:
    free = 10_000 * SHARES
    assert one(Need(1, 1, 0), free) == 10_000 + FEE
    assert one(Need(1, 1, 0), free, held=5_000 * SHARES) == 15_000 + FEE, "what lies in holds is its money too"


def test_beyond_what_is_owed_no_more_than_half_of_what_else_is_free() -> None:
    assert one(Need(1_000, 1, 0), free=2_010) == 1_000 + 500 + FEE
    assert set_aside({A: Need(1_000, 1, 0), B: Need(500, 1, 0)}, 2_320, 0, FEE) == {A: 1_200 + FEE, B: 700 + FEE}


def test_what_does_not_pay_the_least_booking_is_not_set_aside() -> None:
    assert one(Need(1_000, 400, 0), free=409) == 0
    assert one(Need(1_000, 400, 0), free=410) == 400 + FEE


def test_one_transaction_funds_so_many() -> None:
    owed = {bytes([number] * 20): Need(1, 1, 0) for number in range(OUTPUTS_MAX + 1)}
    assert len(set_aside(owed, FREE, 0, FEE)) == OUTPUTS_MAX
