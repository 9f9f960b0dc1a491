"""What a seed of the mail's mesh has in store: people who write to each other, and boxes that hold what they write. In
most seeds no two of them are ever in reach of each other: they take turns at being near the boxes. One box may lie."""

from __future__ import annotations

from random import Random

import msgspec
from msgspec.structs import replace

from offgrid_tools.sim.spec import Spec

WRITERS, BOXES = ("ann", "ben", "cid"), ("box-a", "box-b", "box-c")
MAILS = (2, 5)
APART_CHANCE, LIAR_CHANCE, SMALL_CHANCE = 0.7, 0.4, 0.2
SMALL_BYTES = 4_000  # of a box: a quarter of it is four short messages


class Post(msgspec.Struct, frozen=True):
    """`mails` are written by each; `apart`: no two writers ever meet; `long`: some are long,
    where there is room."""

    writers: tuple[str, ...]
    boxes: tuple[str, ...]
    mails: int
    apart: bool
    liar: str
    long: bool


def draw_post(seed: int) -> tuple[Post, tuple[Spec, ...]]:
    """The same for the same seed."""
    rng = Random(f"post {seed}")  # noqa: S311 - a simulation must be repeatable
    writers, boxes = WRITERS[: rng.randint(2, 3)], BOXES[: rng.randint(1, 3)]
    lies = len(boxes) > 1 and rng.random() < LIAR_CHANCE
    mails, apart, liar = rng.randint(*MAILS), rng.random() < APART_CHANCE, rng.choice(boxes) if lies else ""
    small = rng.random() < SMALL_CHANCE
    post = Post(writers, boxes, mails, apart, liar, not small)
    writer = Spec("", frozenset(), 1, 0, executors=(), economy=False)
    box = replace(writer, mailbox_bytes=SMALL_BYTES) if small else writer
    return post, (*(replace(writer, name=name) for name in writers), *(replace(box, name=name) for name in boxes))
