"""Blocks of a ledger as a graph: who said what after what, as text and as a picture (SVG 1.1).

In the picture each author has a column, each block a row, in the order in which the node took them in; so all that a
block leans on stands above it, and lines to what is above the first row end at its edge. Authors that signed two blocks
at one height are red there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

import msgspec
from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.blocks import header_of, said_by
from offgrid_node.protocol.ledger.items import (
    Cut,
    Double,
    Fork,
    Item,
    Marks,
    OrderItem,
    Report,
    Seal,
    Seen,
    Statement,
    TxItem,
    Unlock,
    Wish,
    decode_item,
)
from offgrid_node.protocol.ledger.records import tx_id_of
from offgrid_node.protocol.mesh.records import decode_genesis

KINDS = {"tx": "#2b6cb0", "vote": "#a0aec0", "confirm": "#38a169", "evidence": "#e53e3e", "other": "#805ad5"}
LANE, ROW, TOP, LEFT, BOX, TALL = 190, 34, 60, 70, 150, 22
DETAILS_MAX = 12  # items of a block that its tooltip tells of
NAME_CHARS_MAX = 22
DIGEST_CHARS = 12


class Vertex(msgspec.Struct, frozen=True):
    """A block. `kinds` counts its items; `details` says what they are, the first of them."""

    position: int
    author: str
    name: str
    height: int
    digest: str
    prev: str
    parents: tuple[str, ...]
    created_us: int
    kinds: Mapping[str, int]
    details: tuple[str, ...]
    forked: bool


def salt_of(mesh_genesis: bytes) -> bytes:
    """The mesh's salt, from the body of its genesis."""
    return decode_genesis(mesh_genesis).salt


def vertices(blocks: Iterable[tuple[int, ledger_pb2.Block]], salt: bytes, names: Mapping[str, str]) -> list[Vertex]:
    """Of blocks by their positions. Nothing is verified; what cannot be read is left out."""
    found = [vertex for position, block in blocks if (vertex := _vertex(position, block, salt, names)) is not None]
    places = Counter((vertex.author, vertex.height) for vertex in found)
    forked = {place for place, count in places.items() if count > 1}
    return [replace(vertex, forked=(vertex.author, vertex.height) in forked) for vertex in found]


def document(vertex: Vertex) -> dict[str, Any]:
    """For programs."""
    shown: dict[str, Any] = msgspec.to_builtins(vertex)
    return shown


def lines(graph: Sequence[Vertex]) -> Iterator[tuple[object, ...]]:
    """As rows of a table: position, block, what it names besides its author's last, what it says."""
    by_digest = {vertex.digest: vertex for vertex in graph}
    for vertex in graph:
        parents = ", ".join(_called(by_digest.get(digest), digest) for digest in vertex.parents)
        mark = " FORK" if vertex.forked else ""
        yield vertex.position, f"{vertex.name} {vertex.height}{mark}", parents or "-", _summary(vertex.kinds)


def svg(graph: Sequence[Vertex], title: str) -> str:
    """The picture. Names are escaped; what XML cannot carry is left out."""
    lanes = {author: place for place, author in enumerate(dict.fromkeys(vertex.author for vertex in graph))}
    where = {vertex.digest: (_x(lanes[vertex.author]), _y(row)) for row, vertex in enumerate(graph)}
    width, height = LEFT + LANE * max(1, len(lanes)), TOP + ROW * len(graph) + 30
    parts = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        '<g font-family="sans-serif" font-size="11">',
        f"<title>{_text(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *_legend(),
        *_lanes(graph, lanes, height),
    ]
    for vertex in graph:
        parts += _edges(vertex, where)
    for vertex in graph:
        parts += _box(vertex, *where[vertex.digest])
    return "\n".join((*parts, "</g></svg>", ""))


# ---- reading


def _vertex(position: int, block: ledger_pb2.Block, salt: bytes, names: Mapping[str, str]) -> Vertex | None:
    try:
        signed = header_of(block, salt)
    except PeerFault:
        return None
    header, kinds, details = signed.header, Counter[str](), list[str]()
    for encoded in block.items:
        try:
            item = decode_item(encoded, salt)
            (kind, detail), many = _item(item, names, salt), said_by(item)
        except PeerFault:
            (kind, detail), many = ("other", "an item that cannot be read"), 1
        kinds[kind] += many
        if len(details) < DETAILS_MAX:
            details.append(detail)
    author = header.author_id
    return Vertex(
        position, author, names.get(author, author[:8]), header.height, signed.digest.hex(), header.prev.hex(),
        tuple(digest.hex() for digest in header.parents), header.created_us, dict(kinds), tuple(details), forked=False,
    )  # fmt: skip


