"""Bluetooth LE as a Transport: "ble:usb:0".

It shows itself, looks for others of its mesh, connects either way round and keeps one channel to each neighbour,
several at once. A neighbour's address here is the name that its process drew (greeting.py): it stays when the channel
is lost and comes again, and with it whatever the session above had begun. A lost channel is sought at once and with all
the radio has; a controller that is gone is looked for until it is back.

Nothing is written to disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec

from offgrid_transports.ble.adverts import Advert, Sighting
from offgrid_transports.ble.air import OCTETS_MIN, Phy, Shape, message_ms
from offgrid_transports.ble.greeting import FRAME_BYTES_MAX, NAME_BYTES, Greeting, newer_stays
from offgrid_transports.ble.link import BleChannel, BleRadio
from offgrid_transports.ble.neighbour import Link
from offgrid_transports.ble.seeking import BRISK_MS, FULL, Candidates, duty
from offgrid_transports.log_fields import fields
from offgrid_transports.registry import LinkSpec
from offgrid_transports.transport import (
    BROADCAST,
    BadSpec,
    LinkHost,
    OnEvent,
    OnFrame,
    Priority,
    Shown,
)

LINKS_DEFAULT, LINKS_MAX = 4, 8
STRANGERS_MAX = 4  # channels that have not said who they are; more are closed at once
LINGER_S = 0.25  # what is on its way on a channel that gives way to another still arrives
RETRY_S_MIN, RETRY_S_MAX = 0.5, 8.0  # for a controller that is gone
TURN_S = 1.0  # how long, at most, until the duty is thought over
CONTROLLERS = {
    "usb": ("0", re.compile(r".+")),
    "hci-socket": ("0", re.compile(r"\d{1,3}")),
    "serial": ("/dev/ttyACM0", re.compile(r".+")),
    "tcp-client": ("127.0.0.1:6402", re.compile(r".+:\d{1,5}")),
    "unix-client": ("/run/hci.sock", re.compile(r".+")),
}  # an example, and what there may be
CHANNELS = ("auto", "gatt")

MakeRadio = Callable[[], Awaitable[BleRadio]]
logger = logging.getLogger(__name__)


class BleTransport:
    """One controller; a `Transport`. `make_radio` gives a fresh radio for each time that it is switched on."""

    def __init__(self, make_radio: MakeRadio, host: LinkHost, *, links_max: int = LINKS_DEFAULT) -> None:
        self.on_frame: OnFrame = lambda address, frame: None
        self.on_room: OnEvent = lambda: None
        self.on_change: OnEvent = lambda: None
        self._host = host
        self._links_max = links_max
        self._greeting = Greeting(host.rng.randbytes(NAME_BYTES), FRAME_BYTES_MAX, host.hello)
        self._candidates = Candidates(host.hello, host.rng)
        self._neighbours: dict[str, Link] = {}
        self._strangers: set[Link] = set()
        self._leaving: set[Link] = set()
        self._counts: Counter[str] = Counter()
        self._brisk_until_ms = 0
        self._duty = FULL
        self._refused = False
        self._closed = False
        self._trouble = ""
        self._radio: BleRadio | None = None
        self._lost: asyncio.Event = asyncio.Event()
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(make_radio))

    @property
    def address(self) -> str:
        """What neighbours call this end."""
        return self._greeting.name.hex()

    @property
    def up(self) -> bool:
        return self._radio is not None and not self._closed

    @property
    def shared(self) -> bool:
        return False

    @property
    def bitrate_bps(self) -> int:
        """Of the slowest neighbour; of a fresh connection while there is none."""
        return round(FRAME_BYTES_MAX * 8000 / self.airtime_ms(FRAME_BYTES_MAX))

    @property
    def access_ms(self) -> float:
        return 0.0

    def mtu_bytes(self, address: str = BROADCAST) -> int:
        link = self._neighbours.get(address)
        if link is not None:
            return link.frame_bytes
        return min((each.frame_bytes for each in self._neighbours.values()), default=FRAME_BYTES_MAX)

    def airtime_ms(self, length: int) -> float:
        fresh = message_ms(length, Shape(FRAME_BYTES_MAX, 4, 2), Phy.LE_1M, OCTETS_MIN)
        return max((link.channel.airtime_ms(length) for link in self._neighbours.values()), default=fresh)

    def wait_ms(self, length: int, priority: Priority) -> float:
        """By the queue that is longest; infinite without a neighbour."""
        return max((link.wait_ms(priority) for link in self._neighbours.values()), default=float("inf"))

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        """To one neighbour, or to all: then True when one of them at least is sent it."""
        if len(frame) > self.mtu_bytes(address):
            raise ValueError(f"a frame of {len(frame)} bytes; this link carries {self.mtu_bytes(address)}")
        if address == BROADCAST:
            took = sum([link.offer(frame, priority) for link in self._neighbours.values()]) > 0
        else:
            link = self._neighbours.get(address)
            took = link is not None and link.offer(frame, priority)
        if not took:
            self._refused = True
            self._counts["refused_frames"] += 1
        return took

    def neighbours(self) -> tuple[str, ...]:
        return tuple(self._neighbours)

    def figures(self) -> Shown:
        shown: dict[str, str | int | float] = {
            "state": "closed" if self._closed else "up" if self.up else "down",
            "address": self.address,
            "duty": self._duty.name,
            "candidates": len(self._candidates),
            "other_meshes": self._candidates.foreign,
            "queued_frames": sum(link.queued_frames for link in self._neighbours.values()),
        }
        if self._trouble:
            shown["trouble"] = self._trouble
        if self._radio is not None:
            shown.update(self._radio.figures())
        for name, link in self._neighbours.items():
            shown[f"neighbour {name}"] = f"{link.channel.describe()} at {link.channel.address}"
        return shown | dict(self._counts)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._drop_links()
        self._task.cancel()

    async def wait_closed(self) -> None:
        """After `close`: until the controller is left alone."""
        await asyncio.wait({self._task})

    # the controller

    async def _run(self, make_radio: MakeRadio) -> None:
        pause_s = RETRY_S_MIN
        while not self._closed:
            radio = await make_radio()
            self._lost.clear()
            radio.on_lost = self._on_lost
            radio.on_sighting = self._on_sighting
            radio.on_channel = self._on_channel
            try:
                await radio.start()
                pause_s = RETRY_S_MIN
                await self._serve(radio)
            except Exception as error:  # noqa: BLE001 - whatever a radio's library breaks on: it is switched on again
                self._on_lost(str(error) or type(error).__name__)
            finally:
                self._radio = None
                self._drop_links()
                await radio.stop()
            if self._closed:
                return
            self.on_change()
            await asyncio.sleep(pause_s)
            pause_s = min(RETRY_S_MAX, 2 * pause_s)

    async def _serve(self, radio: BleRadio) -> None:
        self._radio = radio
        self._trouble = ""
        self._duty = FULL
        self._candidates.clear()
        self._brisk()
        self.on_change()
        advert = Advert(radio.psm, self._host.hello)
        while not (self._lost.is_set() or self._closed):
            self._wake.clear()
            now_ms = self._host.now_ms()
            room = self._links_max - len(self._neighbours) - len(self._strangers)
            wanted = duty(now_ms, self._brisk_until_ms, len(self._neighbours), self._links_max)
            if wanted is not self._duty:
                self._duty = wanted
                await radio.seek(wanted, advert)
            sighting, due_ms = self._candidates.next(now_ms, radio.connected)
            if sighting is not None and room > 0:
                await self._connect(radio, sighting)
                continue
            pause_s = TURN_S if due_ms is None else min(TURN_S, max(0.001, (due_ms - now_ms) / 1000))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _connect(self, radio: BleRadio, sighting: Sighting) -> None:
        self._counts["connects"] += 1
        connecting = self._loop.create_task(radio.connect(sighting))
        losing = self._loop.create_task(self._lost.wait())
        try:
            await asyncio.wait({connecting, losing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            losing.cancel()
            if not connecting.done():  # nobody answers any more
                connecting.cancel()
        error = "lost meanwhile" if not connecting.done() or connecting.cancelled() else connecting.exception()
        if error is not None:
            said = fields("ble_unreached", address=sighting.address, why=error)
            logger.debug("a neighbour that was seen cannot be reached", extra=said)
            self._counts["failed_connects"] += 1
            self._candidates.failed(self._host.now_ms(), sighting.address)
            return
        channel = connecting.result()
        self._candidates.forget(sighting.address, b"")
        self._add(channel)

    def _on_lost(self, why: str) -> None:
        if why != self._trouble:
            logger.warning("Bluetooth does not work", extra=fields("ble_failing", why=why))
        self._trouble = why
        self._lost.set()
        self._wake.set()

    def _brisk(self) -> None:
        self._brisk_until_ms = self._host.now_ms() + BRISK_MS
        self._wake.set()

    def _on_sighting(self, sighting: Sighting) -> None:
        hellos = [link.greeting.hello for link in self._neighbours.values() if link.greeting]
        self._candidates.see(self._host.now_ms(), sighting, sighting.advert.hello in hellos)
        self._wake.set()

    # neighbours

    def _links(self) -> list[Link]:
        return [*self._neighbours.values(), *self._strangers, *self._leaving]

    def _on_channel(self, channel: BleChannel) -> None:
        if self._closed or len(self._strangers) >= STRANGERS_MAX:
            self._counts["refused_channels"] += 1
            channel.close()
        else:
            self._add(channel)

    def _add(self, channel: BleChannel) -> None:
        self._strangers.add(Link(channel, self._greeting, self))

    def on_greeting(self, link: Link, greeting: Greeting) -> None:
        self._strangers.discard(link)
        older = self._neighbours.get(link.name)
        if greeting.name == self._greeting.name:
            self._refuse(link, "own_name")
        elif older is None and len(self._neighbours) >= self._links_max:
            self._refuse(link, "refused_channels")
        elif older is None:
            self._neighbours[link.name] = link
            self._counts["links"] += 1
            said = fields("ble_near", neighbour=link.name, channel=link.channel.describe())
            logger.info("a Bluetooth neighbour is near", extra=said)
            self._wake.set()
            self.on_change()
        else:
            self._counts["doubled_links"] += 1
            outgoing = (older.channel.outgoing, link.channel.outgoing)
            if newer_stays(self._greeting.name, greeting.name, *outgoing):
                self._neighbours[link.name] = link
                link.adopt(older)
                self._retire(older)
            else:
                self._retire(link)

    def on_link_frame(self, link: Link, frame: bytes) -> None:
        self.on_frame(link.name, frame)

    def on_link_room(self, link: Link) -> None:
        if self._refused:
            self._refused = False
            self.on_room()

    def on_link_end(self, link: Link, why: str) -> None:
        self._strangers.discard(link)
        self._leaving.discard(link)
        self._counts["ended_links"] += 1
        self._candidates.forget(link.channel.address, link.greeting.hello if link.greeting else b"")
        logger.debug("a Bluetooth link ended", extra=fields("ble_ended", address=link.channel.address, why=why))
        if self._neighbours.get(link.name) is link:
            del self._neighbours[link.name]
            logger.info("a Bluetooth neighbour is gone", extra=fields("ble_gone", neighbour=link.name, why=why))
            self._brisk()
            self.on_change()

    def _refuse(self, link: Link, count: str) -> None:
        self._counts[count] += 1
        link.close()

    def _retire(self, link: Link) -> None:
        self._leaving.add(link)
        self._loop.call_later(LINGER_S, self._leave, link)

    def _leave(self, link: Link) -> None:
        self._leaving.discard(link)
        link.close()

    def _drop_links(self) -> None:
        for link in self._links():
            link.close()
        self._neighbours.clear()
        self._strangers.clear()
        self._leaving.clear()


def open_transport(spec: LinkSpec, host: LinkHost) -> BleTransport:
    """Opens "ble:CONTROLLER", a controller for HCI: usb:0, usb:0a12:0001, hci-socket:0, serial:/dev/ttyACM0 or
    tcp-client:127.0.0.1:6402. Parameters: links (how many neighbours at once), channel (auto or gatt).

    Raises BadSpec; also when the extra `ble` is not installed. A controller that is not there is looked for.
    """
    spec.check_names(("links", "channel"))
    links_max = spec.whole("links", LINKS_DEFAULT, 1, LINKS_MAX)
    kind = spec.params.get("channel", "auto")
    if kind not in CHANNELS:
        raise BadSpec(f"{spec}: channel={kind}: allowed: {', '.join(CHANNELS)}")
    controller, _, device = spec.target.partition(":")
    known = CONTROLLERS.get(controller)
    if known is None or not known[1].fullmatch(device):
        examples = ", ".join(f"ble:{name}:{example}" for name, (example, _) in CONTROLLERS.items())
        raise BadSpec(f"{spec}: allowed: a controller such as {examples}")
    if find_spec("bumble") is None:
        raise BadSpec(f"{spec}: Bluetooth needs the extra: pip install offgrid-node[ble]")

    async def make_radio() -> BleRadio:
        # a quarter of a second to import, on a fast machine
        module = await asyncio.to_thread(import_module, "offgrid_transports.ble.bumble_radio")
        radio: BleRadio = module.BumbleRadio(spec.target, host.rng, coc=kind == "auto")
        return radio

    return BleTransport(make_radio, host, links_max=links_max)
