"""What packing saves of what was recorded: bytes of bodies, and airtime of the frames that carry them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

from offgrid_tools.wordbook.samples import Sample
from offgrid_transports.lora.airtime import airtime_us
from offgrid_transports.packing import BLOCK_BYTES_MAX, NEWEST, Packing

SF, BW_HZ, CR, PREAMBLE = 7, 125_000, 5, 24  # of an RNode
FRAME_BYTES = 254
BESIDE_BYTES = 18  # a frame's head, counter, tag and the head of a record, as a rule
MEASURED_MAX = 500  # of one kind


def measured(samples: Iterable[Sample]) -> str:
    """A table in Markdown, the most frequent first."""
    found: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
    for sample in samples:
        if 0 < len(sample.body) <= BLOCK_BYTES_MAX:
            found[sample.method.partition("/")[2], sample.kind].append(sample.body)
    lines = [
        "| message | how many | bytes | ids folded | dictionary | ms of air | packed |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (method, kind), bodies in sorted(found.items(), key=lambda item: -len(item[1])):
        lines.append(f"| {method} {kind} | {len(bodies)} | {_row(bodies[:: 1 + len(bodies) // MEASURED_MAX])} |")
    return "\n".join(lines) + "\n"


def _row(bodies: list[bytes]) -> str:
    packing = Packing()
    forms = [bodies, *([packing.pack(body, known) or body for body in bodies] for known in (0, NEWEST))]
    lengths = [fmean(map(len, form)) for form in forms]
    airs = [fmean(air_ms(len(body)) for body in form) for form in (forms[0], forms[-1])]
    return " | ".join([*(f"{length:.0f}" for length in lengths), *(f"{air:.0f}" for air in airs)])


def air_ms(body_bytes: int) -> float:
    """Of a body at SF7, in as many frames as it takes."""
    room = FRAME_BYTES - BESIDE_BYTES
    full, rest = divmod(body_bytes, room)
    frames = [FRAME_BYTES] * full + [rest + BESIDE_BYTES] * bool(rest)
    return sum(airtime_us(length, SF, BW_HZ, CR, PREAMBLE) for length in frames) / 1000
