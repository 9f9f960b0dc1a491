"""Bodies of messages made shorter for slow links: ids folded, then zstd with a dictionary that both sides have.

    packed body     dictionary 1 | bytes

Dictionary 0 is none: what follows is folded (folding.py), and everybody reads it. Else it is what follows folded and
then compressed as one block of zstd (RFC 8878, 3.1.1.2) with that dictionary; the headers of frame and block, which
say nothing new, are left out. Dictionaries are files of this package, numbered as they came into the world; a node
keeps all that there ever were, and uses towards a peer none that the peer has not shown it knows: in the hello, or by
having used it. `python -m offgrid_tools.wordbook` makes them.
"""

from __future__ import annotations

from functools import cached_property
from importlib import resources
from importlib.util import find_spec

from offgrid_transports.folding import FoldError, fold, unfold

NEWEST = 1 if find_spec("zstandard") else 0
"""The dictionary that came last; 0 where there is no wheel for the machine: ids are folded then, no more."""
BLOCK_BYTES_MAX = 128 * 1024  # of zstd; what is longer travels as it is
RATIO_MAX = 256  # how many times as long as packed a body may be, which bounds what few bytes bring about
LEVEL = 12  # more takes longer for no less
_WINDOW_LOG = 17
_FRAME_HEAD = bytes((0, (_WINDOW_LOG - 10) << 3))  # no content size, no checksum, no dictionary's number, that window
_BLOCK_HEAD_BYTES = 3
_COMPRESSED, _LAST = 2 << 1, 1


class PackingError(ValueError):
    """These bytes are no packed body."""


class Words:
    """How the bodies of one session are packed. `known` are the dictionaries that its peer is known to have."""

    def __init__(self, packing: Packing, known: int = 0) -> None:
        self._packing, self.known = packing, known

    def shorten(self, body: bytes) -> tuple[bytes, bool]:
        """What is to travel, and whether that is packed."""
        packed = self._packing.pack(body, self.known)
        return (body, False) if packed is None else (packed, True)

    def lengthen(self, packed: bytes) -> bytes:
        """Raises PackingError. Who packs with a dictionary has it."""
        body = self._packing.unpack(packed)
        self.known = max(self.known, packed[0])
        return body


class Packing:
    """Belongs to one thread."""

    def pack(self, body: bytes, known: int) -> bytes | None:
        """The shortest form that a peer reads which knows the dictionaries up to `known`; None where `body` itself is
        no longer."""
        if len(body) > BLOCK_BYTES_MAX:
            return None
        folded = fold(body)
        best = bytes(1) + folded
        number = min(known, NEWEST)
        if number and len(folded) <= BLOCK_BYTES_MAX and (block := self._tables[number - 1].compressed(folded)):
            best = min(best, bytes((number,)) + block, key=len)
        return best if len(best) < len(body) <= RATIO_MAX * len(best) else None

    def unpack(self, packed: bytes) -> bytes:
        """Raises PackingError."""
        if not packed or packed[0] > NEWEST:
            raise PackingError(f"packed with dictionary {packed[0]}; {NEWEST} is known" if packed else "nothing packed")
        folded = packed[1:]
        if packed[0]:
            folded = self._tables[packed[0] - 1].decompressed(folded, min(BLOCK_BYTES_MAX, RATIO_MAX * len(packed)))
        try:
            body = unfold(folded)
        except FoldError as error:
            raise PackingError(str(error)) from error
        if len(body) > BLOCK_BYTES_MAX:
            raise PackingError(f"{len(body)} bytes; {BLOCK_BYTES_MAX} are taken")
        return body

    @cached_property
    def _tables(self) -> list[_Table]:
        home = resources.files("offgrid_transports") / "dictionaries"
        return [_Table((home / f"{number}.dict").read_bytes()) for number in range(1, NEWEST + 1)]


class _Table:
    """zstd with one dictionary."""

    def __init__(self, dictionary: bytes) -> None:
        import zstandard  # late: it takes 20 ms, and only those who have a radio need it

        words = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_FULLDICT)
        form = zstandard.FORMAT_ZSTD1_MAGICLESS
        settings = zstandard.ZstdCompressionParameters.from_level(
            LEVEL,
            format=form,
            window_log=_WINDOW_LOG,
            write_content_size=False,
            write_checksum=False,
            write_dict_id=False,
        )
        self._compressor = zstandard.ZstdCompressor(dict_data=words, compression_params=settings)
        self._decompressor = zstandard.ZstdDecompressor(dict_data=words, format=form)
        self._error = zstandard.ZstdError

    def compressed(self, data: bytes) -> bytes:
        """What a block holds; empty where one block alone does not do."""
        frame: bytes = self._compressor.compress(data)
        start = len(_FRAME_HEAD) + _BLOCK_HEAD_BYTES
        head = int.from_bytes(frame[len(_FRAME_HEAD) : start], "little")
        compressed = head & 0b111 == _COMPRESSED | _LAST and head >> 3 == len(frame) - start
        return frame[start:] if compressed else b""

    def decompressed(self, block: bytes, bytes_max: int) -> bytes:
        """Raises PackingError."""
        if len(block) > BLOCK_BYTES_MAX:
            raise PackingError(f"a block of {len(block)} bytes; {BLOCK_BYTES_MAX} are taken")
        head = (len(block) << 3 | _COMPRESSED | _LAST).to_bytes(_BLOCK_HEAD_BYTES, "little")
        frame = _FRAME_HEAD + head + block
        try:
            data: bytes = self._decompressor.decompress(frame, max_output_size=bytes_max, allow_extra_data=False)
        except self._error as error:
            raise PackingError(f"no block of zstd: {error}") from error
        return data
