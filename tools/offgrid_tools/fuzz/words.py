"""Targets of what stands in messages: packed bodies, requests for blocks, and coded frames that all hear."""

from __future__ import annotations

from collections.abc import Callable

from offgrid_tools.fuzz.frames import PSK
from offgrid_tools.fuzz.script import Script
from offgrid_transports.coding import Encoder
from offgrid_transports.folding import FoldError, fold, unfold
from offgrid_transports.long_messages import (
    LONG_BYTES_MAX,
    Shelf,
    digest_of,
    read_partial,
    read_read,
    read_write,
    write_partial,
    write_read,
    write_write,
)
from offgrid_transports.packing import BLOCK_BYTES_MAX, NEWEST, RATIO_MAX, Packing, PackingError
from offgrid_transports.records import RecordError
from offgrid_transports.shared_frames import (
    ID_BYTES,
    OVERHEARD_MAX,
    AskShared,
    Coded,
    Overheard,
    crypt,
    read_ask,
    write_ask,
    write_coded,
)

PACKING = Packing()
WORDS = (b"cytqnipjck5ni22vi44abd75npfuv53j", b"completed", b"\xf5", b"builtin:echo")


def packed(data: bytes) -> None:
    """What was packed comes out as it went in; of anything else comes no more than is allowed."""
    script = Script(data)
    body = b"".join(script.pick((*WORDS, script.take())) for _ in range(script.below(8)))
    assert unfold(fold(body)) == body
    said = PACKING.pack(body, script.below(NEWEST + 2))
    if said is not None:
        assert PACKING.unpack(said) == body
        _unpacked(script.damaged(said))
    _unpacked(script.rest())


def _unpacked(said: bytes) -> None:
    try:
        body = PACKING.unpack(said)
        folded = unfold(said)
    except (PackingError, FoldError):
        return
    assert len(body) <= min(BLOCK_BYTES_MAX, 2 * RATIO_MAX * len(said))
    assert len(folded) <= 2 * len(said)


def blocks(data: bytes) -> None:
    """Requests for blocks of any bytes: what is read would be written so again; and a shelf that is asked for anything
    holds no more than it may."""
    readers: tuple[tuple[Callable[[bytes], object], Callable[..., bytes]], ...] = (
        (read_read, write_read),
        (read_write, write_write),
        (read_partial, write_partial),
        (read_ask, write_ask),
    )
    for read, write in readers:
        try:
            asked = read(data)
        except RecordError:
            continue
        assert write(asked) == data
    script, now_ms = Script(data), [0.0]
    shelf = Shelf(lambda: now_ms[0], 2 * LONG_BYTES_MAX)
    while not script.ended:
        now_ms[0] += script.pick((0, 1, 1_000, 700_000))
        peer, digest, total = f"p{script.below(4)}", bytes((script.below(5),)), script.below(1 << 16) << script.below(9)
        if script.below(4):
            held = shelf.open(peer, digest, min(max(total, 1), LONG_BYTES_MAX))
            held.add(script.below(3), script.take())
            assert len(held.data) <= held.total
        else:
            shelf.drop(peer, digest)
        assert shelf.bytes <= 2 * LONG_BYTES_MAX
        assert len(shelf) <= 20


def coded(data: bytes) -> None:
    """Coded frames, damaged or not, of many payloads and of anybody: what was said whole comes out whole, unless a
    member has said something else by the same id; and so many are kept and no more."""
    script, overheard = Script(data), Overheard(PSK)
    said, forged = dict[bytes, tuple[Encoder, AskShared, bytes]](), set[bytes]()
    while not script.ended:
        match script.below(5):
            case 0:
                payload, id_ = script.take() * 3 or b"x", bytes((script.below(40),)) * ID_BYTES
                asked = AskShared(digest_of(payload), id_, 0x501)
                if id_ not in said:
                    room = max(16, len(payload) // (1 + script.below(12)))
                    said[id_] = Encoder(id_, crypt(PSK, asked.digest, id_, payload), room), asked, payload
            case 1 | 2 if said:
                encoder, asked, _ = script.pick(list(said.values()))
                number = script.below(1 << 16) if script.below(3) == 0 else script.below(encoder.count)
                _hear(overheard, write_coded(PSK, Coded(asked.id, encoder.length, number, encoder.symbol(number))))
            case 3:
                id_ = bytes((script.below(40),)) * ID_BYTES
                forged.add(id_)
                _hear(overheard, write_coded(PSK, Coded(id_, script.below(1 << 16), script.byte(), script.take())))
            case _:
                _hear(overheard, script.take())
        assert len(overheard) <= OVERHEARD_MAX
    for id_, (_, asked, payload) in said.items():
        if overheard.missing(id_) == 0 and id_ not in forged:
            assert overheard.payload(asked) == payload


def _hear(overheard: Overheard, frame: bytes) -> None:
    try:
        overheard.on_frame(frame)
    except RecordError:
        return
