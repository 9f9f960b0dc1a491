"""Who has shown the gateway's token: programs at each request, browsers once, for a cookie that is not the token.

Pure but for the secrets that it makes; times are milliseconds of a clock that only goes forwards. All tables are
bounded. Wrong tries cost their address some of ITS tries, one of which comes back every TRY_BACK_MS; a right token is
not even looked at before.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus

from offgrid_node.gateway.faults import Refusal

SESSIONS_MAX = 64
SESSION_MS = 12 * 3_600_000  # since it was last used
CODES_MAX = 8
CODE_MS = 120_000
TRIES_MAX, TRY_BACK_MS = 10, 6_000
ADDRESSES_MAX = 4_096
SECRET_BYTES = 32
CHALLENGE = 'Bearer realm="offgrid-node"'  # RFC 6750
HOW = "send it as 'Authorization: Bearer TOKEN' (gateway.token in the node's offgrid.toml), or sign in at /"


class SignIns:
    """Of one gateway."""

    def __init__(self, token: str, cookie: str) -> None:
        """`cookie` is the cookie's name: browsers share cookies between all ports of an address."""
        self.cookie = cookie
        self._token = _digest(token)
        self._sessions: OrderedDict[bytes, int] = OrderedDict()  # digest → until when
        self._codes: OrderedDict[bytes, int] = OrderedDict()
        self._tries: OrderedDict[str, tuple[int, int]] = OrderedDict()  # address → tries that are left, as of when

    # ---- programs

    def missing(self) -> Refusal:
        """The answer to who brings nothing."""
        text = f"this node wants its token: {HOW}"
        return Refusal(HTTPStatus.UNAUTHORIZED, "TokenMissing", text, (("WWW-Authenticate", CHALLENGE),))

    def check_token(self, token: str, peer: str, now_ms: int) -> Refusal | None:
        return self._check(self._token, token, peer, now_ms)

    # ---- browsers

    def knows(self, cookies: Iterable[str], now_ms: int) -> bool:
        """Whether one of these is a session's; it then goes on."""
        for value in cookies:
            digest = _digest(value)
            if self._sessions.get(digest, 0) > now_ms:
                self._sessions[digest] = now_ms + SESSION_MS
                self._sessions.move_to_end(digest)
                return True
        return False

    def sign_in(self, token: str, peer: str, now_ms: int) -> str | Refusal:
        """A cookie's value for the token."""
        return self.check_token(token, peer, now_ms) or self._session(now_ms)

    def sign_in_by_code(self, code: str, peer: str, now_ms: int) -> str | Refusal:
        """A cookie's value for a code that `make_code` gave; once, and within CODE_MS."""
        digest = _digest(code)
        until_ms = self._codes.pop(digest, None)
        wanted = digest if until_ms is not None and until_ms > now_ms else b""
        return self._check(wanted, code, peer, now_ms) or self._session(now_ms)

    def sign_out(self, cookies: Iterable[str]) -> None:
        for value in cookies:
            self._sessions.pop(_digest(value), None)

    def make_code(self, now_ms: int) -> tuple[str, int]:
        """For a link that signs one browser in, and for how many seconds it does."""
        return self._put(self._codes, CODES_MAX, now_ms + CODE_MS), CODE_MS // 1000

    def _session(self, now_ms: int) -> str:
        return self._put(self._sessions, SESSIONS_MAX, now_ms + SESSION_MS)

    @staticmethod
    def _put(table: OrderedDict[bytes, int], most: int, until_ms: int) -> str:
        made = secrets.token_urlsafe(SECRET_BYTES)
        table[_digest(made)] = until_ms
        if len(table) > most:
            table.popitem(last=False)
        return made

    # ---- guessing

    def _check(self, wanted: bytes, said: str, peer: str, now_ms: int) -> Refusal | None:
        address = _site_of(peer)
        left, since_ms = self._tries_left(address, now_ms)
        right = left > 0 and hmac.compare_digest(_digest(said), wanted)
        left = left if right else max(0, left - 1)
        if left < TRIES_MAX:
            self._tries[address] = left, since_ms
            if len(self._tries) > ADDRESSES_MAX:
                self._tries.popitem(last=False)
        if right:
            return None
        return _wrong() if left else _too_many(address, since_ms + TRY_BACK_MS - now_ms)

    def _tries_left(self, address: str, now_ms: int) -> tuple[int, int]:
        """And since when the next one is on its way back."""
        left, since_ms = self._tries.pop(address, (TRIES_MAX, now_ms))
        back = (now_ms - since_ms) // TRY_BACK_MS
        if left + back >= TRIES_MAX:
            return TRIES_MAX, now_ms
        return left + back, since_ms + back * TRY_BACK_MS


def _wrong() -> Refusal:
    text = f"that is not this node's token, or the link's code was used or is too old: {HOW}"
    challenge = f'{CHALLENGE}, error="invalid_token"'
    return Refusal(HTTPStatus.UNAUTHORIZED, "TokenWrong", text, (("WWW-Authenticate", challenge),))


def _too_many(address: str, wait_ms: int) -> Refusal:
    wait_s = max(1, -(-wait_ms // 1000))
    text = f"too many wrong tokens came from {address}; try again in {wait_s} s"
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "TooManyTries", text, (("Retry-After", str(wait_s)),))


def _digest(text: str) -> bytes:
    """Of the same length whatever the text's, so that comparing tells nothing of either."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _site_of(peer: str) -> str:
    """The address, or of IPv6 the network that one machine commonly has for itself."""
    with suppress(ValueError):
        address = ipaddress.ip_address(peer)
        if isinstance(address, ipaddress.IPv6Address):
            return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))
    return peer
