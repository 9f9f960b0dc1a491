"""Which requests must be signed, and the signatures that came, on disk: a replay is one after a restart, too.

With `gateway.auth_key` set, /auction and /run, by which machines of the prototype talk to each other, are answered only
to those who sign or have the gateway's token, on this machine too. On the other paths a signature does instead of the
token; one that is there and is wrong is never passed over. Signatures are looked at one after another, aside from the
loop; where too many wrong ones came from (`tries.py`) none is looked at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from starlette.types import Scope

from offgrid_node.gateway.edge import PROVED
from offgrid_node.gateway.last_tries import log_last_try
from offgrid_node.gateway.signed_requests import MAC_BYTES, SEEN_MAX, Seen, SignedRequests
from offgrid_node.gateway.tries import Tries, site_of
from offgrid_node.protocol.clock import Clock
from offgrid_node.protocol.errors import Exhausted, InvalidRequest, PermissionDenied, Unavailable

FILE_NAME = "signed_requests.seen"
ROW_BYTES = MAC_BYTES + 8
ROWS_MAX = 4 * SEEN_MAX  # then it is written anew, with what still counts


class SignatureGuard:
    """Of one node's gateway; without a secret nothing is signed and nothing kept."""

    def __init__(self, key: str, node_id: str, folder: Path, clock: Clock) -> None:
        self._node_id, self._clock = node_id, clock
        self._tries = Tries(partial(log_last_try, "signature"))
        self._file = SeenFile(folder / FILE_NAME)
        self._key = key.encode()
        self._signed: SignedRequests | None = None
        self._lock = asyncio.Lock()

    async def admit(self, scope: Scope, body: bytes, *, between_machines: bool = False) -> None:
        """Raises what SignedRequests.check does, Exhausted where too many wrong ones came from, Unavailable when it
        cannot be noted."""
        proved = scope.get(PROVED)
        if not self._key or proved:
            return
        if not between_machines and proved is None and b'"signature"' not in body:
            return
        async with self._lock:
            try:
                if self._signed is None:
                    self._signed = SignedRequests(self._key, self._node_id, await asyncio.to_thread(self._file.read))
                signed = self._signed
                seen = signed.take(await self._prove(signed, scope, body), self._clock.now().utc_us)
                await self._note(signed, seen)
            except OSError as error:
                text = f"{self._file.path}: {error.strerror}; signed requests are not taken before it can be kept"
                raise Unavailable(text, reason="SignatureNotKept") from error

    async def _note(self, signed: SignedRequests, seen: Seen) -> None:
        """Raises OSError; then it was never taken."""
        rows = signed.seen if self._file.is_due else [seen]
        try:
            await asyncio.to_thread(self._file.write if self._file.is_due else self._file.append, rows)
        except OSError:
            signed.give_back(seen)
            raise

    async def _prove(self, signed: SignedRequests, scope: Scope, body: bytes) -> Seen:
        now, peer = self._clock.now(), (scope.get("client") or ("",))[0]
        if wait_ms := self._tries.wait_ms(peer, now.mono_ms):
            text = f"too many wrong signatures came from {site_of(peer)}"
            raise Exhausted(text, reason="TooManyTries", retry_ms=wait_ms)
        try:
            return await asyncio.to_thread(signed.prove, body, now.utc_us, scope.get("path", ""))
        except (PermissionDenied, InvalidRequest) as fault:
            if isinstance(fault, InvalidRequest) or fault.reason == "SignatureInvalid":
                self._tries.count_wrong(peer, now.mono_ms)
            raise


class SeenFile:
    """Rows of a signature and its time, fsynced before the request is carried out. Half a row at the end is of one that
    never was; the first write of a process is of all, and so is that after one that failed, so no row follows it.
    Methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: int | None = None

    @property
    def is_due(self) -> bool:
        """Whether the next write is to be of all rows."""
        return self._rows is None or self._rows >= ROWS_MAX

    def read(self) -> list[Seen]:
        try:
            rows = self.path.read_bytes()[: 2 * ROWS_MAX * ROW_BYTES]
        except FileNotFoundError:
            return []
        whole = len(rows) - len(rows) % ROW_BYTES
        return [_seen_of(rows[at : at + ROW_BYTES]) for at in range(0, whole, ROW_BYTES)]

    def write(self, rows: Sequence[Seen]) -> None:
        """In place of what is there."""
        beside = self.path.with_name(f"{self.path.name}.new")
        with beside.open("wb") as file:
            _put(file.fileno(), rows)
        beside.replace(self.path)
        self._rows = len(rows)

    def append(self, rows: Sequence[Seen]) -> None:
        before, self._rows = self._rows or 0, None
        with self.path.open("ab") as file:
            _put(file.fileno(), rows)
        self._rows = before + len(rows)


def _put(fd: int, rows: Sequence[Seen]) -> None:
    text = b"".join(seen.mac + max(0, seen.at_us).to_bytes(8, "big") for seen in rows)
    while text:
        text = text[os.write(fd, text) :]
    os.fsync(fd)


def _seen_of(row: bytes) -> Seen:
    return Seen(row[:MAC_BYTES], int.from_bytes(row[MAC_BYTES:], "big"))
