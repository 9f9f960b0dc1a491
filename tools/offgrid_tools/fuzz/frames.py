"""Targets of what arrives in a frame or a datagram: records, messages and their pieces, handshakes, sealed frames,
beacons, streams of frames, and the probes of UDP."""

from __future__ import annotations

import hashlib
import math

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from offgrid_tools.fuzz.script import Script
from offgrid_tools.soak.chance import chance
from offgrid_transports import mtu_search, stream_frames
from offgrid_transports.beacons import BEACON, TAG_BYTES, TOLD_BYTES_MAX, Beacon, read_beacon, write_beacon
from offgrid_transports.gathering import Contradiction, Gathering, MessageTooLarge, NoRoom
from offgrid_transports.handshake import HELLO_BYTES, WELCOME_BYTES, Door, Hello, Own
from offgrid_transports.messages import cut, read_request, read_response, request, response
from offgrid_transports.noise import HandshakeFailed
from offgrid_transports.records import (
    Ack,
    Echo,
    Part,
    Poll,
    Record,
    RecordError,
    Said,
    Whole,
    parse,
    part_head,
    whole_head,
    write_ack,
    write_echo,
    write_poll,
    write_signal,
)
from offgrid_transports.relay import frames as relay
from offgrid_transports.sealing import EPOCH_FRAMES, WINDOW_FRAMES, NotOpened, Opener, Sealer, Suite
from offgrid_transports.tellings import SAID_BYTES_MAX, TELLING, Telling, read_telling, write_telling

PSK = bytes(range(32))
HEAD = b"\0\0\7"
HELD_BYTES_MAX = 20_000
STREAM_BYTES_MAX = 200
EPOCHS_MAX = 3


