"""Whom this node is linked with, and which way each author's blocks go: Plumtree (Leitão, Pereira, Rodrigues 2007).

A node links with all peers while there are DIRECT_MAX of them at most, else with LINKS at random, and with those that
chose it, up to LINKS_MAX together. The choice is uniform over whoever is up, peers that come later included (Vitter's
reservoir), so halves that were apart are woven together again.

Along a link blocks go eagerly: whole, at once. Whoever gets one that it has says so (PRUNE), and that author's blocks
go lazily there from now on: announced, some together. What is announced and does not come is asked for, and the link is
eager again (GRAFT). So each author has a tree of its own, of the ways by which its blocks come first; a tree that lost
a branch mends itself. Its own blocks an author pushes along all its links, whatever was said: where all are linked with
all the tree is a star, the shortest there is; and should the author lose its disk, no single neighbour has them alone.

What a peer may do with that harms itself alone: it decides what is pushed to it, and no more than a block for each that
comes in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from offgrid_node.protocol.ledger.heads import HEADS_MAX, Span
from offgrid_node.protocol.rng import Rng

DIRECT_MAX = 8
LINKS = 3  # that a node chooses in a larger mesh; as many choose it
LINKS_MAX = 16
OUTBOX_BLOCKS_MAX = 1_024
OUTBOX_BYTES_MAX = 4 * 1024 * 1024


class Peer(msgspec.Struct):
    """What is under way to one peer, and what it is to be told."""

    chosen: bool = False
    chose: bool = False  # … this node
    outbox: deque[tuple[bytes, int]] = msgspec.field(
        default_factory=deque
    )  # blocks to push, with the height of an own one
    outbox_bytes: int = 0
    held_ms: int | None = None  # they wait so long for something to go with (spreading.py)
    ended_ms: int | None = None  # … if it is not for something that is under way
    answers: deque[int] = msgspec.field(default_factory=deque)  # positions of blocks that it asked for by name
    serving: dict[bytes, Span] = msgspec.field(default_factory=dict)  # what it asked for by height and has not got yet
    served: dict[bytes, tuple[int, int]] = msgspec.field(
        default_factory=dict
    )  # author → how far it was served, and when
    shown: dict[bytes, int] = msgspec.field(
        default_factory=dict
    )  # author → a height that it has, for all this node knows
    lazy: dict[bytes, None] = msgspec.field(default_factory=dict)  # authors whose blocks are only announced to it
    announce: dict[bytes, int] = msgspec.field(default_factory=dict)
    announce_ms: int | None = None
    prune: dict[bytes, None] = msgspec.field(default_factory=dict)
    graft: dict[bytes, None] = msgspec.field(default_factory=dict)
    lacking: dict[bytes, Span] = msgspec.field(default_factory=dict)
    leave: bool = False
    pushing: bool = False
    asked_last: bool = False  # the last push carried what it had asked for
    has_genesis: bool = False
    silent: bool = False  # its economy is off; it is asked again when it comes up, or its turn comes
    windows: int = 0  # of symbols, that were made for it since the last tick

    @property
    def linked(self) -> bool:
        return self.chosen or self.chose

    def expects(self, now_ms: int) -> bool:
        """Whether there is anything to send to it now."""
        blocks = (self.outbox and not self.holds(now_ms)) or self.answers or self.serving
        words = self.prune or self.graft or self.lacking or self.leave
        return bool(blocks or words) or (self.announce_ms is not None and self.announce_ms <= now_ms)

    def holds(self, now_ms: int) -> bool:
        """Whether all that is to be pushed waits."""
        return self.held_ms is not None and self.held_ms > now_ms

    def put(self, raw: bytes, own_height: int) -> bool:
        """Whether there was room."""
        if len(self.outbox) >= OUTBOX_BLOCKS_MAX or self.outbox_bytes + len(raw) > OUTBOX_BYTES_MAX:
            return False
        self.outbox.append((raw, own_height))
        self.outbox_bytes += len(raw)
        return True

    def take_back(self) -> list[int]:
        """This node's blocks that wait are not to be pushed: their heights."""
        heights = [own_height for _, own_height in self.outbox if own_height] if self.held_ms is not None else []
        if heights:
            self.knows(heights[-1])
        return heights

    def knows(self, height: int) -> None:
        """It has this node's blocks up to there from somebody else."""
        for raw, own_height in list(self.outbox):
            if 0 < own_height <= height:
                self.outbox.remove((raw, own_height))
                self.outbox_bytes -= len(raw)
        if not self.outbox:
            self.held_ms = self.ended_ms = None

    def has(self, author: bytes, height: int) -> None:
        if height > self.shown.get(author, 0) and (author in self.shown or len(self.shown) < HEADS_MAX):
            self.shown[author] = height

    def lost(self) -> bool:
        """Whatever was under way has come to nothing; whether anything was."""
        something = bool(self.outbox or self.answers or self.serving or self.announce)
        self.outbox.clear()
        self.outbox_bytes = 0
        for words in (self.answers, self.serving, self.served, self.shown, self.lazy, self.announce):
            words.clear()
        self.announce_ms, self.has_genesis = None, False
        self.held_ms = self.ended_ms = None
        return something


