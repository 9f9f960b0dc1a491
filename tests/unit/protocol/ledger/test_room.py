"""How much a witness confirms that is not final: what a cut has room for, and no more."""

from __future__ import annotations

import pytest
from ledger_bench import OWNER, PAYEE, W1, W2, W3, Bench, confirm, vote

from offgrid_node.protocol.ledger import cuts
from offgrid_node.protocol.ledger.items import Statement, TxItem, Wish
from offgrid_node.protocol.ledger.turning import FULL_MS
from offgrid_tools.ledgersim.keys import START_MICRO


@pytest.fixture(autouse=True)
def _one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "TARGET_BYTES_MAX", 4 * 61)


def certified(bench: Bench, *items: TxItem) -> None:
    for item in items:
        bench.says(PAYEE, item)
        bench.says(W1, vote(item))
        bench.says(W2, vote(item))


def confirmed(bench: Bench) -> list[bytes]:
    return [it.tx_digest for it in bench.take_said() if isinstance(it, Statement) and it.confirms]


def three(bench: Bench) -> tuple[TxItem, TxItem, TxItem]:
    return bench.tx(OWNER), bench.tx(PAYEE, to=OWNER), bench.tx(W3)


def test_a_confirm_waits_until_one_of_this_witness_is_final() -> None:
    bench = Bench()
    first, second, third = three(bench)
    certified(bench, first, second, third)
    assert confirmed(bench) == [first.digest]
    bench.finish(first)
    assert confirmed(bench) == [second.digest]
    bench.finish(second)
    assert confirmed(bench) == [third.digest]


def test_votes_are_given_as_ever_and_others_end_slots_that_wait() -> None:
    bench = Bench()
    first, second, _ = three(bench)
    certified(bench, first)
    bench.take_said()
    bench.says(PAYEE, second)
    assert vote(second) in bench.take_said()
    bench.finish(second)
    assert bench.balance(OWNER) == START_MICRO + 100
    assert confirmed(bench) == []


def test_a_restart_forgets_none_of_it() -> None:
    bench = Bench()
    first, second, third = three(bench)
    certified(bench, first, second)
    assert confirmed(bench) == [first.digest]
    bench.restart()
    bench.calm()
    certified(bench, third)
    assert confirmed(bench) == []
    bench.finish(first)
    assert len(confirmed(bench)) == 1


def test_a_torn_slot_waits_too() -> None:
    bench = Bench()
    first, second, _ = three(bench)
    certified(bench, first)
    bench.says(PAYEE, second, bench.tx(PAYEE, to=W3))
    bench.take_said()
    bench.says(W1, vote(second))
    bench.says(W2, vote(second))
    bench.says(W3, vote(second))
    assert confirmed(bench) == []
    bench.finish(first)
    assert confirmed(bench) == [second.digest]


def test_what_waits_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    first, second, third = three(bench)
    certified(bench, first)
    assert not bench.machine.notices
    certified(bench, second, third)
    said = "this witness has confirmed in 1 slots that are not final, of 1 that it may; 2 more wait for that"
    assert bench.machine.notices == [said]
    bench.finish(first)
    bench.finish(second)
    assert not bench.machine.notices


def test_the_more_have_confirmed_in_a_slot_the_fuller_a_witness_may_be_that_gives_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of four places it keeps one for each of the three others."""
    monkeypatch.setattr(cuts, "TARGET_BYTES_MAX", 4 * 4 * 61)
    bench = Bench()
    first, items = bench.tx(OWNER, to=W1), [bench.tx(name, to=OWNER) for name in (PAYEE, W1, W2, W3)]
    certified(bench, first)
    assert confirmed(bench) == [first.digest]
    certified(bench, *items)
    assert confirmed(bench) == []
    bench.says(W1, confirm(items[1]))
    assert confirmed(bench) == [items[1].digest], "of the second place two are kept still"
    bench.says(W1, confirm(items[2]))
    assert confirmed(bench) == []
    bench.says(W2, confirm(items[2]))
    assert confirmed(bench) == [items[2].digest], "it is final by that"
    bench.says(W1, confirm(items[3]), confirm(first), confirm(items[1]))
    assert confirmed(bench) == []
    bench.says(W2, confirm(first), confirm(items[1]))
    assert confirmed(bench) == [items[3].digest], "both are final by that, and the one that more have confirmed is next"


def test_an_epoch_in_which_nothing_has_room_any_more_is_to_end() -> None:
    bench = Bench()
    first, second, third = three(bench)
    certified(bench, first, second)
    bench.wait(FULL_MS - 1_000)
    bench.finish(first)
    certified(bench, third)
    bench.wait(FULL_MS - 2_000)
    bench.says(W3, vote(third))
    bench.wait(1_000)
    assert Wish() not in bench.take_said(), "a slot became final meanwhile"
    bench.wait(1_100)
    assert Wish() in bench.take_said()


def test_where_nothing_waits_nothing_is_wished() -> None:
    bench = Bench()
    first, _, _ = three(bench)
    certified(bench, first)
    bench.wait(3 * FULL_MS)
    assert Wish() not in bench.take_said()
