"""What neighbours say to each other beside blocks, in a PushBlocks call: see links.py and backfill.py."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ledger.heads import Span, decode_authors, decode_heads, decode_spans


class Words(msgspec.Struct, frozen=True):
    """`asked`: the blocks beside them were asked for. `announced`: how far the sender has each author's blocks."""

    asked: bool = False
    announced: Mapping[bytes, int] = msgspec.field(default_factory=dict)
    prune: tuple[bytes, ...] = ()
    graft: tuple[bytes, ...] = ()
    lacking: tuple[Span, ...] = ()
    leave: bool = False


NO_WORDS = Words()


def words_of(request: ledger_pb2.PushBlocksRequest) -> Words:
    """Raises PeerFault (reason BadHeads)."""
    return Words(
        request.asked,
        decode_heads(request.announced),
        decode_authors(request.prune),
        decode_authors(request.graft),
        decode_spans(request.lacking),
        request.leave,
    )
