"""One end of a link in real time: `python -m offgrid_tools.bench.link_end SPEC` answers who calls it there.

Methods: 1 is answered with nothing, 2 with the request itself, 3 with how many requests of method 2 came, and how many
different ones, as two numbers of four bytes.
"""

from __future__ import annotations

import asyncio
import sys
from random import Random

from offgrid_tools.bench.lora_pair import NAMES, PSK, key_of
from offgrid_transports.answers import Request
from offgrid_transports.calls import End, Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.path import Path
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.transport import LinkHost, Transport

TAKE, ECHO, TELL = 1, 2, 3
ANSWERED_S = 600


class LinkEnd:
    """One of two that know each other, in the running loop."""

    def __init__(self, name: str, spec: str) -> None:
        self._loop = asyncio.get_running_loop()
        host = LinkHost(Random(name), self._later, self._now_ms)  # noqa: S311  no secret
        self.link: Transport = TransportRegistry.installed().open(spec, host)
        known = {key_of(each).public_key().public_bytes_raw(): each for each in NAMES}
        self.endpoint = Endpoint(
            Own(key_of(name), PSK),
            known.get,
            lambda: self._loop.time() * 1000,
            self._later,
            Random(name),  # noqa: S311  no secret
            self._now_ms,
        )
        self.endpoint.attach(self.link)

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def _later(self, delay_ms: int, then: object) -> None:
        assert callable(then)
        self._loop.call_later(delay_ms / 1000, then)

    async def ready(self) -> None:
        async with asyncio.timeout(30):
            while not self.link.up:  # noqa: ASYNC110 - looked at from outside
                await asyncio.sleep(0.01)

    def introduce(self, other: str, address: str) -> None:
        self.endpoint.introduce(other, key_of(other).public_key().public_bytes_raw(), Path(self.link, address))

    async def call(self, other: str, method: int, body: bytes) -> bytes:
        """The answer. Raises RuntimeError where there is none."""
        ended: asyncio.Future[Reply] = self._loop.create_future()
        self.endpoint.call(other, method, body, ANSWERED_S * 1000, ended.set_result)
        reply = await ended
        if reply.end is not End.OK:
            raise RuntimeError(f"{reply.end.name}: {reply.detail}")
        return reply.body

    def answer(self) -> None:
        """From now on."""
        seen: list[bytes] = []

        def on_request(request: Request) -> None:
            body = b""
            if request.method == ECHO:
                seen.append(request.body)
                body = request.body
            elif request.method == TELL:
                body = len(seen).to_bytes(4) + len(set(seen)).to_bytes(4)
            self.endpoint.respond(request, body)

        self.endpoint.on_request = on_request


async def _serve(spec: str) -> None:
    end = LinkEnd(NAMES[1], spec)
    end.answer()
    await end.ready()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    end.endpoint.close()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
