"""Whether all shards of an object are whole, asked in a few bytes each.

The auditor draws a nonce; it says, for each place in a shard, seven factors. A host answers with the seven sums of
its bytes, each times its factor, over the code's own field. Such sums commute with the code: the answers of all shards
are a code word as the shards are, whatever the nonce, so whoever holds no shard at all can check them (after Ateniese
et al., "Provable Data Possession", 2007, and the homomorphic tags of Shacham and Waters, 2008, without keys). Copies
are the code of one needed: their answers are the same.

The factors are products of three, drawn from 1 to 255 with no value likelier than another: of the window and piece that
a byte is in, of its line there, and of its place in the line. So one wrong byte cannot be missed at all; any other
damage is missed by one sum with a probability of at most 3/255, by all seven below 2⁻⁴⁴. Who has not the bytes guesses
an answer with 2⁻⁵⁶, and to have one ready for each nonce he would keep eight terabytes a shard. Hosts who collude can
answer for one another, and any k of them for all. More sums would be worth their bytes only if audits cost nothing: one
object of twenty shards on ten hosts takes 1,000 bytes on the wire, 710 of them for ten questions and answers that say
nothing.

Which answers are wrong is told after Metzner and Kapturowski ("A general decoding technique applicable to replicated
file disagreement location and concatenated code decoding", 1990): the seven symbols of an answer go wrong together,
so the wrong shards' columns of the parity check are those inside the space that the syndromes span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import msgspec

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.objects.code import (
    added,
    combination,
    inverse,
    multiply,
    rows_for,
    scaled,
)

NONCE_BYTES, ANSWER_BYTES = 5, 7
NAME_BYTES = 4  # of an object's id, in a question: who keeps more than one of that name says so, and is asked by ids
WINDOW_BYTES = 1 << 20  # read and summed at a time
PIECE_BYTES = 8 << 10
LINE_BYTES = 64
FACTORS_KIND = b"og.audit.v1"
SMALL_SUMS = 0xFFFF_FFFF  # in the place of a window's number: the factors of lines and of places in a line

Read = Callable[[int, int], bytes]
"""Offset and length → exactly so many bytes of the shard."""
Combine = Callable[[Sequence[bytes], Sequence[memoryview]], list[bytes]]
"""A coder's `combine`."""


class Verdict(msgspec.Struct, frozen=True):
    """`wrong` are shards whose answers do not belong to the others'; no honest one is named while those that are wrong
    are fewer than the answers beyond k. `told_apart`: the answers of all others are one code word."""

    whole: bool
    wrong: tuple[int, ...] = ()
    told_apart: bool = True


