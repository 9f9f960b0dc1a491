"""What relays say to each other: read as it was written, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_tools.emulators.relay_mesh import SF7
from offgrid_transports.relay.frames import (
    HOPS_MAX,
    MISSING_MAX,
    TURNS,
    Answer,
    Ask,
    Heard,
    Kind,
    NoWord,
    Open,
    Short,
    open_bytes,
    read,
    write,
)
from offgrid_transports.relay.metric import (
    BYTE_NS_MAX,
    COST_MS_MAX,
    MTU_MAX,
    MTU_MIN,
    TIME_US_MAX,
    Metric,
    read_cost,
    read_metric,
    write_cost,
    write_metric,
)
from offgrid_transports.relay.shunned import AVOIDED_MAX

PSK = bytes(32)
WORD = st.integers(0, 0xFFFF)
ENDS = st.lists(st.binary(min_size=4, max_size=4), min_size=2, max_size=2, unique=True)
HOPS = st.lists(st.binary(min_size=2, max_size=2), max_size=HOPS_MAX, unique=True).map(tuple)
COSTS = st.integers(0, COST_MS_MAX).map(lambda cost_ms: read_cost(write_cost(cost_ms)))
METRICS = st.builds(Metric, WORD, WORD, WORD, st.integers(MTU_MIN, MTU_MAX), st.booleans())


@st.composite
def said(draw: st.DrawFn) -> Ask | Answer | Open | Heard | Short:
    (source, target), hops = draw(ENDS), draw(HOPS)
    match draw(st.sampled_from(Kind)):
        case Kind.ASK:
            left = draw(st.integers(0, HOPS_MAX - len(hops)))
            avoided = tuple(draw(st.lists(st.binary(min_size=2, max_size=2), max_size=AVOIDED_MAX)))
            return Ask(draw(WORD), left, draw(st.booleans()), target, source, hops, draw(COSTS), avoided)
        case Kind.ANSWER:
            return Answer(draw(WORD), draw(st.integers(0, len(hops))), target, source, hops, draw(COSTS))
        case Kind.OPEN | Kind.OPENED:
            opened, turn = draw(st.booleans()), draw(st.integers(0, TURNS - 1))
            to = draw(st.integers(not opened, len(hops) + (not opened)))
            metric, words = read_metric(write_metric(draw(METRICS))), draw(st.tuples(WORD, WORD, WORD))
            return Open(opened, to, turn, source, target, *words, metric, hops, draw(st.binary()))
        case Kind.HEARD:
            mark = st.binary(min_size=2, max_size=2)
            return Heard(draw(WORD), draw(mark), tuple(draw(st.lists(mark, max_size=MISSING_MAX))))
        case kind:
            return Short(kind, draw(WORD))


@given(said(), st.booleans())
def test_what_is_said_is_read(one: Ask | Answer | Open | Heard | Short, shared: bool) -> None:
    frame = write(PSK, one, shared=shared)
    assert read(PSK, frame, shared=shared) == one
    if isinstance(one, Open):
        assert len(frame) == open_bytes(len(one.hops), shared=shared) + len(one.frame)


def test_where_a_stranger_may_try_fast_the_mac_is_longer() -> None:
    """2^32 words take years on a channel, and hours on a network."""
    word = Short(Kind.BROKEN, 1)
    on_air, elsewhere = write(PSK, word, shared=True), write(PSK, word, shared=False)
    assert (len(on_air), len(elsewhere)) == (7, 11)
    assert SF7.airtime_us(1 + len(on_air)) * 2**32 > 4 * 365 * 86_400_000_000
    with pytest.raises(NoWord):
        read(PSK, on_air, shared=False)


@given(said(), st.data())
def test_nothing_that_was_altered_or_is_of_another_mesh_is_taken(one: Ask | Open, data: st.DataObject) -> None:
    frame = bytearray(write(PSK, one, shared=True))
    with pytest.raises(NoWord):
        read(bytes([1]) * 32, bytes(frame), shared=True)
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(NoWord):
        read(PSK, bytes(frame), shared=True)


@given(st.binary(max_size=80))
def test_a_member_may_say_anything_and_it_is_read_or_refused(body: bytes) -> None:
    from offgrid_transports.relay import frames

    frame = body + frames.mac_of(PSK, body, shared=True)
    try:
        one = read(PSK, frame, shared=True)
    except NoWord:
        return
    assert len(write(PSK, one, shared=True)) == len(frame)


@pytest.mark.parametrize("hops", [(b"aa", b"bb", b"aa"), (b"so", b"so")])
def test_a_way_that_comes_by_somebody_twice_is_none(hops: tuple[bytes, ...]) -> None:
    with pytest.raises(NoWord, match="twice"):
        read(PSK, write(PSK, Ask(1, 0, False, b"targ", b"sour", hops), shared=True), shared=True)


@given(METRICS)
def test_a_metric_is_said_within_a_thousandth_and_never_below(metric: Metric) -> None:
    told = read_metric(write_metric(metric))
    assert told[3:] == metric[3:]
    for value, said_value in zip(metric[:3], told[:3], strict=True):
        assert value <= said_value <= value * 1.001 + 1


@pytest.mark.parametrize(
    "metric",
    [
        Metric(0, 0, 0, 0, False),
        Metric(0, 0, 0, MTU_MIN - 1, True),
        Metric(2 * TIME_US_MAX, 0, 0, 1200, True),
        Metric(0, 2 * BYTE_NS_MAX, 0, 1200, True),
        Metric(0, 0, 2 * TIME_US_MAX, 1200, True),
    ],
)
def test_a_way_that_cannot_be_is_not_believed(metric: Metric) -> None:
    """Lengths and timers follow from it: a frame of no bytes, or a wait of months."""
    said = write(PSK, Open(False, 0, 0, b"from", b"goal", 1, 2, 3, metric, (), b""), shared=True)
    with pytest.raises(NoWord):
        read(PSK, said, shared=True)


@pytest.mark.parametrize(("opened", "to"), [(False, 0), (True, 3), (False, 4)])
def test_the_source_takes_no_open_and_the_target_no_opened(opened: bool, to: int) -> None:
    metric = Metric(0, 0, 0, MTU_MIN, False)
    said = write(PSK, Open(opened, to, 0, b"from", b"goal", 1, 2, 3, metric, (b"aa", b"bb"), b""), shared=True)
    with pytest.raises(NoWord, match=f"place {to}"):
        read(PSK, said, shared=True)
