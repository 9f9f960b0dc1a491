"""Targets of what strangers nearby send over Bluetooth: advertisements, the first message of a channel, and messages in
pieces."""

from __future__ import annotations

from offgrid_tools.fuzz.script import Script
from offgrid_transports.ble import adverts, greeting, pieces
from offgrid_transports.transport import HELLO_BYTES_MAX

MESSAGE_BYTES_MAX = 300


def advertisements(data: bytes) -> None:
    """Reports of many addresses; what is understood is what would be shown so."""
    script, sightings = Script(data), adverts.Sightings()
    while not script.ended:
        address, response = f"address {script.below(100)}", bool(script.below(2))
        report = script.take()
        if script.below(2):
            shown = adverts.advertisement(adverts.Advert(script.byte(), report[:HELLO_BYTES_MAX]))
            report = shown[response] if script.below(4) else script.damaged(shown[response])
        seen = sightings.hear(address, response, report, -script.byte())
        if seen is not None:
            hello = seen.advert.hello
            assert len(hello) <= HELLO_BYTES_MAX
            again = adverts.Sightings()
            first, rest = adverts.advertisement(seen.advert)
            one = again.hear("again", False, first, -1)
            two = again.hear("again", True, rest, -1) if rest else one
            assert two is not None
            assert two.advert == seen.advert


def greetings(data: bytes) -> None:
    """Whoever speaks first, and whatever that is."""
    try:
        found = greeting.parse_greeting(data)
    except greeting.BadGreeting:
        return
    again = greeting.parse_greeting(bytes(found))
    assert again == found
    assert greeting.FRAME_BYTES_MIN <= found.frame_bytes <= greeting.FRAME_BYTES_MAX
    assert bytes(found)[: greeting.HEAD.size - 2] == data[: greeting.HEAD.size - 2]


def values(data: bytes) -> None:
    """Values of a characteristic, of a sane sender and of others, with some lost: no message is longer than is allowed,
    and one that nothing happened to arrives."""
    script = Script(data)
    cutter, joiner = pieces.Cutter(), pieces.Joiner(MESSAGE_BYTES_MAX)
    while not script.ended:
        match script.below(4):
            case 0:
                joined = joiner.join(script.take())
                assert joined is None or len(joined) <= MESSAGE_BYTES_MAX
            case 1:
                cut = cutter.cut(script.take() or b"x", 2 + script.below(30))
                for value in cut[: script.below(len(cut))]:
                    joiner.join(value)
            case _:
                message = script.take() or b"x"
                arrived = [joiner.join(value) for value in cutter.cut(message, 2 + script.below(30))]
                assert arrived[-1] == message, "a message that nothing happened to does not arrive"
    assert joiner.spoiled <= len(data)
