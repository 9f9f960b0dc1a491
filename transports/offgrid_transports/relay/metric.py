"""What a way over several hops takes of time, and the longest frame that all of it carry. Eight bytes say it."""

from __future__ import annotations

import math
from typing import NamedTuple

from offgrid_transports.path import Path

METRIC_BYTES = 8
SHORT_BYTES, LONG_BYTES = 24, 200  # the two lengths whose airtimes give the line between
USUAL_BYTES = 100
COST_BYTES, COST_MS_MAX = 2, 0x7FF << 11  # more than an hour
MTU_MIN, MTU_MAX = 96, 0x7FFF  # a hello has to pass
TIME_US_MAX, BYTE_NS_MAX = 3_600_000_000, 2_000_000_000  # of all hops together; beyond that a way is none
_MANTISSA_BITS = 11
_SHARED = 0x8000


class Metric(NamedTuple):
    """A frame of n bytes takes `base_us` + n * `byte_ns` / 1000 of air on all hops together, and waits `access_us` for
    their media. `shared`: one of the hops is a shared medium."""

    base_us: int
    byte_ns: int
    access_us: int
    mtu_bytes: int
    shared: bool

    @property
    def sound(self) -> bool:
        """Such a way can be; timers and lengths follow from it."""
        times = self.base_us <= TIME_US_MAX and self.access_us <= TIME_US_MAX and self.byte_ns <= BYTE_NS_MAX
        return times and self.mtu_bytes >= MTU_MIN

    def plus(self, other: Metric) -> Metric:
        """Both ways, one after the other."""
        return Metric(
            self.base_us + other.base_us,
            self.byte_ns + other.byte_ns,
            self.access_us + other.access_us,
            min(self.mtu_bytes, other.mtu_bytes),
            self.shared or other.shared,
        )

    def times(self, hops: int) -> Metric:
        """As many hops, all like this one."""
        return self._replace(base_us=self.base_us * hops, byte_ns=self.byte_ns * hops, access_us=self.access_us * hops)

    def trip_ms(self, length: int) -> float:
        """There and back for a frame of `length` bytes and an answer like it, if nothing is lost."""
        return 2 * (self.airtime_ms(length) + self.access_us / 1000) * 2.2

    @property
    def cost_ms(self) -> int:
        """By which ways are compared: what a frame of usual length takes, a millisecond at least."""
        return max(1, math.ceil(self.airtime_ms(USUAL_BYTES) + self.access_us / 1000))

    def airtime_ms(self, length: int) -> float:
        return self.base_us / 1000 + length * self.byte_ns / 1_000_000


def metric_of(path: Path) -> Metric:
    """Of one hop."""
    transport, mtu_bytes = path.transport, min(path.frame_bytes, MTU_MAX)
    short = min(SHORT_BYTES, mtu_bytes // 2)
    long = min(LONG_BYTES, mtu_bytes)
    short_us, long_us = transport.airtime_ms(short) * 1000, transport.airtime_ms(long) * 1000
    byte_us = max(0.0, (long_us - short_us) / (long - short)) if long > short else 0.0
    base_us = max(0.0, short_us - byte_us * short)
    return Metric(round(base_us), round(byte_us * 1000), round(transport.access_ms * 1000), mtu_bytes, path.shared)


def write_metric(metric: Metric) -> bytes:
    """Times are rounded up, by a thousandth at most."""
    mtu = min(metric.mtu_bytes, MTU_MAX) | (_SHARED if metric.shared else 0)
    return b"".join(map(_float, metric[:3])) + mtu.to_bytes(2)


def read_metric(data: bytes) -> Metric:
    """Of METRIC_BYTES bytes; any are a metric."""
    base_us, byte_ns, access_us = (_whole(data[at : at + 2]) for at in (0, 2, 4))
    mtu = int.from_bytes(data[6:8])
    return Metric(base_us, byte_ns, access_us, mtu & MTU_MAX, bool(mtu & _SHARED))


def write_cost(cost_ms: int) -> bytes:
    """Rounded up, as times of a metric are."""
    return _float(min(cost_ms, COST_MS_MAX))


def read_cost(data: bytes) -> int:
    """Of COST_BYTES bytes; may be more than COST_MS_MAX."""
    return _whole(data)


def _float(value: int) -> bytes:
    exponent = max(0, value.bit_length() - _MANTISSA_BITS)
    mantissa = -(-value >> exponent)
    if mantissa >> _MANTISSA_BITS:
        mantissa, exponent = mantissa >> 1, exponent + 1
    if exponent > 31:
        mantissa, exponent = (1 << _MANTISSA_BITS) - 1, 31
    return (exponent << _MANTISSA_BITS | mantissa).to_bytes(2)


def _whole(data: bytes) -> int:
    both = int.from_bytes(data)
    return (both & (1 << _MANTISSA_BITS) - 1) << (both >> _MANTISSA_BITS)