def answer_of(nonce: bytes, size_bytes: int, read: Read, combine: Combine) -> bytes:
    """A host's answer for a shard of so many bytes."""
    totals = [bytes(PIECE_BYTES)] * ANSWER_BYTES
    for window, offset in enumerate(range(0, size_bytes, WINDOW_BYTES)):
        data = read(offset, min(WINDOW_BYTES, size_bytes - offset))
        view = memoryview(data.ljust(-(-len(data) // PIECE_BYTES) * PIECE_BYTES, b"\0"))
        pieces = [view[at : at + PIECE_BYTES] for at in range(0, len(view), PIECE_BYTES)]
        sums = combine(_factors(nonce, window, len(pieces)), pieces)
        totals = [added(total, part) for total, part in zip(totals, sums, strict=True)]
    return _narrowed(nonce, totals)


def judge(k: int, n: int, answers: Mapping[int, bytes]) -> Verdict:
    """Of the shards that answered. Raises ValueError unless more than k have: fewer prove nothing. Copies are judged as
    1 of as many as there are."""
    shards = sorted(answers)
    if len(shards) <= k:
        raise ValueError(f"{len(shards)} answers: more than {k} of {n} are needed to tell anything")
    if any(len(answer) != ANSWER_BYTES for answer in answers.values()):
        raise ValueError(f"an answer that is not of {ANSWER_BYTES} bytes")
    checks = _checks(k, n, shards)
    syndromes = [combination(row, [answers[shard] for shard in shards]) for row in checks]
    if not any(any(syndrome) for syndrome in syndromes):
        return Verdict(whole=True)
    wrong = _inside(checks, syndromes, shards)
    rest = {shard: answer for shard, answer in answers.items() if shard not in wrong}
    told_apart = bool(wrong) and len(rest) > k and judge(k, n, rest).whole
    return Verdict(whole=False, wrong=wrong, told_apart=told_apart)


# ---- answers as they travel


def encode_answers(objects: Sequence[Mapping[int, bytes]], asked: int) -> bytes:
    """Of each object in turn, as far as they go of those `asked` for, which shards, and their answers; how many stands
    before them, where more than one was asked for."""
    parts = list[bytes]()
    for answers in objects:
        shards = sorted(answers)
        count = bytes([len(shards)]) if asked > 1 else b""
        parts += [count, bytes(shards), *(answers[shard] for shard in shards)]
    return b"".join(parts)


def decode_answers(raw: bytes, asked: int) -> list[dict[int, bytes]]:
    """Raises PeerFault (BadAnswers) for anything that `encode_answers` would not have written, or of more objects."""
    if asked == 1:
        count = min(len(raw) // (1 + ANSWER_BYTES), 255)
        raw = bytes([count]) + raw
    found, at = list[dict[int, bytes]](), 0
    while at < len(raw):
        count = raw[at]
        begin, end = at + 1 + count, at + 1 + count * (1 + ANSWER_BYTES)
        shards = raw[at + 1 : begin]
        if len(found) == asked or end > len(raw) or any(a >= b for a, b in pairwise(shards)):
            raise PeerFault("answers to an audit that cannot be read", reason="BadAnswers")
        sums = (raw[place : place + ANSWER_BYTES] for place in range(begin, end, ANSWER_BYTES))
        found.append(dict(zip(shards, sums, strict=True)))
        at = end
    return found


# ---- a host's sums


def _factors(nonce: bytes, number: int, count: int) -> list[bytes]:
    """For each sum as many factors; none is 0."""
    wanted, drawn = ANSWER_BYTES * count, ANSWER_BYTES * count * 65 // 64 + 64
    factors = b""
    while len(factors) < wanted:
        stream = hashlib.shake_256(FACTORS_KIND + nonce + number.to_bytes(4, "big"))
        factors, drawn = stream.digest(drawn).replace(b"\0", b""), 2 * drawn
    return [factors[at : at + count] for at in range(0, wanted, count)]


def _narrowed(nonce: bytes, totals: Sequence[bytes]) -> bytes:
    """Of each sum's piece one byte: first its lines are summed, then what is in one line."""
    lines = PIECE_BYTES // LINE_BYTES
    answer = bytearray()
    for factors, total in zip(_factors(nonce, SMALL_SUMS, lines + LINE_BYTES), totals, strict=True):
        line = combination(factors[:lines], [total[at : at + LINE_BYTES] for at in range(0, PIECE_BYTES, LINE_BYTES)])
        byte = 0
        for factor, value in zip(factors[lines:], line, strict=True):
            byte ^= multiply(factor, value)
        answer.append(byte)
    return bytes(answer)


# ---- the auditor's algebra


def _checks(k: int, n: int, shards: Sequence[int]) -> list[bytes]:
    """The parity checks of a code of which only these shards are looked at: what the first k make of each other one,
    and that one itself."""
    made = rows_for(k, n, tuple(shards[:k]), tuple(shards[k:]))
    rest = len(shards) - k
    return [row + bytes(int(place == own) for place in range(rest)) for own, row in enumerate(made)]


def _inside(checks: Sequence[bytes], syndromes: Sequence[bytes], shards: Sequence[int]) -> tuple[int, ...]:
    """The shards whose column of the checks is a sum of columns of the syndromes; none where those span everything."""
    basis = _basis([bytes(column) for column in zip(*syndromes, strict=True)])
    if len(basis) == len(checks):
        return ()
    columns = [bytes(column) for column in zip(*checks, strict=True)]
    return tuple(shard for shard, column in zip(shards, columns, strict=True) if not any(_reduced(column, basis)))


def _basis(vectors: Sequence[bytes]) -> dict[int, bytes]:
    """Vectors that span the same, by the place of their first symbol, which is 1."""
    basis: dict[int, bytes] = {}
    for vector in vectors:
        left = _reduced(vector, basis)
        lead = next((place for place, symbol in enumerate(left) if symbol), None)
        if lead is not None:
            basis[lead] = scaled(inverse(left[lead]), left)
    return basis


def _reduced(vector: bytes, basis: Mapping[int, bytes]) -> bytes:
    """What is left of it outside of the space; nothing where it is inside."""
    for lead in sorted(basis):
        if factor := vector[lead]:
            vector = added(vector, scaled(factor, basis[lead]))
    return vector
