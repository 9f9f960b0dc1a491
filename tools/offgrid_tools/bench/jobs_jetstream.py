"""NATS JetStream with Debian's server: a work queue on disk, one worker process, a client in this process.

A job is published and its storing acknowledged; the worker takes it, says the result to the client's inbox and
acknowledges the job. The server stores to files without an fsync for each (every two minutes, as it comes).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from offgrid_tools.bench.harness import timed
from offgrid_tools.bench.peers import PYTHON, START_S_MAX, Processes, free_port, lacking, listens

STREAM, SUBJECT, DURABLE = "bench", "bench.jobs", "worker"
RESULT_S_MAX = 60.0
PENDING_MAX = 512  # jobs that the worker has and has not acknowledged

T = TypeVar("T")


class JetStream:
    """Use it in a `with` block."""

    name = "JetStream"

    def __init__(self, folder: Path) -> None:
        self._processes = Processes(folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats client", daemon=True)
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}

    @staticmethod
    def missing() -> str:
        return lacking(["nats"], ["nats-server"])

    def __enter__(self) -> JetStream:
        port, processes = free_port(), self._processes
        try:
            where = ("--addr", "127.0.0.1", "--port", str(port), "--store_dir", str(processes.folder / "store"))
            processes.start("server", ["nats-server", "--jetstream", *where])
            processes.wait("server", lambda: listens(port))
            self._thread.start()
            self._await(self._connect(port))
            processes.start("worker", [PYTHON, "-m", "offgrid_tools.bench.jobs_jetstream", str(port)])
            processes.wait("worker", lambda: "ready" in processes.log_of("worker"))
        except BaseException:
            processes.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._await(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        finally:
            self._processes.stop()

    def run(self, count: int, in_flight: int) -> float:
        return timed(lambda: self._await(self._run(count, in_flight)))

    async def _run(self, count: int, in_flight: int) -> None:
        numbers = iter(range(count))

        async def keep_one_in_flight() -> None:
            for number in numbers:
                content = b"%d" % number
                end: asyncio.Future[bytes] = self._loop.create_future()
                self._waiting[content] = end
                await self._jetstream.publish(SUBJECT, content, headers={"answer": self._inbox})
                async with asyncio.timeout(RESULT_S_MAX):
                    await end

        await asyncio.gather(*(keep_one_in_flight() for _ in range(in_flight)))

    async def _connect(self, port: int) -> None:
        import nats

        self._client = await nats.connect(f"nats://127.0.0.1:{port}")
        self._jetstream = self._client.jetstream()
        await self._jetstream.add_stream(name=STREAM, subjects=[SUBJECT], retention="workqueue")
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(self._inbox, cb=self._on_result)

    async def _on_result(self, message: Any) -> None:
        self._waiting.pop(message.data).set_result(message.data)

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_S_MAX + RESULT_S_MAX)


async def serve(port: int) -> None:
    """The worker, until it is stopped."""
    import nats
    from nats.js.api import ConsumerConfig

    client = await nats.connect(f"nats://127.0.0.1:{port}")

    async def work(message: Any) -> None:
        await client.publish(message.headers["answer"], message.data)
        await message.ack()

    config = ConsumerConfig(max_ack_pending=PENDING_MAX)
    await client.jetstream().subscribe(SUBJECT, durable=DURABLE, cb=work, manual_ack=True, config=config)
    print("ready", flush=True)  # noqa: T201 - its log is what the benchmark waits for
    await asyncio.Event().wait()


if __name__ == "__main__":
    import sys

    asyncio.run(serve(int(sys.argv[1])))
