"""How things are measured: warmed up, several times, and ours and theirs turn about, because machines are noisy.

A ratio is taken of each pair of neighbours in time and the middle one stands, so that a disturbance strikes both sides
of a pair or is outvoted ("Benchmarking in a noisy environment": paired rather than pooled samples).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from offgrid_node.storage.disk import measure_fsync_ms

Sample = Callable[[], float]
PIECE_BYTES = 1024 * 1024


class Pairs(msgspec.Struct, frozen=True):
    """What ours and theirs gave, pair by pair."""

    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def our_median(self) -> float:
        return statistics.median(self.ours)

    @property
    def their_median(self) -> float:
        return statistics.median(self.theirs)

    @property
    def ratio(self) -> float:
        """The middle one of the pairs' ratios, ours to theirs."""
        return statistics.median(self._ratios())

    @property
    def spread(self) -> str:
        """The least and the greatest ratio, for the note."""
        ratios = sorted(self._ratios())
        return f"{len(ratios)} pairs, {ratios[0]:.2f} to {ratios[-1]:.2f}"

    def _ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]


def side_by_side(ours: Sample, theirs: Sample, repeats: int) -> Pairs:
    """Each once to warm up, then `repeats` pairs, A B, B A, A B, … What one leaves for the system to write is written
    before the other begins: who fsyncs nothing would else have its bytes written in the turn of who does."""
    ours, theirs = _on_a_quiet_disk(ours), _on_a_quiet_disk(theirs)
    ours()
    theirs()
    pairs: list[tuple[float, float]] = []
    for number in range(repeats):
        if number % 2:
            b, a = theirs(), ours()
        else:
            a, b = ours(), theirs()
        pairs.append((a, b))
    return Pairs([a for a, _ in pairs], [b for _, b in pairs])


def _on_a_quiet_disk(sample: Sample) -> Sample:
    def sampled() -> float:
        if hasattr(os, "sync"):  # Windows has none
            os.sync()
        return sample()

    return sampled


def memory_at_hand(folder: Path, size: int) -> None:
    """The system gets hold of as much memory for files as `size`, and has it free. On a virtual machine a page that the
    machine beneath has not lent yet takes ten times as long to be written to, and whoever comes second pays for it."""
    piece = bytes(PIECE_BYTES)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as scratch:
        for _ in range(-(-size // PIECE_BYTES)):
            scratch.write(piece)


def timed(work: Callable[[], object]) -> float:
    """How many seconds it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Conditions(msgspec.Struct):
    """What else the machine was doing: its load average (one minute) and what a small fsync takes in `folder`."""

    folder: Path
    loads: list[float] = msgspec.field(default_factory=list)
    fsyncs_ms: list[float] = msgspec.field(default_factory=list)

    def __str__(self) -> str:
        return f"load {_span(self.loads)}, fsync {_span(self.fsyncs_ms)} ms"

    def look(self) -> None:
        self.loads.append(os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0)
        self.fsyncs_ms.append(measure_fsync_ms(self.folder))

    @property
    def busy(self) -> bool:
        """Something else has more than half of the processors' time."""
        return any(load > (os.cpu_count() or 1) / 2 for load in self.loads)


def _span(values: Sequence[float]) -> str:
    return " to ".join(f"{value:.2g}" for value in values)


@contextmanager
def conditions_noted(folder: Path) -> Iterator[Conditions]:
    """The conditions before and after the block."""
    conditions = Conditions(folder)
    conditions.look()
    yield conditions
    conditions.look()