def key_of(name: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def public_of(name: str) -> bytes:
    return key_of(name).public_key().public_bytes_raw()


def write_record(record: Record) -> bytes:
    """As it stands in a frame."""
    match record:
        case Ack():
            missing = sum(1 << age - 1 for age in record.missing)
            return write_ack(record.newest, record.delay_ms, record.span, missing)
        case Poll():
            return write_poll(record.more, record.span)
        case Said():
            return write_signal(record.signal, record.call)
        case Echo():
            return write_echo(answers=record.answers, number=record.number)
        case Whole():
            return whole_head(request=record.request, call=record.call, flags=record.flags) + record.rest
        case Part():
            head = part_head(request=record.request, call=record.call, offset=record.offset, last=record.last)
            return head + record.data


def records(data: bytes) -> None:
    """What is read would be written so again."""
    try:
        found = parse(data)
    except RecordError:
        return
    assert b"".join(map(write_record, found)) == data


def messages(data: bytes) -> None:
    """A message of pieces, as a request and as a response; what is read would be written so again."""
    try:
        message = cut(data)
    except RecordError:
        return
    assert message.whole == data
    try:
        asked = read_request(message)
    except RecordError:
        pass
    else:
        assert request(asked.method, asked.timeout_ms, asked.body, packed=asked.packed) == message
    try:
        answered = read_response(message)
    except RecordError:
        return
    assert response(answered.body, error=answered.error, partial=answered.partial, packed=answered.packed) == message


def gathering(data: bytes) -> None:
    """Pieces of many messages of many peers: budgets hold, and what is complete holds the bytes that were said last or
    first of each place."""
    script = Script(data)
    held = Gathering(
        peers_max=3, messages_per_peer_max=3, peer_bytes_max=HELD_BYTES_MAX // 2, bytes_max=HELD_BYTES_MAX, idle_ms=100
    )
    evicted: list[object] = []
    held.on_evicted = lambda peer, key: evicted.append((peer, key))
    now_ms = 0
    while not script.ended:
        now_ms += script.byte()
        peer, key = f"p{script.below(5)}", script.below(5)
        offset = script.below(1 << 16) << script.pick((0, 0, 0, 8))
        piece = script.take() or b"x"
        try:
            one = held.add(now_ms, peer, key, offset, piece * script.pick((1, 1, 40)), last=bool(script.below(2)))
        except (Contradiction, MessageTooLarge, NoRoom):
            one = None
        assert held.held_bytes <= HELD_BYTES_MAX, f"{held.held_bytes} bytes are held"
        assert len(held) <= 9, f"{len(held)} messages are held"
        if one is not None and one.complete:
            assert len(one.message()) == one.end
            held.drop(peer, key)
    for number in range(25):
        held.drop(f"p{number // 5}", number % 5)
    assert (held.held_bytes, len(held)) == (0, 0), "what is dropped costs nothing"


def handshakes(data: bytes) -> None:
    """A hello and a welcome, made anew, with some things wrong; and whatever else says to be one. Only those that
    nothing is wrong with make a session, and a table stays within its bounds."""
    script, numbers = Script(data), chance("numbers")
    ours, theirs = Own(key_of("node"), PSK), Own(key_of("peer"), PSK)
    door = Door(ours, lambda: numbers.randrange(1 << 16))
    suite = script.pick((*Suite,))
    hello = Hello(theirs, public_of("node"), suite, script.below(1 << 16), script.below(1 << 16), script.take())
    frame, whole = hello.frame, hello.frame
    for _ in range(script.below(3)):
        frame = script.damaged(frame)
    if script.below(2):
        frame = bytes((script.byte(),)) + ours.hint + script.rest()
    try:
        greeted = door.greet(0, frame) if door.is_meant(frame) else None
    except HandshakeFailed:
        greeted = None
    assert (greeted is not None) == (frame == whole), "whoever knows nothing has a session, or who knows all has none"
    if greeted is None:
        return
    assert greeted.fresh
    door.keep(frame, greeted)
    assert door.answered(frame) == (greeted.ours, greeted.frame)
    welcome = script.damaged(greeted.frame) if script.below(2) else greeted.frame
    try:
        sid, keys = hello.welcomed(welcome)
    except HandshakeFailed:
        assert welcome != greeted.frame
        return
    assert (sid, keys.sending, keys.receiving) == (greeted.ours, greeted.keys.receiving, greeted.keys.sending)
    assert welcome == greeted.frame, "a welcome that was altered makes a session"
    assert (len(frame), len(welcome)) >= (HELLO_BYTES, WELCOME_BYTES)


def sealed(data: bytes) -> None:
    """Frames of a session in any order, many times, damaged, and of nobody: each that was sealed opens once at most and
    to what was sealed, and no other opens."""
    script = Script(data)
    suite = script.pick((*Suite,))
    sealer, opener = Sealer(suite, bytes(32)), Opener(suite, bytes(32))
    frames: list[tuple[bytes, int, bytes]] = []
    opened: set[int] = set()
    while not script.ended:
        match script.below(5):
            case 0:
                clear, count = script.take(), sealer.count
                frames.append((sealer.seal(HEAD, clear), count, clear))
            case 1 if sealer.count & EPOCH_FRAMES - 1 and sealer.count < EPOCHS_MAX * EPOCH_FRAMES:
                # so many are lost, but for the first of the next epoch: sealing that one renews the key
                sealer.count = min(sealer.count + script.below(1 << 16), (sealer.count | EPOCH_FRAMES - 1) + 1)
            case 2 if frames:
                _open(opener, opened, *script.pick(frames))
            case 3 if frames:
                frame, _, _ = script.pick(frames)
                _refused(opener, script.damaged(frame), {each for each, _, _ in frames})
            case _:
                _refused(opener, HEAD + script.take(), {each for each, _, _ in frames})
    assert opener.seen.bit_length() <= WINDOW_FRAMES


def _open(opener: Opener, opened: set[int], frame: bytes, count: int, clear: bytes) -> None:
    try:
        said = opener.open(frame, len(HEAD))
    except NotOpened:
        return
    assert said == (count, clear), "a frame opens as another one"
    assert count not in opened, "a frame opens twice"
    opened.add(count)


def _refused(opener: Opener, frame: bytes, known: set[bytes]) -> None:
    if frame in known:
        return
    try:
        opener.open(frame, len(HEAD))
    except NotOpened:
        return
    raise AssertionError("a frame that nobody has sealed opens")


def beacons(data: bytes) -> None:
    """Only what a member wrote is one."""
    script = Script(data)
    tag, stamp = script.cut(TAG_BYTES).ljust(TAG_BYTES, b"\0"), script.below(1 << 16)
    whole = write_beacon(PSK, Beacon(tag, stamp, script.below(1 << 16), script.cut(TOLD_BYTES_MAX)))
    frame = script.damaged(whole) if script.below(2) else bytes((BEACON,)) + script.rest()
    said = read_beacon(PSK, frame)
    assert (said is not None) == (frame == whole)
    again = read_beacon(PSK, whole)
    assert again is not None
    assert write_beacon(PSK, again) == whole


def tellings(data: bytes) -> None:
    """As with beacons; and there is no telling of nothing."""
    script = Script(data)
    tag, stamp = script.cut(TAG_BYTES).ljust(TAG_BYTES, b"\0"), script.below(1 << 16)
    whole = write_telling(PSK, Telling(tag, stamp, script.cut(SAID_BYTES_MAX)))
    frame = script.damaged(whole) if script.below(2) else bytes((TELLING,)) + script.rest()
    said = read_telling(PSK, frame)
    assert (said is not None) == (frame == whole and len(whole) > len(write_telling(PSK, Telling(tag, stamp, b""))))
    assert said is None or write_telling(PSK, said) == whole


def relay_words(data: bytes) -> None:
    """What relays say to each other, by who knows the mesh's secret: what is read would be written so again, but for
    measures, which are rounded."""
    try:
        said = relay.read(PSK, data + relay.mac_of(PSK, data, shared=True), shared=True)
    except relay.NoWord:
        return
    written = relay.write(PSK, said, shared=True)
    rounded = isinstance(said, relay.Ask | relay.Answer | relay.Open)
    assert written[: -relay.mac_bytes(shared=True)] == data or rounded
    assert relay.read(PSK, written, shared=True) == said


def streams(data: bytes) -> None:
    """A stream of frames, cut anywhere: no more is held than one frame and what came last, and the same frames come out
    however it is cut."""
    script = Script(data)
    begins = stream_frames.hello(STREAM_BYTES_MAX) if script.below(4) else b""
    pieces = [begins, *script.pieces()]
    at_once, why = _deframed([b"".join(pieces)])
    frames, other = _deframed(pieces)
    assert (frames, bool(why)) == (at_once, bool(other)), "how a stream is cut tells"
    assert all(frame and len(frame) <= STREAM_BYTES_MAX and frame[0] < 0xF0 for frame in frames)
    again = stream_frames.hello(STREAM_BYTES_MAX) + b"".join(map(stream_frames.framed, frames))
    assert _deframed([again]) == (frames, "")


def _deframed(pieces: list[bytes]) -> tuple[list[bytes], str]:
    deframer = stream_frames.Deframer(STREAM_BYTES_MAX)
    frames: list[bytes] = []
    for piece in pieces:
        deframer.feed(piece)
        try:
            while (frame := deframer.take()) is not None:
                frames.append(frame)
        except stream_frames.Garbage as error:
            return frames, str(error)
        assert deframer.held <= STREAM_BYTES_MAX + 2, f"{deframer.held} bytes are held"
    return frames, ""


def probes(data: bytes) -> None:
    """Probes and echoes of UDP, in any order and of anybody: lengths stay within bounds, an echo is shorter than what
    asked for it, and a search is never stuck."""
    script, now_ms = Script(data), 0.0
    most = script.pick((512, 1200, 8952, 65_507))
    search = mtu_search.MtuSearch(chance(f"{script.byte()}/probes"), most)
    probe: bytes | None = None
    while not script.ended:
        now_ms += script.pick((0, 1, 100, 700, 5_000, 700_000))
        match script.below(6):
            case 0:
                search.on_used(now_ms, script.below(most) + 1)
            case 1:
                probe = search.take_probe(now_ms) or probe
                assert probe is None or len(probe) <= most
            case 2 if probe is not None:
                search.on_echo(now_ms, mtu_search.echo_of(probe) or b"")
            case 3 if probe is not None:
                search.on_echo(now_ms, script.damaged(mtu_search.echo_of(probe) or b""))
            case 4:
                search.on_too_long(now_ms, script.below(1 << 16))
            case _:
                asked = bytes((mtu_search.PROBE,)) * script.below(2) + script.take() * script.byte()
                echo = mtu_search.echo_of(asked)
                assert echo is None or len(echo) < len(asked)
                search.on_echo(now_ms, script.take())
        assert min(mtu_search.BASE, most) <= search.mtu_bytes <= most
    search.on_used(now_ms, most)
    assert search.wakes_ms() < math.inf or search.mtu_bytes == most
