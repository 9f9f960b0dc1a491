"""Size classes: what an object takes where its size is nobody's business.

Padmé (Nikitin, Barman, Lueks, Underwood, Hubaux and Ford, "Reducing Metadata Leakage from Encrypted Files and
Communication with PURBs", PETS 2019, algorithm 1): of a size's exponent E only the first ⌊log2 E⌋ + 1 bits behind the
leading one may be set. So a size up to n tells O(log log n) bits, as padding to powers of two does, for less than 12 %
more, and ever less the larger it is.
"""

from __future__ import annotations

from offgrid.v1 import objects_pb2


def size_class(size_bytes: int) -> int:
    """The least class of at least `size_bytes`; a class is its own. Powers of two are classes."""
    if size_bytes < 2:
        return size_bytes
    exponent = size_bytes.bit_length() - 1
    zeros = exponent - exponent.bit_length()  # bits at the end that are to be none
    if zeros <= 0:
        return size_bytes
    return -(-size_bytes >> zeros) << zeros


def stored_bytes(made: objects_pb2.Object) -> int:
    """Of plaintext with what it is filled up by: what hosts know of it."""
    return made.padded_bytes or made.size_bytes
