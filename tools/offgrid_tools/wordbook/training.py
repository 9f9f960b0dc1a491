"""A dictionary made of what was recorded: of each method some messages, so that frequent ones do not fill it alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from random import Random

import zstandard

from offgrid_tools.wordbook.samples import Sample
from offgrid_transports.folding import fold

DICTIONARY_BYTES = 16 * 1024
SAMPLES_MAX = 120  # of one method's requests, or answers
SAMPLE_BYTES_MAX = 2_048
LEVEL = 19


def train(samples: Iterable[Sample], dictionary_bytes: int = DICTIONARY_BYTES) -> bytes:
    """The same of the same samples. As links pack them: with their ids folded."""
    found: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
    for sample in samples:
        if 0 < len(sample.body) <= SAMPLE_BYTES_MAX:
            found[sample.method, sample.kind].add(fold(sample.body))
    rng = Random(1)  # noqa: S311 - the same choice each time
    chosen = list[bytes | bytearray | memoryview]()
    for _, bodies in sorted(found.items()):
        chosen += rng.sample(sorted(bodies), min(SAMPLES_MAX, len(bodies)))
    made: bytes = zstandard.train_dictionary(dictionary_bytes, chosen, level=LEVEL).as_bytes()
    return made
