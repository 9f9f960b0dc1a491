"""Time as the machines see it: handed in, never looked up.

Timers use the monotonic reading, which no wrong wall clock can disturb; the wall clock only stamps records.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Now(msgspec.Struct, frozen=True):
    """One instant: `mono_ms` for timers (arbitrary zero), `utc_us` for stamps (microseconds since 1970, may lie)."""

    mono_ms: int
    utc_us: int


class Clock(Protocol):
    """Reads the time; the daemon's is the system's, the simulator's is virtual."""

    def now(self) -> Now: ...
