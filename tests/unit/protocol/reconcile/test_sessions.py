"""A session by coded symbols: windows asked for and answered, until both differences are known."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.reconcile import sessions, symbols
from offgrid_node.protocol.reconcile.sessions import Asking, Showing, answer, sketched
from offgrid_node.protocol.reconcile.symbols import Symbol, SymbolCode, encode_symbols

CODE = SymbolCode(bytes(16), 8)
IDS = st.sets(st.integers(0, 2**64 - 1), max_size=40)


def reconcile(here: set[int], there: set[int], window_max: int = sessions.WINDOW_SYMBOLS_MAX) -> Asking:
    asking = Asking(CODE, here, window_max=window_max)
    while not asking.complete:
        first, count = asking.window
        assert 0 < count <= window_max
        asking.on_answer(answer(CODE, there, first, count), len(there))
    return asking


@given(IDS, IDS, IDS)
def test_any_two_sets_are_told_apart(shared: set[int], here: set[int], there: set[int]) -> None:
    here, there = here | shared, there | shared
    asking = reconcile(here, there)
    assert (asking.here, asking.there) == (here - there, there - here)


def test_windows_have_a_largest_size() -> None:
    many = {Random(n).getrandbits(64) for n in range(500)}
    assert reconcile(set(), many, window_max=50).there == many


def test_who_takes_ids_away_that_were_never_here_is_refused() -> None:
    """Symbols of less than nothing."""
    asking = Asking(CODE, {7})
    negative = [Symbol(-s.total % (1 << 8 * CODE.word_bytes), -s.count % 256) for s in sketched(CODE, {1}, 0, 32)]
    with pytest.raises(PeerFault, match="never here") as error:
        asking.on_answer(encode_symbols(CODE, negative), 0)
    assert error.value.reason == "BadSymbols"


@given(IDS, IDS, IDS, st.integers(1, 9))
def test_a_stream_tells_any_two_sets_apart(shared: set[int], here: set[int], there: set[int], chunk: int) -> None:
    here, there = here | shared, there | shared
    asking, showing = Asking(CODE, here), Showing(CODE, there)
    while not asking.complete:
        asking.on_shown(showing.take(chunk), showing.items)
    assert (asking.here, asking.there) == (here - there, there - here)


def test_a_stream_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbols, "SYMBOLS_MAX", 64)
    asking, junk = Asking(CODE, {7}), encode_symbols(CODE, [Symbol(5, 3)] * 8)
    for _ in range(7):
        asking.on_shown(junk, 1)
    with pytest.raises(PeerFault, match="64 symbols told") as error:
        asking.on_shown(junk, 1)
    assert error.value.reason == "NoEnd"


def test_a_set_shows_no_more_symbols_than_anybody_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SYMBOLS_MAX", 10)
    showing = Showing(CODE, {1, 2})
    assert [len(showing.take(8)) // CODE.symbol_bytes for _ in range(3)] == [8, 2, 0]
