"""The table of targets: what reads what strangers send, and how often a test tries something new on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from offgrid_tools.fuzz import frames, modems, nearby, nodes, relays, texts, words


class Target(NamedTuple):
    """`check` takes any bytes and returns; whatever it raises is a find. `tries`: mutations in a test."""

    check: Callable[[bytes], None]
    tries: int = 500


TARGETS: dict[str, Target] = {
    "records": Target(frames.records, 1500),
    "messages": Target(frames.messages, 1500),
    "gathering": Target(frames.gathering),
    "handshakes": Target(frames.handshakes, 180),
    "sealed": Target(frames.sealed),
    "beacons": Target(frames.beacons, 900),
    "tellings": Target(frames.tellings, 900),
    "relay-words": Target(frames.relay_words, 900),
    "streams": Target(frames.streams, 900),
    "probes": Target(frames.probes),
    "packed": Target(words.packed),
    "blocks": Target(words.blocks),
    "coded": Target(words.coded, 180),
    "kiss": Target(modems.kiss_frames, 900),
    "stream-messages": Target(modems.stream_messages, 900),
    "protobufs": Target(modems.protobufs, 900),
    "modem-answers": Target(modems.modem_answers, 180),
    "radio-links": Target(modems.radio_links, 30),
    "advertisements": Target(nearby.advertisements),
    "greetings": Target(nearby.greetings, 900),
    "values": Target(nearby.values),
    "descriptions": Target(texts.descriptions, 900),
    "addresses": Target(texts.addresses, 900),
    "regions": Target(texts.regions, 180),
    "own-regions": Target(texts.own_regions, 180),
    "between": Target(nodes.between, 36),
    "members": Target(nodes.members, 36),
    "relays": Target(relays.relays, 20),
}
