"""The node as a process: its log, its signals, and its life from start to an orderly stop.

The first signal asks for that stop; a second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from offgrid_node import arena, logs
from offgrid_node.daemon import Daemon
from offgrid_node.folder import Folder
from offgrid_node.last_refusal import forget_refusal, refusal_kept
from offgrid_node.logs import fields
from offgrid_node.recent_log import RecentLog, is_kept
from offgrid_node.store_trial import last_words
from offgrid_node.supervisor import Supervisor

if TYPE_CHECKING:
    from offgrid_node.config import Config
    from offgrid_node.config.apart import ConfigReading

_log = logging.getLogger("offgrid")


def serve(path: Path, reading: ConfigReading, on_start: Callable[[], None]) -> None:
    """Runs the node of this folder, by its config that is being read, until SIGINT or SIGTERM; `on_start` is called
    once it answers. Raises ConfigError or a Fault when it cannot start."""

    def started() -> None:
        forget_refusal(path)
        on_start()

    with refusal_kept(path):
        _serve_as_read(Folder(path), reading, started)


def _serve_as_read(folder: Folder, reading: ConfigReading, on_start: Callable[[], None]) -> None:
    folder.check_private()
    config, unused = reading.result()
    beside = [] if is_kept(_descriptor_of(sys.stderr), folder.path) else [RecentLog(config.node.data_dir)]
    logs.set_up(config.node.log_level, config.node.log_format, beside=beside)
    # It shows a traceback for each interface that is down; what matters of mDNS is said in the node's notices.
    logging.getLogger("zeroconf").setLevel(logging.ERROR)
    logging.getLogger("grpc._cython.cygrpc").addFilter(hide_broken_off)
    arena.share_one()
    sys.setswitchinterval(0.0005)  # the default lets a computing thread hold up the loop for 5 ms at a time
    with last_words(config):
        asyncio.run(_serve(folder, config, unused, on_start))


async def _serve(folder: Folder, config: Config, unused: Sequence[str], on_start: Callable[[], None]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    _on_signals(loop, stopping)
    supervisor = Supervisor.take(os.environ)
    daemon = Daemon(folder, config, unused)
    try:
        await daemon.start()
        on_start()
        print(daemon.banner, flush=True)  # noqa: T201 - what the person at the terminal asked for
        supervisor.ready(daemon.banner.partition("\n")[0])
        await _first(stopping, daemon.told_to_stop, daemon.outdated)
        _log.info("the node is stopping", extra=fields("stopping"))
        if daemon.outdated.is_set():
            daemon.check_newest()
    finally:
        supervisor.stopping()
        await daemon.stop()


def _descriptor_of(stream: TextIO | None) -> int:
    """-1 where it has none: a service of Windows may have no standard error at all."""
    try:
        return stream.fileno() if stream is not None else -1
    except (OSError, ValueError):
        return -1


async def _first(*events: asyncio.Event) -> None:
    """Waits for one of them."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for wait in waiting:
        wait.cancel()


def _on_signals(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """The first signal asks for an orderly stop; the next one finds the system's own handling, and ends it there."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        stopping.set()
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows: the handler runs in the main thread, outside the loop
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))


def hide_broken_off(record: logging.LogRecord) -> bool:
    """A filter against gRPC's traceback for an answer that nobody waits for any more: peers come and go."""
    return not str(record.msg).startswith("ExecuteBatchError raised in core by servicer method")
