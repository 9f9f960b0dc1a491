"""Transactions whose time has not come, as of a hold that its payer closes: when each is looked at again."""

from __future__ import annotations

from bisect import insort

from offgrid_node.protocol.clock import Now

LOOK_MS = 600_000  # at most until a time that has not come is asked for again: clocks are set
EARLY_MAX = 4_096  # transactions that are looked at again when their time comes; those of the latest when their slot is


class Early:
    """By digest; in memory alone."""

    def __init__(self) -> None:
        self._at_ms: dict[bytes, int] = {}
        self._by_due: list[tuple[int, bytes]] = []  # in the order of their times

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._at_ms

    def put(self, digest: bytes, due_us: int, now: Now) -> None:
        """An honest payer closes a hold about when it may: where there is no room, what is due last gives way."""
        if digest not in self._at_ms:
            insort(self._by_due, (due_us, digest))
        self._at_ms[digest] = now.mono_ms + min(-(-(due_us - now.utc_us) // 1_000), LOOK_MS)
        if len(self._at_ms) > EARLY_MAX:
            _, last = self._by_due.pop()
            del self._at_ms[last]

    def take_due(self, now_ms: int) -> list[bytes]:
        due = [digest for digest, at_ms in self._at_ms.items() if at_ms <= now_ms]
        for digest in due:
            del self._at_ms[digest]
        if due:
            self._by_due = [each for each in self._by_due if each[1] in self._at_ms]
        return due

    def deadline_ms(self) -> int | None:
        return min(self._at_ms.values(), default=None)
