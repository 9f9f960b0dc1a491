"""Requests signed with a shared secret, as clients of the prototype send them (HMAC, RFC 2104, SHA-256). Pure: the
caller gives the time, and writes down what is to be remembered.

A body is a JSON object with `timestamp` and `signature`. Signed are the UTF-8 bytes of the object without `signature`,
as canonical JSON: keys sorted by code point, no blanks, no escapes that JSON does not need, and numbers as they stand
in the body (two languages write 0.50 in two ways; what counts is what was sent). What Python's `json.dumps(payload,
sort_keys=True)` writes, with blanks after "," and ":" or with "\\u" escapes, is taken as well. The signature is 64
hexadecimal digits, or base64.

What is cheap is looked at first, and no body of more than SIGNED_BYTES_MAX: who cannot sign may not cost much. A
signature is taken once by each node. It proves that its maker knows the secret, and what the body was meant for as far
as it says so: `signed_path` for which path, `signed_node` for which node.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

from offgrid.moments import us_since_1970
from offgrid_node.protocol.errors import Exhausted, InvalidRequest, PermissionDenied

WINDOW_S = 300
WINDOW_US = WINDOW_S * 1_000_000
SEEN_MAX = 65_536  # in all windows that overlap, 600 s: a hundred a second
NESTING_MAX = 64
SIGNED_PATH, SIGNED_NODE = "signed_path", "signed_node"
SIGNED_BYTES_MAX = 256 * 1024
MAC_BYTES = 32
TIME_RULE = "seconds or milliseconds since 1970, or ISO 8601 such as 2026-11-23T04:15:00Z"
_SPACED = {",": ", ", ":": ": "}
_NOT_ASCII = re.compile(r"[^ -~]+")
_quoted = json.JSONEncoder(ensure_ascii=False).encode


class Seen(NamedTuple):
    """A signature that was taken, and when what it signed was made (UTC, microseconds)."""

    mac: bytes
    at_us: int


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


class SignedRequests:
    """One secret, and the signatures made with it that have come and could come again."""

    def __init__(self, key: bytes, node_id: str, seen: Iterable[Seen] = ()) -> None:
        """`node_id` is of this node, `seen` what an earlier life of it took."""
        self._key, self._node_id = key, node_id
        self._seen: set[bytes] = set()
        self._by_age: list[tuple[int, bytes]] = []
        self._forgotten_us = 0  # up to this time no replay would be noticed any more
        for each in sorted(seen, key=lambda each: each.at_us)[-SEEN_MAX:]:
            self._remember(each)

    @property
    def seen(self) -> Sequence[Seen]:
        """What has to outlive a restart."""
        return [Seen(mac, at_us) for at_us, mac in self._by_age]

    def check(self, body: bytes, now_us: int, path: str = "") -> Seen:
        """`prove` and `take`."""
        return self.take(self.prove(body, now_us, path), now_us)

    def prove(self, body: bytes, now_us: int, path: str) -> Seen:
        """What was signed with the secret, within the window, for `path` and this node if it says for which. Raises
        PermissionDenied with the reason, Exhausted for a body that is too large, and InvalidRequest for what is no JSON
        object. Changes nothing: any thread may call."""
        if len(body) > SIGNED_BYTES_MAX:
            text = f"a signed body has at most {SIGNED_BYTES_MAX} bytes; larger ones are taken with the gateway's token"
            raise Exhausted(text, reason="RequestTooLarge")
        signed = read_numbers_as_written(body)
        said = signed.pop("signature", None)
        if said in (None, ""):
            raise _refused("SignatureMissing", "the body has no signature: HMAC-SHA256 over the rest of it, see /docs")
        at_us = timestamp_us(signed.get("timestamp"))
        _check_window(at_us, now_us)
        mac = _mac_of(said)
        if not (mac and self._matches(signed, mac)):
            text = "the signature is not that of this body: is the secret the same, and was the very body signed?"
            raise _refused("SignatureInvalid", text)
        for name, here in ((SIGNED_PATH, path), (SIGNED_NODE, self._node_id)):
            if (meant := signed.get(name)) not in (None, here):
                text = f"{name}: this was signed for {str(meant)[:64]!r}, and came to {here[:64]!r}"
                raise _refused("SignatureMisplaced", text)
        return Seen(mac, at_us)

    def take(self, proved: Seen, now_us: int) -> Seen:
        """It is a replay from now on, unless it is given back. Raises PermissionDenied with the reason, Exhausted when
        no more can be remembered."""
        mac, at_us = proved
        self._forget(now_us)
        if mac in self._seen:
            raise _refused("SignatureReplayed", "this request has come before; make a new one with a new timestamp")
        if at_us <= self._forgotten_us:
            raise _refused("SignatureExpired", "this node's clock was set back, and it has taken requests made later")
        if len(self._seen) >= SEEN_MAX:
            retry_ms = max(1_000, (self._by_age[0][0] + WINDOW_US - now_us) // 1_000)
            text = f"{SEEN_MAX} signed requests came within {2 * WINDOW_S} s; no more are taken before some are older"
            raise Exhausted(text, reason="TooManySigned", retry_ms=retry_ms)
        return self._remember(proved)

    def give_back(self, taken: Seen) -> None:
        """It was not carried out, so it may come again."""
        self._seen.discard(taken.mac)
        self._by_age.remove((taken.at_us, taken.mac))
        heapify(self._by_age)

    def _matches(self, signed: dict[str, Any], mac: bytes) -> bool:
        """All forms are tried whichever it is, so that time tells nothing."""
        right = False
        for form in forms(signed):
            right |= hmac.compare_digest(mac_of(self._key, form), mac)
        return right

    def _remember(self, seen: Seen) -> Seen:
        self._seen.add(seen.mac)
        heappush(self._by_age, (seen.at_us, seen.mac))
        return seen

    def _forget(self, now_us: int) -> None:
        while self._by_age and self._by_age[0][0] < now_us - WINDOW_US:
            self._forgotten_us, mac = heappop(self._by_age)
            self._seen.discard(mac)


def mac_of(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, hashlib.sha256)


def canonical(value: object) -> bytes:
    """What is signed, of what `read_numbers_as_written` gave. Raises InvalidRequest when it is nested too deeply."""
    return next(iter(forms(value)))


def forms(value: object) -> Iterator[bytes]:
    """Canonical JSON, then as Python may write it: with escapes, with blanks, with both. Raises InvalidRequest when it
    is nested too deeply."""
    tokens: list[str] = []
    _write(value, tokens.append, NESTING_MAX)
    spaced = [_SPACED.get(token, token) for token in tokens]  # a text has its quotes, so it is never "," alone
    for form in (tokens, spaced):
        text = "".join(form)
        yield text.encode("utf-8", "surrogatepass")
        yield _NOT_ASCII.sub(_escaped, text).encode()


def _write(value: object, put: Callable[[str], None], depth: int) -> None:
    if depth < 0:
        raise InvalidRequest(f"the body is nested deeper than {NESTING_MAX}", reason="MalformedRequest")
    match value:
        case Number():
            put(value)
        case str():
            put(_quoted(value))
        case dict():
            between = "{"
            for key in sorted(value):
                put(between)
                put(_quoted(key))
                put(":")
                _write(value[key], put, depth - 1)
                between = ","
            put("}" if value else "{}")
        case list():
            between = "["
            for item in value:
                put(between)
                _write(item, put, depth - 1)
                between = ","
            put("]" if value else "[]")
        case _:
            put(json.dumps(value))


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def read_numbers_as_written(body: bytes) -> dict[str, Any]:
    """As `read_object`, with numbers that are Numbers."""
    return read_object(body, Number, Number)


def read_object(
    body: bytes, parse_int: Callable[[str], object], parse_float: Callable[[str], object]
) -> dict[str, Any]:
    """Raises InvalidRequest for what is no JSON object, and for a key that stands twice: one reader would take the
    first, another one the last."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InvalidRequest.field(key[:64], "stands twice in the same object")
            found[key] = value
        return found

    def constant(word: str) -> object:
        raise ValueError(f"{word} is no JSON value")

    try:
        read = json.loads(
            body, parse_int=parse_int, parse_float=parse_float, parse_constant=constant, object_pairs_hook=once
        )
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}", reason="MalformedRequest") from None
    if not isinstance(read, dict):
        raise InvalidRequest("the body is JSON, but no object", reason="MalformedRequest")
    return read


