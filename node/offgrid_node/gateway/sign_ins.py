"""Who has shown the gateway's token: programs at each request, browsers once, for a cookie that is not the token.

Pure but for the secrets that it makes; times are milliseconds of a clock that only goes forwards. All tables are
bounded. Where too many wrong tokens came from (`tries.py`) a right one is not even looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus

from offgrid_node.gateway.faults import Refusal
from offgrid_node.gateway.tries import Tries, site_of

SESSIONS_MAX = 64
SESSION_MS = 12 * 3_600_000  # since it was last used
CODES_MAX = 8
CODE_MS = 120_000
SECRET_BYTES = 32
CHALLENGE = 'Bearer realm="offgrid-node"'  # RFC 6750
CHALLENGED = (("WWW-Authenticate", CHALLENGE),)
HOW = "send it as 'Authorization: Bearer TOKEN' (gateway.token in the node's offgrid.toml), or sign in at /"


class Session:
    """One browser's sign-in, until `until_ms`, which each use puts off."""

    def __init__(self, until_ms: int) -> None:
        self.until_ms = until_ms
        self._ended = asyncio.Event()

    def end(self) -> None:
        self.until_ms = 0
        self._ended.set()

    async def over(self, now_ms: Callable[[], int]) -> None:
        """Returns once it is: signed out, pushed out by others, or too long without use."""
        while (left_ms := self.until_ms - now_ms()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_ms / 1000):
                    await self._ended.wait()


class SignIns:
    """Of one gateway."""

    def __init__(self, token: str, cookie: str, on_last_try: Callable[[str], None] = lambda site: None) -> None:
        """`cookie` is the cookie's name: browsers share cookies between all ports of an address."""
        self.cookie = cookie
        self._token = _digest(token)
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()  # by the digest of the cookie's value
        self._codes: OrderedDict[bytes, int] = OrderedDict()  # digest → until when
        self._tries = Tries(on_last_try)

    # ---- programs

    def missing(self) -> Refusal:
        """The answer to who brings nothing."""
        text = f"this node wants its token: {HOW}"
        return Refusal(HTTPStatus.UNAUTHORIZED, "TokenMissing", text, CHALLENGED)

    def check_token(self, token: str, peer: str, now_ms: int) -> Refusal | None:
        return self._check(self._token, token, peer, now_ms)

    # ---- browsers

    def session_of(self, cookies: Iterable[str], now_ms: int) -> Session | None:
        """That of one of these; it then goes on."""
        for value in cookies:
            digest = _digest(value)
            session = self._sessions.get(digest)
            if session is not None and session.until_ms > now_ms:
                session.until_ms = now_ms + SESSION_MS
                self._sessions.move_to_end(digest)
                return session
        return None

    def sign_in(self, token: str, peer: str, now_ms: int) -> str | Refusal:
        """A cookie's value for the token."""
        return self.check_token(token, peer, now_ms) or self._session(now_ms)

    def sign_in_by_code(self, code: str, peer: str, now_ms: int) -> str | Refusal:
        """A cookie's value for a code that `make_code` gave; once, and within CODE_MS."""
        digest = _digest(code)
        wanted = digest if self._codes.get(digest, 0) > now_ms else b""
        if refusal := self._check(wanted, code, peer, now_ms):
            return refusal
        del self._codes[digest]
        return self._session(now_ms)

    def sign_out(self, cookies: Iterable[str]) -> None:
        for value in cookies:
            if session := self._sessions.pop(_digest(value), None):
                session.end()

    def make_code(self, now_ms: int) -> tuple[str, int]:
        """For a link that signs one browser in, and for how many seconds it does."""
        made = secrets.token_urlsafe(SECRET_BYTES)
        self._codes[_digest(made)] = now_ms + CODE_MS
        if len(self._codes) > CODES_MAX:
            self._codes.popitem(last=False)
        return made, CODE_MS // 1000

    def _session(self, now_ms: int) -> str:
        made = secrets.token_urlsafe(SECRET_BYTES)
        self._sessions[_digest(made)] = Session(now_ms + SESSION_MS)
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)[1].end()
        return made

    # ---- guessing

    def _check(self, wanted: bytes, said: str, peer: str, now_ms: int) -> Refusal | None:
        wait_ms = self._tries.wait_ms(peer, now_ms)
        if not wait_ms:
            if hmac.compare_digest(_digest(said), wanted):
                return None
            self._tries.count_wrong(peer, now_ms)
            wait_ms = self._tries.wait_ms(peer, now_ms)
        return _too_many(site_of(peer), wait_ms) if wait_ms else _wrong()


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