def _item(item: Item, names: Mapping[str, str], salt: bytes) -> tuple[str, str]:
    """Its kind, as KINDS has it, and a few words."""

    def called(account: bytes) -> str:
        return names.get(base32(account), base32(account)[:8])

    match item:
        case TxItem(tx, _, _, digest):
            paid = ", ".join(f"{amount / 1e6:g} to {called(account)}" for account, amount in tx.outputs[:3])
            more = f" and {len(tx.outputs) - 3} more" if len(tx.outputs) > 3 else ""
            return "tx", f"tx {tx_id_of(digest)[:DIGEST_CHARS]}: {called(tx.src)} pays {paid}{more}"
        case Statement(confirms, account, seq, ballot, digest):
            word = "confirm" if confirms else "vote"
            at = f" at ballot {ballot}" if ballot else ""
            return word, f"{word}{at} in slot {seq} of {called(account)}: {tx_id_of(digest)[:DIGEST_CHARS]}"
        case Marks(confirms, block):
            word = "confirm" if confirms else "vote"
            return word, f"{item.count} {word}s of transactions in {block.hex()[:DIGEST_CHARS]}"
        case Fork(first):
            return "evidence", f"{called(first.header.author)} signed two blocks at height {first.header.height}"
        case Double(first):
            return "evidence", f"{called(first.tx.src)} signed two transactions for its slot {first.tx.seq}"
        case Seen(author, digest):
            return "other", f"holds {digest.hex()[:DIGEST_CHARS]} of {called(author)}"
        case Unlock(source, seq):
            return "other", f"{called(source.account)} asks that its slot {seq} ends"
        case Report(account, seq, ballot):
            return "other", f"report at ballot {ballot} in slot {seq} of {called(account)}"
        case Wish():
            return "other", "wishes that the epoch ends"
        case OrderItem(order):
            return "other", f"{called(order.issuer)} orders {len(order.witnesses)} witnesses for epoch {order.epoch}"
        case Cut(checkpoint):
            return "other", f"epoch {checkpoint.epoch} could end with {checkpoint.digest(salt).hex()[:DIGEST_CHARS]}"
        case Seal(epoch, digest):
            return "other", f"epoch {epoch} has ended with {digest.hex()[:DIGEST_CHARS]}"


def _called(vertex: Vertex | None, digest: str) -> str:
    return f"{vertex.name} {vertex.height}" if vertex is not None else digest[:DIGEST_CHARS]


def _summary(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds.get(kind))


# ---- drawing


def _x(lane: int) -> int:
    return LEFT + LANE * lane


def _y(row: int) -> int:
    return TOP + ROW * row


def _text(text: str) -> str:
    """For XML 1.0, which has no place for most controls and for half of a surrogate pair."""
    kept = "".join(
        char for char in text if char in "\t\n" or 0x20 <= ord(char) < 0xD800 or 0xE000 <= ord(char) < 0xFFFE
    )
    return escape(kept, {'"': "&quot;"})


def _short(name: str) -> str:
    return name if len(name) <= NAME_CHARS_MAX else f"{name[: NAME_CHARS_MAX - 1]}…"


def _legend() -> Iterator[str]:
    for place, (kind, colour) in enumerate(KINDS.items()):
        yield f'<rect x="{LEFT + 90 * place}" y="8" width="10" height="10" fill="{colour}"/>'
        yield f'<text x="{LEFT + 14 + 90 * place}" y="17">{kind}</text>'


def _lanes(graph: Sequence[Vertex], lanes: Mapping[str, int], height: int) -> Iterator[str]:
    names = {vertex.author: vertex.name for vertex in graph}
    for author, lane in lanes.items():
        x = _x(lane)
        yield f'<line x1="{x + 12}" y1="{TOP - 14}" x2="{x + 12}" y2="{height}" stroke="#edf2f7" stroke-width="2"/>'
        yield (
            f'<text x="{x}" y="{TOP - 20}" font-weight="bold"><title>{_text(author)}</title>'
            f"{_text(_short(names[author]))}</text>"
        )


def _edges(vertex: Vertex, where: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    x, y = where[vertex.digest]
    for digest, colour, width in ((vertex.prev, "#4a5568", 1.5), *((it, "#cbd5e0", 1) for it in vertex.parents)):
        if digest in where:
            to_x, to_y = where[digest]
            bend = (y - to_y - TALL) // 2
            yield (
                f'<path d="M {x + 12} {y} C {x + 12} {y - bend}, {to_x + 12} {to_y + TALL + bend}, '
                f'{to_x + 12} {to_y + TALL}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
            )
        elif vertex.height > 1 or digest != vertex.prev:
            yield (
                f'<line x1="{x + 12}" y1="{y}" x2="{x + 12}" y2="{y - 10}" stroke="{colour}" stroke-width="{width}" '
                'stroke-dasharray="2 2"/>'
            )


def _box(vertex: Vertex, x: int, y: int) -> Iterator[str]:
    edge, fill = ("#c53030", "#fed7d7") if vertex.forked else ("#718096", "#f7fafc")
    said = [f"{vertex.name}, block {vertex.height}, {vertex.digest[:DIGEST_CHARS]}", *vertex.details]
    if (more := sum(vertex.kinds.values()) - len(vertex.details)) > 0:
        said.append(f"and {more} more")
    yield f"<g><title>{_text(chr(10).join(said))}</title>"
    yield f'<rect x="{x}" y="{y}" width="{BOX}" height="{TALL}" rx="4" fill="{fill}" stroke="{edge}"/>'
    yield f'<text x="{x + 6}" y="{y + 15}">{vertex.height}</text>'
    at = x + 44
    for kind, colour in KINDS.items():
        if count := vertex.kinds.get(kind):
            yield f'<rect x="{at}" y="{y + 7}" width="8" height="8" fill="{colour}"/>'
            yield f'<text x="{at + 10}" y="{y + 15}">{count}</text>'
            at += 14 + 7 * len(str(count))
    yield "</g>"
    yield f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end" fill="#a0aec0">{vertex.position}</text>'