def timestamp_us(said: object) -> int:
    """As `utc_us_of`. Raises PermissionDenied for what is no time, or none at all."""
    if said in (None, ""):
        raise _refused("TimestampMissing", f"the body has no timestamp; allowed: {TIME_RULE}")
    at_us = utc_us_of(said)
    if at_us is None:
        raise _refused("TimestampInvalid", f"timestamp {str(said)[:64]!r} is none; allowed: {TIME_RULE}")
    return at_us


def utc_us_of(said: object) -> int | None:
    """UTC, microseconds: of seconds, milliseconds or microseconds since 1970, as a text, or of ISO 8601 (without an
    offset it is UTC). None for what is no time."""
    text = said.strip() if isinstance(said, str) else ""
    try:
        number = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
            return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)
        except (ValueError, OverflowError):
            return None
    return us_since_1970(number)


def _check_window(at_us: int, now_us: int) -> None:
    off_us = at_us - now_us
    if abs(off_us) > WINDOW_US:
        now = datetime.fromtimestamp(now_us / 1e6, UTC).isoformat(timespec="seconds")
        where = "ahead of" if off_us > 0 else "behind"
        text = f"the timestamp is {abs(off_us) / 1e6:.0f} s {where} this node's clock ({now}); at most {WINDOW_S} s are"
        raise _refused("SignatureExpired", f"{text} allowed: set the clocks, or sign when you send")


def _mac_of(said: object) -> bytes:
    """The bytes of a signature; b"" for what is none, which matches nothing."""
    text = said.strip() if isinstance(said, str) else ""
    try:
        mac = bytes.fromhex(text) if len(text) == 2 * MAC_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""
    return mac if len(mac) == MAC_BYTES else b""


def _refused(reason: str, text: str) -> PermissionDenied:
    return PermissionDenied(text, reason=reason)
