"""How blocks spread: pushed as they appear, and by anti-entropy (Demers et al. 1987) whatever the pushes missed.

Blocks have one way in, PushBlocks, whose handler checks every signature. SyncBlocks only says what one holds: what the
other lacks is then pushed to it, from both sides. At most one push and one sync to a peer are under way; what comes up
meanwhile shares the next, so a slow peer costs nothing but its own delay.

An author pushes to all while there are at most DIRECT_MAX peers, else to as many at random, and who learns a block
passes it on to RELAY_PEERS. Who cannot be reached by its author asks for what others' blocks name (orphans.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.ids import NODE_ID, base32, node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock, signatures_of
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.commands import (
    HEADS_MAX,
    PUSH_BLOCKS_MAX,
    PUSH_BYTES_MAX,
    PUSH_SIGNATURES_MAX,
    WANTED_MAX,
    SyncBlocks,
)
from offgrid_node.protocol.ledger.orphans import Orphans
from offgrid_node.protocol.ledger.records import DIGEST_BYTES
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.rng import Rng

SYNC_MS = 2_000
DIRECT_MAX = 8
RELAY_PEERS = 3
OUTBOX_BLOCKS_MAX = 1_024
OUTBOX_BYTES_MAX = 4 * 1024 * 1024
ANCESTORS_MAX = 16  # that go along with a block asked for by name
CALL_TIMEOUT_MS = 5_000
LINK_BYTES_PER_S = 50_000  # the slowest link that a push still gets over in its time


@dataclass(frozen=True, slots=True)
class Tag:
    """Which of our calls has ended."""

    what: str
    node: str


@dataclass(slots=True)
class _Peer:
    outbox: deque[bytes] = field(default_factory=deque)
    outbox_bytes: int = 0
    pushing: bool = False
    syncing: bool = False
    offered: list[int] = field(default_factory=list)  # what it lacked when it was last compared
    again: bool = False  # sync once what is under way has ended: there is more than was said
    has_genesis: bool = False
    silent: bool = False  # its economy is off; it is asked again when it comes up, or its turn comes


class Gossip:
    """Peers alive, and what is under way to each."""

    def __init__(self, self_id: str, draft: Draft, chains: Chains, orphans: Orphans, voice: Voice) -> None:
        self._self_id, self._own = self_id, node_id_bytes(self_id)
        self._draft, self._chains, self._orphans, self._voice = draft, chains, orphans, voice
        self._peers: dict[str, _Peer] = {}
        self._ready: dict[str, None] = {}  # peers whose outbox is to be sent
        self._due: dict[str, None] = {}  # peers to sync with at the end of this step
        self._genesis: common_pb2.Signed | None = None
        self._genesis_digest = b""
        self._tick_ms: int | None = None

    def open(self, genesis: common_pb2.Signed, digest: bytes, now: Now) -> None:
        """There is something to tell: everybody alive is told."""
        self._genesis, self._genesis_digest = genesis, digest
        self._tick_ms = now.mono_ms + SYNC_MS
        self._due.update(dict.fromkeys(self._peers))

    # ---- questions

    def deadline_ms(self) -> int | None:
        if self._tick_ms is None:
            return None
        asks_ms = self._orphans.deadline_ms()
        return self._tick_ms if asks_ms is None else min(self._tick_ms, asks_ms)

    def is_silent(self, node: str) -> bool:
        """Whether it has answered that its economy is off."""
        peer = self._peers.get(node)
        return peer is not None and peer.silent

    # ---- inputs

    def on_peer_up(self, node: str) -> None:
        if node == self._self_id:
            return
        peer = self._peers.setdefault(node, _Peer())
        peer.silent = peer.pushing = peer.syncing = False  # whatever was under way may never end
        self._due[node] = None

    def on_peer_down(self, node: str) -> None:
        self._peers.pop(node, None)

    def on_time(self, now: Now, rng: Rng) -> None:
        if self._tick_ms is None:
            return
        if self._tick_ms <= now.mono_ms:
            self._tick_ms = now.mono_ms + SYNC_MS
            if self._peers:
                self._due[rng.choice([*self._peers])] = None
            for node in self._peers:  # none after the first moments, when calls get through
                if self._voice.unheard(node_id_bytes(node)):
                    self._due[node] = None
        for node in self._orphans.take_asks(now.mono_ms):
            if node in self._peers:
                self._due[node] = None
            elif self._peers:
                self._due[rng.choice([*self._peers])] = None

    def on_sync(self, command: SyncBlocks, now: Now) -> ledger_pb2.SyncBlocksResponse:
        """Pushes what the sender lacks and says what is here."""
        heads = {author: (height, digest) for author, height, digest in command.heads}
        self._compare_own(command.sender, heads, now)
        peer = self._peers.get(command.sender)
        if peer is not None:
            peer.has_genesis, peer.silent = True, False
            self._meet(peer, command.sender, heads)
            self._offer_wanted(command.sender, peer, command.wanted)
        return ledger_pb2.SyncBlocksResponse(heads=self._heads())

    def on_answered(self, tag: Tag, answer: Answered, now: Now) -> None:
        peer = self._peers.get(tag.node)
        if peer is None:
            return
        if tag.what == "PushBlocks":
            peer.pushing = False
        else:
            peer.syncing = False
        if answer.fault is not None:
            self._on_fault(tag.node, peer, answer.fault)
        elif isinstance(answer.reply, ledger_pb2.SyncBlocksResponse):
            peer.has_genesis, peer.silent = True, False
            heads = _heads_of(answer.reply)
            self._compare_own(tag.node, heads, now)
            self._meet(peer, tag.node, heads)
        if peer.outbox:
            self._ready[tag.node] = None
        if peer.again and not peer.syncing and len(peer.outbox) < PUSH_BLOCKS_MAX:
            peer.again = False
            self._due[tag.node] = None

    # ---- what is new

    def add_own(self, block: CheckedBlock, rng: Rng) -> None:
        """A block of this node, which this very batch makes durable."""
        for node in self._some([*self._peers], DIRECT_MAX, rng):
            self._put(node, self._peers[node], block.raw)

    def relay(self, block: CheckedBlock, sender: str, rng: Rng) -> None:
        """A block just learnt; in a small mesh its author has told everybody."""
        if len(self._peers) > DIRECT_MAX:
            others = [node for node in self._peers if node not in (sender, block.header.author_id)]
            for node in self._some(others, RELAY_PEERS, rng):
                self._put(node, self._peers[node], block.raw)

    def flush(self, now: Now) -> None:
        """The end of a step: the calls that follow."""
        for node in self._due if self._genesis is not None else ():
            peer = self._peers.get(node)
            if peer is not None and peer.syncing:
                peer.again = True
            elif peer is not None:
                self._sync(node, peer, now)
        self._due.clear()
        for node in self._ready:
            peer = self._peers.get(node)
            if peer is not None and peer.outbox and not peer.pushing:
                self._push(node, peer)
        self._ready.clear()

    # ---- inside

    def _on_fault(self, node: str, peer: _Peer, fault: Fault) -> None:
        """Whatever was under way is lost; anti-entropy finds out what is lacking."""
        peer.outbox.clear()
        peer.outbox_bytes = 0
        peer.again, peer.has_genesis = False, False
        if fault.reason == "EconomyOff":
            peer.silent = True
        elif fault.reason == "OtherLedger":
            self._voice.notice(f"{node} has another ledger", about=node)
        elif fault.reason == "LedgerNotOpen":
            self._due[node] = None

    def _compare_own(self, node: str, heads: Mapping[bytes, tuple[int, bytes]], now: Now) -> None:
        """What the other holds of this node is nothing new, or it is asked for: see voice.py."""
        _, own = heads.get(self._own, (0, self._genesis_digest))
        held = self._chains.holds(own)
        self._voice.on_shown(node_id_bytes(node), own, held=held, now_ms=now.mono_ms)
        if not held:
            self._orphans.want([own], node_id_bytes(node), node, now.mono_ms)

    def _meet(self, peer: _Peer, node: str, heads: Mapping[bytes, tuple[int, bytes]]) -> None:
        """Compares what the other holds with what is here, and offers what it lacks."""
        if len(peer.outbox) < PUSH_BLOCKS_MAX:  # what is under way now may be offered twice; that does no harm
            places = self._chains.lacking(heads, PUSH_BLOCKS_MAX)
            self._offer(node, peer, places)
            if places != peer.offered:  # who takes nothing in, or says so, gets the same again no sooner than others
                peer.again = peer.again or len(places) == PUSH_BLOCKS_MAX
            peer.offered = places

    def _offer_wanted(self, node: str, peer: _Peer, wanted: Sequence[bytes]) -> None:
        """As many as one push may carry, for each is read to find the one before it; the rest is asked for again."""
        places: dict[int, None] = {}
        for digest in wanted:
            if len(places) >= PUSH_BLOCKS_MAX:
                break
            places.update(dict.fromkeys(self._chains.with_ancestors(digest, ANCESTORS_MAX)))
        self._offer(node, peer, sorted(places))

    def _offer(self, node: str, peer: _Peer, places: Sequence[int]) -> None:
        total = 0
        for place in places:
            raw = self._chains.raw(place)
            if raw is not None:
                total += len(raw)
                if total > PUSH_BYTES_MAX:
                    peer.again = True
                    return
                self._put(node, peer, raw)

    def _put(self, node: str, peer: _Peer, raw: bytes) -> None:
        if peer.silent:
            return
        if len(peer.outbox) >= OUTBOX_BLOCKS_MAX or peer.outbox_bytes + len(raw) > OUTBOX_BYTES_MAX:
            peer.again = True
            return
        peer.outbox.append(raw)
        peer.outbox_bytes += len(raw)
        self._ready[node] = None

    def _push(self, node: str, peer: _Peer) -> None:
        request, room, signatures = ledger_pb2.PushBlocksRequest(), PUSH_BYTES_MAX, PUSH_SIGNATURES_MAX
        while peer.outbox and len(request.blocks) < PUSH_BLOCKS_MAX and len(peer.outbox[0]) <= room:
            raw = peer.outbox[0]
            block = ledger_pb2.Block.FromString(raw)
            signatures -= signatures_of(block)
            if signatures < 0:
                break  # the rest goes with the next call
            request.blocks.append(block)
            peer.outbox.popleft()
            peer.outbox_bytes -= len(raw)
            room -= len(raw)
        peer.pushing = True
        size_ms = (PUSH_BYTES_MAX - room) * 1_000 // LINK_BYTES_PER_S
        self._call(node, "PushBlocks", request, CALL_TIMEOUT_MS + size_ms)

    def _sync(self, node: str, peer: _Peer, now: Now) -> None:
        request = ledger_pb2.SyncBlocksRequest(
            heads=self._heads(),
            wanted=self._orphans.ask_for(node, WANTED_MAX, now.mono_ms),
            genesis_digest=self._genesis_digest,
        )
        if not peer.has_genesis and self._genesis is not None:
            request.ledger_genesis.CopyFrom(self._genesis)
        peer.syncing = True
        self._call(node, "SyncBlocks", request, CALL_TIMEOUT_MS)

    def _call(self, node: str, method: str, request: ledger_pb2.PushBlocksRequest | ledger_pb2.SyncBlocksRequest,
              timeout_ms: int) -> None:  # fmt: skip
        name = f"offgrid.v1.LedgerService/{method}"
        self._draft.send(Call("ledger", node, name, request, Tag(method, node), timeout_ms))

    def _heads(self) -> list[ledger_pb2.Head]:
        return [
            ledger_pb2.Head(author=base32(name), height=author.height, digest=author.digest)
            for name, author in self._chains.authors.items()
            if author.height
        ][:HEADS_MAX]

    def _some(self, nodes: Sequence[str], most: int, rng: Rng) -> Sequence[str]:
        return nodes if len(nodes) <= most else rng.sample(nodes, most)


def _heads_of(response: ledger_pb2.SyncBlocksResponse) -> dict[bytes, tuple[int, bytes]]:
    """What a peer's answer says that it holds; what is no head at all is left out."""
    return {
        node_id_bytes(head.author): (head.height, head.digest)
        for head in response.heads[:HEADS_MAX]
        if NODE_ID.match(head.author) and len(head.digest) == DIGEST_BYTES
    }
