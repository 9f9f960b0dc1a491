"""`python -m offgrid_tools.emulators lora KIND NAME… [loss=0.1] [speed=1] [stats=FILE]`: modems on one channel.

rnode LINK1 LINK2       RNodes on pseudo-terminals, which LINK1 and LINK2 then name
meshcore LINK1 LINK2    MeshCore modems, the same way
meshtastic PORT1 PORT2  Meshtastic devices on TCP ports of 127.0.0.1

Kinds may share a channel: `rnode a b meshcore c`. It says `ready` and the TCP ports when all are there, writes its
counts to FILE each second, and ends with its standard input or by a signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec

from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.clock import RealClock
from offgrid_tools.emulators.meshcore import MeshCoreEmulator
from offgrid_tools.emulators.meshtastic import MeshtasticEmulator, Settings
from offgrid_tools.emulators.ports import PtyPort, TcpPort
from offgrid_tools.emulators.rnode import RNodeEmulator

KINDS = ("rnode", "meshcore", "meshtastic")
OPTIONS = ("loss", "speed", "stats", "seed")
FIRST_NODE_NUM = 0x0FF60001
SPEED_MAX = 1000.0


class Wanted(msgspec.Struct):
    """What the command line asks for."""

    devices: list[tuple[str, str]] = msgspec.field(default_factory=list)
    loss: float = 0.0
    speed: float = 1.0
    stats: Path | None = None
    seed: int = 1


def parse(arguments: Sequence[str]) -> Wanted:
    """Raises ValueError with what is wrong and what is allowed."""
    wanted, kind = Wanted(), ""
    for word in arguments:
        name, equals, value = word.partition("=")
        if word in KINDS:
            kind = word
        elif equals and name in OPTIONS:
            if name == "loss":
                wanted.loss = _number(word, value, 0.0, 1.0)
            elif name == "speed":
                wanted.speed = _number(word, value, 0.01, SPEED_MAX)
            elif name == "seed":
                wanted.seed = int(_number(word, value, 0, 2**63))
            else:
                wanted.stats = Path(value)
        elif not kind:
            raise ValueError(f"{word!r}: name a kind first: {', '.join(KINDS)}")
        elif kind == "meshtastic" and not (word.isascii() and word.isdigit() and int(word) < 65_536):
            raise ValueError(f"{word!r}: a Meshtastic device is on a TCP port, 0 to 65535")
        else:
            wanted.devices.append((kind, word))
    if not wanted.devices:
        raise ValueError(f"name a kind ({', '.join(KINDS)}) and at least one device")
    return wanted


def _number(word: str, value: str, low: float, high: float) -> float:
    with contextlib.suppress(ValueError):
        number = float(value)
        if low <= number <= high:
            return number
    raise ValueError(f"{word!r}: allowed: a number from {low:g} to {high:g}")


async def serve(wanted: Wanted) -> None:
    """Runs until it is cancelled or the standard input ends."""
    clock = RealClock(wanted.speed)
    channel = Channel(clock, Random(wanted.seed), loss=wanted.loss)  # noqa: S311  no secret
    ptys: list[PtyPort] = []
    tcps: list[TcpPort] = []
    devices: dict[str, RNodeEmulator | MeshCoreEmulator] = {}
    for number, (kind, name) in enumerate(wanted.devices):
        if kind == "meshtastic":
            node = MeshtasticEmulator(f"node {number}", FIRST_NODE_NUM + number, channel, lambda data: None, Settings())
            tcps.append(TcpPort(node, port=int(name)))
            await tcps[-1].plug()
        else:
            maker = RNodeEmulator if kind == "rnode" else MeshCoreEmulator
            devices[name] = maker(name, channel, lambda data: None)
            ptys.append(PtyPort(Path(name), devices[name]))
            ptys[-1].plug()
    try:
        sys.stdout.write(" ".join(["ready", *(str(tcp.port) for tcp in tcps)]) + "\n")
        sys.stdout.flush()
        ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
        while not ended.done():
            await asyncio.wait([ended], timeout=1)
            if wanted.stats is not None:
                asked = {name: device.asked for name, device in devices.items()}
                counts = {**msgspec.to_builtins(channel.counts), "asked": asked}
                await asyncio.to_thread(wanted.stats.write_text, json.dumps(counts), "utf-8")
    finally:
        for pty in ptys:
            pty.unplug()
        for tcp in tcps:
            await tcp.unplug()


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    try:
        wanted = parse(arguments)
    except ValueError as error:
        sys.stderr.write(f"{error}\n\n{__doc__}")
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(wanted))
    return 0
