"""What goes out to one peer in its next PushBlocks call: blocks to push, blocks that it asked for, and words.

Blocks that it asked for by height are read as room comes up, from where the last call ended, so however much it asks
for, a few numbers for each author are all that is kept. Announcements wait ANNOUNCE_MS at most, not all the same time,
so that many go together, and those that the other has made meanwhile need not go at all.
"""

from __future__ import annotations

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ledger.backfill import STALL_MS
from offgrid_node.protocol.ledger.blocks import signatures_of
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.commands import PUSH_BLOCKS_MAX, PUSH_BYTES_MAX, PUSH_SIGNATURES_MAX
from offgrid_node.protocol.ledger.heads import HEADS_MAX, Span, encode_authors, encode_heads, encode_spans
from offgrid_node.protocol.ledger.links import Links, Peer
from offgrid_node.protocol.ledger.words import Words
from offgrid_node.protocol.rng import Rng

ANNOUNCE_MS = 400
LINK_BYTES_PER_S = 50_000  # the slowest link that a push still gets over in its time
ASKED_BYTES_MAX = 128 * 1024  # in a call with what was asked for: on such a link it comes before anybody stops waiting


class Outgoing:
    """Which peers are to be sent something, and what."""

    def __init__(self, chains: Chains) -> None:
        self._chains = chains
        self._ready: dict[str, None] = {}
        self._announce_ms: int | None = None  # the first announcement that is due
        self._held_ms: int | None = None  # … and what is held back

    def deadline_ms(self) -> int | None:
        return min((at for at in (self._announce_ms, self._held_ms) if at is not None), default=None)

    # ---- changes

    def ready(self, node: str) -> None:
        self._ready[node] = None

    def release(self, node: str, peer: Peer) -> None:
        """What was put for it goes now."""
        peer.held_ms = peer.ended_ms = None
        self.ready(node)

    def hold(self, peer: Peer, until_ms: int) -> None:
        """… or waits until then at most, if nothing takes it along."""
        peer.held_ms = until_ms if peer.held_ms is None else min(peer.held_ms, until_ms)
        self._hold(peer.held_ms)

    def ended(self, peer: Peer, until_ms: int) -> None:
        """What it waits for has ended, so it waits until then, or as what ended before does."""
        peer.ended_ms = peer.held_ms = until_ms if peer.ended_ms is None else peer.ended_ms
        self._hold(peer.held_ms)

    def announce(self, peer: Peer, author: bytes, height: int, now_ms: int, rng: Rng) -> None:
        if len(peer.announce) < HEADS_MAX:
            peer.announce[author] = max(height, peer.announce.get(author, 0))
        if peer.announce_ms is None:
            peer.announce_ms = now_ms + rng.randrange(ANNOUNCE_MS // 2, ANNOUNCE_MS + 1)
            due = self._announce_ms
            self._announce_ms = peer.announce_ms if due is None else min(due, peer.announce_ms)

    def on_words(self, peer: Peer, words: Words, now_ms: int) -> None:
        """What the peer wants of this node from now on."""
        if words.leave:
            peer.chose = False
        for author in words.prune:
            if self._chains.authors.get(author) is not None:
                peer.lazy[author] = None
        for author in words.graft:
            peer.lazy.pop(author, None)
        for span in words.lacking:
            self._serve(peer, span, now_ms)

    def take_ready(self, now_ms: int, links: Links) -> list[str]:
        """Peers with something to send, now."""
        if self._announce_ms is not None and self._announce_ms <= now_ms:
            waiting = {node: peer.announce_ms for node, peer in links.known() if peer.announce_ms is not None}
            self._ready.update(dict.fromkeys(node for node, at in waiting.items() if at <= now_ms))
            self._announce_ms = min((at for at in waiting.values() if at > now_ms), default=None)
        if self._held_ms is not None and self._held_ms <= now_ms:
            held = {node: peer.held_ms for node, peer in links.known() if peer.held_ms is not None}
            self._ready.update(dict.fromkeys(node for node, at in held.items() if at <= now_ms))
            self._held_ms = min((at for at in held.values() if at > now_ms), default=None)
        ready, self._ready = [*self._ready], {}
        return ready

    def take_push(self, peer: Peer, now_ms: int) -> tuple[ledger_pb2.PushBlocksRequest | None, int]:
        """The next call, if there is anything to say, and how long its blocks take on a slow link."""
        request = ledger_pb2.PushBlocksRequest()
        asked = bool(peer.answers or peer.serving)
        request.asked = asked and not (peer.outbox and peer.asked_last)
        room = _Room(ASKED_BYTES_MAX if request.asked else PUSH_BYTES_MAX)
        if request.asked:
            self._fill_asked(request, peer, room, now_ms)
        elif not peer.holds(now_ms):
            peer.held_ms = peer.ended_ms = None
            while peer.outbox and room.take(peer.outbox[0][0], request):
                peer.outbox_bytes -= len(peer.outbox.popleft()[0])
        peer.asked_last = request.asked
        self._say(request, peer, now_ms)
        if not request.blocks:
            request.asked = False
        return (request if request.ByteSize() else None), room.used * 1_000 // LINK_BYTES_PER_S

    # ---- inside

    def _hold(self, until_ms: int) -> None:
        self._held_ms = until_ms if self._held_ms is None else min(self._held_ms, until_ms)

    def _serve(self, peer: Peer, span: Span, now_ms: int) -> None:
        """What was sent a moment ago is not sent again: it may be on its way. Where nothing is left to send, or there
        is nothing such, nothing more of the author's is wanted."""
        upto, at_ms = peer.served.get(span.author, (0, 0))
        first = max(span.first, upto + 1) if now_ms < at_ms + STALL_MS else span.first
        last = min(span.last, self._chains.author(span.author).height)
        if first <= last:
            peer.serving[span.author] = Span(span.author, first, last)
        else:
            peer.serving.pop(span.author, None)

    def _fill_asked(self, request: ledger_pb2.PushBlocksRequest, peer: Peer, room: _Room, now_ms: int) -> None:
        while peer.answers:
            raw = self._chains.raw(peer.answers[0])
            if raw is not None and not room.take(raw, request):
                return
            peer.answers.popleft()
        ended = True
        for place, author, height in self._chains.in_order(peer.serving.values()):
            raw = self._chains.raw(place)
            if raw is None or not room.take(raw, request):
                ended = raw is None
                break
            peer.has(author, height)
            peer.served[author] = height, now_ms
            peer.serving[author] = Span(author, height + 1, peer.serving[author].last)
        done = [author for author, span in peer.serving.items() if ended or span.first > span.last]
        for author in done:
            del peer.serving[author]

    def _say(self, request: ledger_pb2.PushBlocksRequest, peer: Peer, now_ms: int) -> None:
        if peer.announce_ms is not None and peer.announce_ms <= now_ms:
            news = [(author, height) for author, height in peer.announce.items() if peer.shown.get(author, 0) < height]
            request.announced = encode_heads(news)
            peer.announce.clear()
            peer.announce_ms = None
        request.prune = encode_authors(peer.prune)
        request.graft = encode_authors(peer.graft)
        request.lacking = encode_spans(peer.lacking.values())
        request.leave = peer.leave
        for words in (peer.prune, peer.graft, peer.lacking):
            words.clear()
        peer.leave = False


class _Room:
    """What one call may carry."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.used = self._blocks = self._signatures = 0

    def take(self, raw: bytes, request: ledger_pb2.PushBlocksRequest) -> bool:
        """Whether it found room; one block always does."""
        if self._blocks == PUSH_BLOCKS_MAX or (self._blocks and self.used + len(raw) > self._bytes_max):
            return False
        block = ledger_pb2.Block.FromString(raw)
        self._signatures += signatures_of(block)
        if self._signatures > PUSH_SIGNATURES_MAX:
            return False
        request.blocks.append(block)
        self._blocks += 1
        self.used += len(raw)
        return True
