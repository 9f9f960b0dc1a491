"""Frames as files in a folder that several machines see: "folder:/shared?name=kitchen".

Each end has a mailbox, a folder of its name. A frame is written beside it and then renamed into it, so that a frame is
there whole or not at all, wherever a process is killed; what was being written is removed when that end opens again.
Reading removes the file first and hands the frame over then: a frame may be lost, as on any link.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

from offgrid_transports.registry import LinkSpec
from offgrid_transports.transport import (
    BROADCAST,
    LINK_BYTE,
    BadSpec,
    LinkHost,
    OnEvent,
    OnFrame,
    Priority,
    Shown,
    Unshared,
)

FRAME_BYTES = 4096
MAILBOX_FRAMES_MAX = 64
FRAMES_A_TURN = 16
POLL_S = 0.02
NAME = re.compile(r"[a-z0-9-]{1,32}\Z")


class FolderTransport(Unshared):
    """One mailbox; a `Transport`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.on_frame: OnFrame = lambda address, frame: None
        self.on_room: OnEvent = lambda: None
        self.on_change: OnEvent = lambda: None
        self._folder, self._name = folder, name
        self._own = folder / name
        self._own.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{name}-*"):
            left.unlink()
        self._number = 0
        self._waits_for: str | None = None  # whose mailbox was full
        self._closed = False
        self._sent = self._heard = 0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(POLL_S, self._poll)

    @property
    def up(self) -> bool:
        return not self._closed

    @property
    def access_ms(self) -> float:
        return POLL_S * 1000 / 2

    def mtu_bytes(self, address: str = BROADCAST) -> int:
        return FRAME_BYTES

    def wait_ms(self, length: int, priority: Priority) -> float:
        return 0.0

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        if not frame or frame[0] >= LINK_BYTE:
            raise ValueError(f"a frame begins with a byte below {LINK_BYTE}; this one with {frame[:1]!r}")
        if len(frame) > FRAME_BYTES:
            raise ValueError(f"a frame of {len(frame)} bytes; this link carries {FRAME_BYTES}")
        if self._closed:
            return False
        others = self._others() if address == BROADCAST else [address] if NAME.match(address) else []
        taken = sum([self._put(other, frame) for other in others])
        self._sent += taken
        return taken > 0 or address == BROADCAST

    def neighbours(self) -> tuple[str, ...]:
        return ()

    def figures(self) -> Shown:
        return {"mailbox": str(self._own), "frames_sent": self._sent, "frames_heard": self._heard}

    def close(self) -> None:
        self._closed = True
        self._timer.cancel()

    def _others(self) -> list[str]:
        return [box.name for box in self._folder.iterdir() if box != self._own and NAME.match(box.name)]

    def _put(self, other: str, frame: bytes) -> bool:
        mailbox = self._folder / other
        if not mailbox.is_dir():
            return True  # nobody has this name: the frame is lost, as on any link
        if len(list(mailbox.iterdir())) >= MAILBOX_FRAMES_MAX:
            self._waits_for = other
            return False
        self._number += 1
        written = self._folder / f".{self._name}-{self._number}"
        written.write_bytes(frame)
        written.rename(mailbox / f"{self._loop.time():018.6f}.{self._number:09d}.{self._name}")
        return True

    def _poll(self) -> None:
        for path in sorted(self._own.iterdir())[:FRAMES_A_TURN]:
            frame, sender = path.read_bytes(), path.name.rpartition(".")[2]
            path.unlink()
            if 0 < len(frame) <= FRAME_BYTES and frame[0] < LINK_BYTE and NAME.match(sender):
                self._heard += 1
                self.on_frame(sender, frame)
            if self._closed:
                return
        if self._waits_for is not None and self._has_room(self._waits_for):
            self._waits_for = None
            self.on_room()
        if not self._closed:
            self._timer = self._loop.call_later(POLL_S, self._poll)

    def _has_room(self, other: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return len(list((self._folder / other).iterdir())) < MAILBOX_FRAMES_MAX // 2
        return True


def open_transport(spec: LinkSpec, host: LinkHost) -> FolderTransport:
    """Opens "folder:PATH?name=NAME"; raises BadSpec for a description that cannot be used."""
    spec.check_names(("name",))
    name = spec.params.get("name", "")
    if not NAME.match(name):
        raise BadSpec(f"{spec}: name={name}: allowed: 1 to 32 of a-z, 0-9 and -")
    try:
        return FolderTransport(Path(spec.target), name)
    except OSError as error:
        raise BadSpec(f"{spec}: {error.strerror}: {error.filename}") from error