class Links:
    """Peers that are up, and those of them with whom something is shared."""

    def __init__(self) -> None:
        self._up: dict[str, None] = {}
        self._fresh: dict[str, None] = {}  # that came up and were not considered yet
        self._peers: dict[str, Peer] = {}
        self._chosen: list[str] = []
        self._turn = 0

    # ---- questions

    @property
    def all_with_all(self) -> bool:
        """Whether this node is linked with all peers, as each of them is where all know of each other."""
        return len(self._up) <= DIRECT_MAX

    def is_up(self, node: str) -> bool:
        return node in self._up

    @property
    def up(self) -> list[str]:
        return [*self._up]

    def get(self, node: str) -> Peer | None:
        """None of one that is not up."""
        return self.peer(node) if node in self._up else None

    def find(self, node: str) -> Peer | None:
        """None of one of whom there is nothing to remember."""
        return self._peers.get(node)

    def peer(self, node: str) -> Peer:
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = Peer()
        return peer

    def linked(self) -> Iterator[tuple[str, Peer]]:
        return ((node, peer) for node, peer in self._peers.items() if peer.linked)

    def known(self) -> Iterator[tuple[str, Peer]]:
        """Every peer of whom there is anything to remember."""
        return iter(self._peers.items())

    def next_turn(self, rng: Rng) -> str | None:
        """Whom to meet next: links in turn, and now and then anybody at all, so that no ring of liars closes."""
        linked = [node for node, _ in self.linked()]
        self._turn += 1
        if not linked or not self._turn % (len(linked) + 1):
            return rng.choice(self.up) if self._up else None
        return linked[self._turn % (len(linked) + 1) - 1]

    # ---- changes

    def on_up(self, node: str) -> None:
        self._up[node] = self._fresh[node] = None

    def on_down(self, node: str) -> None:
        self._up.pop(node, None)
        self._fresh.pop(node, None)
        self._peers.pop(node, None)
        if node in self._chosen:
            self._chosen.remove(node)

    def accept(self, node: str) -> bool:
        """It has chosen this node; whether there was room."""
        peer = self.peer(node)
        if not peer.linked and sum(1 for _ in self.linked()) >= LINKS_MAX:
            return False
        peer.chose = True
        return True

    def fill(self, rng: Rng) -> list[str]:
        """Chooses among those that came up, and anew for those that went; the new ones."""
        if not self._fresh and len(self._chosen) >= self._wanted:
            return []
        new = dict[str, None]()
        for seen, node in enumerate(self._fresh, len(self._up) - len(self._fresh) + 1):
            if len(self._chosen) < self._wanted:
                self._choose(node, new)
            elif node not in self._chosen and rng.random() * seen < self._wanted:
                self._unchoose(rng.choice(self._chosen), new)
                self._choose(node, new)
        self._fresh.clear()
        if len(self._chosen) < self._wanted:
            others = [node for node in self._up if node not in self._chosen]
            for node in rng.sample(others, min(self._wanted - len(self._chosen), len(others))):
                self._choose(node, new)
        while len(self._chosen) > DIRECT_MAX:
            self._unchoose(rng.choice(self._chosen), new)
        return [*new]

    @property
    def _wanted(self) -> int:
        return len(self._up) if len(self._up) <= DIRECT_MAX else LINKS

    def _choose(self, node: str, new: dict[str, None]) -> None:
        if node not in self._chosen:
            self._chosen.append(node)
            self.peer(node).chosen = True
            self.peer(node).leave = False
            new[node] = None

    def _unchoose(self, node: str, new: dict[str, None]) -> None:
        self._chosen.remove(node)
        new.pop(node, None)
        peer = self.peer(node)
        peer.chosen, peer.leave = False, True
