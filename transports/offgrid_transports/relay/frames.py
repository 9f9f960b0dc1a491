"""What relays say to each other: ways looked for, labels given, and short words about single frames.

    ASK       40 | number 2 | left 1 | cost 2 | target 4 | source 4 | avoided 2*m | hops 2*n
                                                                                      who leads to the target? To all
    ANSWER    41 | number 2 | to 1 | cost 2 | target 4 | source 4 | hops 2*n          back along the hops
    OPEN      42 | to 1 | n 1 | source 4 | target 4 | number 2 | peer's number 2 | label 2 | metric 8 | hops 2*n
                 | a frame                                                            a circuit, from the source
    OPENED    43 | the same                                                           back, from the target
    HEARD     44 | label 2 | mark 2 | missing 2*n                                     to the hop before: this came
    UNKNOWN   45 | label 2                                                            to the hop before: no such label
    BROKEN    46 | label 2                                                            back to an end: no way on
    HELD      47 | label 2                                                            OPEN or OPENED with it came
    LATE      48 | label 2                                                            from an end: is nothing back yet?
    LATER     49 | label 2                                                            OPEN with it is to come later

and behind each a MAC under the mesh's secret, of 4 bytes on a shared medium and of 8 elsewhere (macs.py): it keeps
strangers out, no more. A node is named by the first 4 bytes of its tag (beacons.py), a hop by the first 2 of these,
or any others where somebody near is called so. `to` is the place of who takes the frame: 0 the source, 1 to n the hops,
n + 1 the target; in OPEN and OPENED the byte's upper three bits count how often the source has begun. A `label` is the
one that frames to the sender of OPEN or OPENED shall bear. `cost` is what the way takes (metric.py) from the source of
a question, or to the target of an answer, as far as whoever says it; three bits of `left` are taken: the highest where
only the target may answer, two for m.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from offgrid_transports.macs import LONG_BYTES, SHORT_BYTES, bears, mac
from offgrid_transports.relay.metric import (
    COST_BYTES,
    COST_MS_MAX,
    METRIC_BYTES,
    Metric,
    read_cost,
    read_metric,
    write_cost,
    write_metric,
)
from offgrid_transports.relay.shunned import AVOIDED_MAX

RELAYED = 0x40
NAME_BYTES, HOP_BYTES, NUMBER_BYTES = 4, 2, 2
HOPS_MAX = 24
MISSING_MAX = 24
END_BYTES = 8  # of a frame, the least of a seal: the counter before it makes them unlike those of any other
TURNS = 8
_TO_BITS = 5
_PERSON = b"og.relay"
FRESH = 0x80  # in `left`: only the target may answer
_AVOIDED_BIT, _LEFT = 5, 0x1F
_FLOOD_BYTES = 1 + NUMBER_BYTES + 1 + COST_BYTES + 2 * NAME_BYTES
_OPEN_BYTES = 3 + 2 * NAME_BYTES + 3 * NUMBER_BYTES + METRIC_BYTES


class Kind(IntEnum):
    ASK = 0x40
    ANSWER = 0x41
    OPEN = 0x42
    OPENED = 0x43
    HEARD = 0x44
    UNKNOWN = 0x45
    BROKEN = 0x46
    HELD = 0x47
    LATE = 0x48
    LATER = 0x49


class Ask(NamedTuple):
    """`left`: so many hops may still be added. `cost_ms`: of the way so far. `avoided`: hops that its source would
    rather not have on the way."""

    number: int
    left: int
    fresh: bool
    target: bytes
    source: bytes
    hops: tuple[bytes, ...]
    cost_ms: int = 0
    avoided: tuple[bytes, ...] = ()


class Answer(NamedTuple):
    """`cost_ms`: of the way from whoever says it to the target."""

    number: int
    to: int
    target: bytes
    source: bytes
    hops: tuple[bytes, ...]
    cost_ms: int = 0


class Open(NamedTuple):
    """`ours`: the source's number of the session; `theirs`: the target's, 0 where none is known."""

    opened: bool
    to: int
    turn: int
    source: bytes
    target: bytes
    ours: int
    theirs: int
    label: int
    metric: Metric
    hops: tuple[bytes, ...]
    frame: bytes


class Heard(NamedTuple):
    """`mark`: bytes 3 and 4 of a frame that came; `missing`: of those before it that did not."""

    label: int
    mark: bytes
    missing: tuple[bytes, ...]


class Short(NamedTuple):
    """UNKNOWN, BROKEN, HELD, LATE or LATER."""

    kind: Kind
    label: int


Said = Ask | Answer | Open | Heard | Short


class NoWord(Exception):
    """These bytes are nothing that a relay of this mesh would say."""


def hop_of(name: bytes) -> bytes:
    return name[:HOP_BYTES]


def place(said: Answer | Open, to: int) -> bytes:
    """Who stands there: the name of an end, the hop of another one."""
    return (said.source, *said.hops, said.target)[to]


def is_at(name: bytes, hop: bytes, said: Answer | Open) -> bool:
    """It is for the node of that name and hop. An end is none of those between, though one may be called like it."""
    if name in (said.source, said.target):
        return place(said, said.to) == name
    return place(said, said.to) == hop


def end_of(frame: bytes) -> bytes:
    """Of a labelled one: what tells it from others on each hop."""
    return frame[3:5] + frame[-END_BYTES:]


def mac_bytes(*, shared: bool) -> int:
    """On such a medium."""
    return SHORT_BYTES if shared else LONG_BYTES


def open_bytes(hops: int, *, shared: bool) -> int:
    """Of OPEN and OPENED without their frame."""
    return _OPEN_BYTES + hops * HOP_BYTES + mac_bytes(shared=shared)


def write(psk: bytes, said: Said, *, shared: bool) -> bytes:
    """For a shared medium, or for another one."""
    match said:
        case Ask():
            left = said.left | (FRESH if said.fresh else 0) | len(said.avoided) << _AVOIDED_BIT
            body = bytes((Kind.ASK,)) + _two(said.number) + bytes((left,)) + write_cost(said.cost_ms)
            body += said.target + said.source + b"".join((*said.avoided, *said.hops))
        case Answer():
            body = bytes((Kind.ANSWER,)) + _two(said.number) + bytes((said.to,)) + write_cost(said.cost_ms)
            body += said.target + said.source + b"".join(said.hops)
        case Open():
            kind = Kind.OPENED if said.opened else Kind.OPEN
            numbers = _two(said.ours) + _two(said.theirs) + _two(said.label)
            body = bytes((kind, said.turn << _TO_BITS | said.to, len(said.hops))) + said.source + said.target + numbers
            body += write_metric(said.metric) + b"".join(said.hops) + said.frame
        case Heard():
            body = bytes((Kind.HEARD,)) + _two(said.label) + said.mark + b"".join(said.missing)
        case Short():
            body = bytes((said.kind,)) + _two(said.label)
    return body + mac_of(psk, body, shared=shared)


def read(psk: bytes, frame: bytes, *, shared: bool) -> Said:
    """As `write` wrote it. Raises NoWord."""
    length = mac_bytes(shared=shared)
    body = frame[:-length]
    if len(body) <= 1 or not bears(psk, _PERSON, frame, length):
        raise NoWord("it is not of this mesh")
    try:
        kind = Kind(body[0])
    except ValueError:
        raise NoWord(f"kind {body[0]:#x}") from None
    match kind:
        case Kind.ASK | Kind.ANSWER:
            return _read_flood(kind, body)
        case Kind.OPEN | Kind.OPENED:
            return _read_open(kind, body)
        case Kind.HEARD:
            if len(body) < 5 or len(body) % 2 == 0 or len(body) > 5 + 2 * MISSING_MAX:
                raise NoWord(f"{len(body)} bytes say nothing of frames")
            return Heard(int.from_bytes(body[1:3]), body[3:5], _twos(body[5:]))
        case _:
            if len(body) != 3:
                raise NoWord(f"{len(body)} bytes say nothing of a label")
            return Short(kind, int.from_bytes(body[1:3]))


def _read_flood(kind: Kind, body: bytes) -> Ask | Answer:
    rest = len(body) - _FLOOD_BYTES
    if rest < 0 or rest % HOP_BYTES or rest > (AVOIDED_MAX + HOPS_MAX) * HOP_BYTES:
        raise NoWord(f"{len(body)} bytes hold no hops")
    number, third, cost_ms, hops = int.from_bytes(body[1:3]), body[3], read_cost(body[4:6]), _twos(body[_FLOOD_BYTES:])
    target, source = body[6:10], body[10:14]
    if cost_ms > COST_MS_MAX:
        raise NoWord(f"a way that takes {cost_ms} ms")
    if kind is Kind.ASK:
        left, count = third & _LEFT, (third & ~FRESH) >> _AVOIDED_BIT
        avoided, hops = hops[:count], hops[count:]
        _check_hops(hops, source, target)
        if len(avoided) < count or left + len(hops) > HOPS_MAX:
            raise NoWord(f"{left} hops more, {count} avoided")
        return Ask(number, left, bool(third & FRESH), target, source, hops, cost_ms, avoided)
    _check_hops(hops, source, target)
    if third > len(hops) or len(hops) > HOPS_MAX:
        raise NoWord(f"to place {third} of {len(hops)} hops")
    return Answer(number, third, target, source, hops, cost_ms)


def _read_open(kind: Kind, body: bytes) -> Open:
    if len(body) < _OPEN_BYTES:
        raise NoWord(f"{len(body)} bytes open nothing")
    to, turn, count = body[1] & (1 << _TO_BITS) - 1, body[1] >> _TO_BITS, body[2]
    end = _OPEN_BYTES + count * HOP_BYTES
    first = int(kind is Kind.OPEN)  # the source takes no OPEN, the target no OPENED
    if count > HOPS_MAX or len(body) < end or not first <= to <= count + first:
        raise NoWord(f"to place {to} of {count} hops, in {len(body)} bytes")
    source, target, hops = body[3:7], body[7:11], _twos(body[_OPEN_BYTES:end])
    _check_hops(hops, source, target)
    ours, theirs, label = (int.from_bytes(body[at : at + 2]) for at in (11, 13, 15))
    metric = read_metric(body[17 : 17 + METRIC_BYTES])
    if not metric.sound:
        raise NoWord(f"a way that takes {metric}")
    return Open(kind is Kind.OPENED, to, turn, source, target, ours, theirs, label, metric, hops, body[end:])


def _check_hops(hops: tuple[bytes, ...], source: bytes, target: bytes) -> None:
    """Nobody twice: so no frame goes round. An end takes none for a hop between, whatever its name begins with."""
    if source == target or len({*hops}) != len(hops):
        raise NoWord("a way that comes by somebody twice")


def _two(number: int) -> bytes:
    return number.to_bytes(NUMBER_BYTES)


def _twos(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[at : at + 2] for at in range(0, len(data), 2))


def mac_of(psk: bytes, body: bytes, *, shared: bool) -> bytes:
    """What stands behind it."""
    return mac(psk, _PERSON, body, mac_bytes(shared=shared))
