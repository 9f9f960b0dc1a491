"""A beacon: the first coded symbols of a node's heads, broadcast on a slow link for whoever listens.

One stream serves every listener, whatever it lacks: symbols go on from beacon to beacon, SYMBOLS in each, and who has
enough stops listening (Yang, Gilad and Alizadeh 2024; reconcile/symbols.py). Who is in sync knows that by the first.
The key is the sender's, for as long as its heads stay as they are, so what is heard in pieces fits together, and heads
that collide under it cannot be made beforehand. A listener learns which of its own heads the sender lacks, and of the
sender's only ids: their names it asks for, and blocks then, over whatever road there is.

What is heard proves nothing: a made-up beacon has a listener ask for what is not there.
"""

from __future__ import annotations

import hashlib

import msgspec

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ledger.heads import HEADS_MAX, ID_BYTES, SUMMARY_BYTES, Heads
from offgrid_node.protocol.reconcile.sessions import Asking, Showing
from offgrid_node.protocol.reconcile.symbols import CHECK_BYTES, KEY_BYTES, SymbolCode
from offgrid_node.protocol.reconcile.varints import read_varint, varint
from offgrid_node.protocol.rng import Rng

SALT_BYTES = 8  # in a beacon; the key follows from it and the summary, which nobody knows before the heads stand
SYMBOLS = 12  # in one beacon: with its head some 185 B, which a LoRa frame holds at SF7
KEY_KIND = b"og.beacon.v1"
FIRST_MAX = 2 * HEADS_MAX  # symbols; after these the sender begins anew


class Heard(msgspec.Struct, frozen=True):
    """What a listener knows of one sender's heads. `here`: authors and heights that the sender lacks; `there`: ids of
    heads that it has, to be named under `code`."""

    in_sync: bool
    here: tuple[tuple[bytes, int], ...] = ()
    there: tuple[int, ...] = ()
    code: SymbolCode | None = None


class Beacon:
    """The side that broadcasts."""

    def __init__(self, heads: Heads, genesis_digest: bytes) -> None:
        self._heads, self._genesis_digest = heads, genesis_digest
        self._summary, self._salt, self._first = b"", b"", 0
        self._showing: Showing | None = None

    def take(self, rng: Rng) -> bytes:
        """The next frame. It goes through all heads where they have moved since the last, some 10 µs each."""
        summary = self._heads.summary(self._genesis_digest)
        if self._showing is None or summary != self._summary or self._first >= FIRST_MAX:
            self._summary, self._salt, self._first = summary, rng.randbytes(SALT_BYTES), 0
            code = code_of(self._salt, summary)
            self._showing = Showing(code, self._heads.shortened(code))
        head = self._summary + self._salt + varint(self._first) + varint(self._showing.items)
        self._first += SYMBOLS
        return head + self._showing.take(SYMBOLS)


class Listener:
    """The side that hears one sender. Frames that it misses are made up for by the stream's next turn."""

    def __init__(self, heads: Heads, genesis_digest: bytes) -> None:
        self._heads, self._genesis_digest = heads, genesis_digest
        self._about = b""  # the sender's summary and key, and this side's summary: what the asking is about
        self._short: dict[int, tuple[bytes, int]] = {}
        self._asking: Asking | None = None
        self._fed = 0

    def on_frame(self, raw: bytes) -> Heard | None:
        """What is known now; None while more must be heard. Raises PeerFault (BadBeacon, BadSymbols, NoEnd)."""
        summary, salt, first, items, symbols = _decode(raw)
        own = self._heads.summary(self._genesis_digest)
        if summary == own:
            self._asking, self._about = None, b""
            return Heard(in_sync=True)
        code, about = code_of(salt, summary), summary + salt + own
        if self._asking is None or about != self._about:
            self._about, self._short, self._fed = about, self._heads.shortened(code), 0
            self._asking = Asking(code, self._short)
        if first != self._fed or self._asking.complete:
            return None if not self._asking.complete else self._heard(self._asking, code)
        self._asking.on_shown(symbols, items)
        self._fed += len(symbols) // code.symbol_bytes
        return self._heard(self._asking, code) if self._asking.complete else None

    def _heard(self, asking: Asking, code: SymbolCode) -> Heard:
        here = tuple(sorted(self._short[id_] for id_ in asking.here))
        return Heard(in_sync=False, here=here, there=tuple(sorted(asking.there)), code=code)


def code_of(salt: bytes, summary: bytes) -> SymbolCode:
    return SymbolCode(hashlib.blake2b(salt + summary, digest_size=KEY_BYTES, person=KEY_KIND).digest(), ID_BYTES)


def _decode(raw: bytes) -> tuple[bytes, bytes, int, int, bytes]:
    """Summary, salt, first symbol, items, symbols."""
    at = SUMMARY_BYTES + SALT_BYTES
    try:
        first, at = read_varint(raw, at)
        items, at = read_varint(raw, at)
    except ValueError as error:
        raise PeerFault(f"beacon: {error}", reason="BadBeacon") from error
    if first >= FIRST_MAX or items > HEADS_MAX:
        raise PeerFault(
            f"beacon: symbols from {first} on, of {items} heads; up to {FIRST_MAX}, of {HEADS_MAX}, are allowed",
            reason="BadBeacon",
        )
    if len(raw) - at > SYMBOLS * (ID_BYTES + CHECK_BYTES + 1):
        raise PeerFault(f"beacon: {len(raw) - at} bytes of symbols; {SYMBOLS} are allowed", reason="BadBeacon")
    return raw[:SUMMARY_BYTES], raw[SUMMARY_BYTES : SUMMARY_BYTES + SALT_BYTES], first, items, raw[at:]
