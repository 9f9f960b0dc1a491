"""The peer: a plain loop, one transaction, one signature, one message each, durable (FastPay's orders and certificates,
with a second phase as ours has one, and no blocks).

Four witnesses, a process each, and a client, over TCP on loopback. For each transaction the client sends the signed
order to all; each checks the owner's signature, appends its lock to a file, fsyncs, signs its vote and sends it back;
the client brings a quorum of votes to all; each checks these, appends, fsyncs, signs a confirm. With a quorum of
confirms, each checked by the client, the transaction is final. Several are under way at once, so that nobody waits.
"""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from hashlib import blake2b
from pathlib import Path

from nacl.signing import SigningKey

from offgrid_node.keys import verify

WITNESSES, QUORUM = 4, 3
IN_FLIGHT = 64
ORDER_BYTES = 124  # as one of ours without meta
SIGNATURE_BYTES = 64
START_S_MAX = 30.0
_ORDER = struct.Struct(f">BI{ORDER_BYTES}s{SIGNATURE_BYTES}s")
_CERTIFICATE = struct.Struct(f">BI32s{QUORUM}B" + f"{SIGNATURE_BYTES}s" * QUORUM)
_SAID = struct.Struct(f">BIB{SIGNATURE_BYTES}s")
ORDER, CERTIFICATE, VOTE, CONFIRM = 1, 2, 3, 4
_SIZES = {ORDER: _ORDER.size, CERTIFICATE: _CERTIFICATE.size, VOTE: _SAID.size, CONFIRM: _SAID.size}


def digest_of(kind: int, body: bytes) -> bytes:
    return blake2b(bytes((kind,)) + body, digest_size=32).digest()


def key_of(number: int) -> SigningKey:
    """Of a witness, or of the owner, who comes after them."""
    return SigningKey(bytes((number,)) * 32)


PUBLIC = [bytes(key_of(number).verify_key) for number in range(WITNESSES + 1)]
OWNER = WITNESSES


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    while True:
        try:
            head = await reader.readexactly(1)
            yield head[0], head + await reader.readexactly(_SIZES[head[0]] - 1)
        except (asyncio.IncompleteReadError, ConnectionError):  # the client has its quorum and is gone
            return


class Witness:
    """One process: `python -m offgrid_tools.bench.ledger_plain NUMBER FILE`. Prints its port."""

    def __init__(self, number: int, path: Path) -> None:
        self._number, self._key = number, key_of(number)
        self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._locks: dict[int, bytes] = {}

    async def serve(self) -> None:
        server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await server.serve_forever()

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for kind, message in _messages(reader):
            answer = self._on_order(message) if kind == ORDER else self._on_certificate(message)
            if answer is not None and not writer.is_closing():
                writer.write(answer)

    def _on_order(self, message: bytes) -> bytes | None:
        _, slot, body, signature = _ORDER.unpack(message)
        digest = digest_of(ORDER, body)
        if self._locks.get(slot, digest) != digest or not verify(PUBLIC[OWNER], digest, signature):
            return None
        self._locks[slot] = digest
        self._keep(message)
        return _SAID.pack(VOTE, slot, self._number, self._key.sign(digest_of(VOTE, digest)).signature)

    def _on_certificate(self, message: bytes) -> bytes | None:
        _, slot, digest, *rest = _CERTIFICATE.unpack(message)
        voters, votes = rest[:QUORUM], rest[QUORUM:]
        said = digest_of(VOTE, digest)
        if len(set(voters)) < QUORUM or not all(
            verify(PUBLIC[voter], said, vote) for voter, vote in zip(voters, votes, strict=True)
        ):
            return None
        self._keep(message)
        return _SAID.pack(CONFIRM, slot, self._number, self._key.sign(digest_of(CONFIRM, digest)).signature)

    def _keep(self, message: bytes) -> None:
        os.write(self._log, message)
        os.fsync(self._log)


class PlainLoop:
    """The client and its witnesses. Use it in a `with` block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        self._ports: list[int] = []
        self._slot = 0

    def __enter__(self) -> PlainLoop:
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in range(WITNESSES):
            command = [sys.executable, "-m", __name__, str(number), str(self._folder / f"locks{number}")]
            self._processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        for process in self._processes:
            assert process.stdout is not None, "it was asked for"
            self._ports.append(int(process.stdout.readline()))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def run(self, count: int) -> float:
        """Seconds for so many transactions to be final."""
        key, orders = key_of(OWNER), list[tuple[int, bytes, bytes]]()
        for _ in range(count):  # signed before the clock runs, as ours are
            self._slot += 1
            body = self._slot.to_bytes(ORDER_BYTES, "big")
            digest = digest_of(ORDER, body)
            orders.append((self._slot, _ORDER.pack(ORDER, self._slot, body, key.sign(digest).signature), digest))
        return asyncio.run(self._run(orders))

    async def _run(self, orders: list[tuple[int, bytes, bytes]]) -> float:
        links = [await asyncio.open_connection("127.0.0.1", port) for port in self._ports]
        votes: dict[int, dict[int, bytes]] = {}
        confirms: dict[int, set[int]] = {}
        digests = {slot: digest for slot, _, digest in orders}
        room, left, done = asyncio.Semaphore(IN_FLIGHT), len(orders), asyncio.Event()

        def tell(message: bytes) -> None:
            for _, writer in links:
                writer.write(message)

        def on_said(kind: int, slot: int, who: int, signature: bytes) -> None:
            nonlocal left
            if not verify(PUBLIC[who], digest_of(kind, digests[slot]), signature):
                return
            if kind == VOTE:
                gathered = votes.setdefault(slot, {})
                gathered[who] = signature
                if len(gathered) == QUORUM:
                    tell(_CERTIFICATE.pack(CERTIFICATE, slot, digests[slot], *gathered, *gathered.values()))
            else:
                confirms.setdefault(slot, set()).add(who)
                if len(confirms[slot]) == QUORUM:
                    room.release()
                    left -= 1
                    if not left:
                        done.set()

        async def listen(reader: asyncio.StreamReader) -> None:
            async for kind, message in _messages(reader):
                _, slot, who, signature = _SAID.unpack(message)
                on_said(kind, slot, who, signature)

        listeners = [asyncio.create_task(listen(reader)) for reader, _ in links]
        began = time.perf_counter()
        for _, order, _ in orders:
            await room.acquire()
            tell(order)
        await done.wait()
        took = time.perf_counter() - began
        for task in listeners:
            task.cancel()
        for _, writer in links:
            writer.close()
        return took


if __name__ == "__main__":
    asyncio.run(Witness(int(sys.argv[1]), Path(sys.argv[2])).serve())
