"""How blocks spread: pushed along trees as they appear, and by anti-entropy whatever the pushes missed.

Blocks have one way in, PushBlocks, whose handler checks every signature. What a node has just made or learnt goes to
its links at once, or is announced to them (links.py). SyncBlocks finds out where two nodes' heads differ (meeting.py);
what one lacks it then asks for, of one peer at a time (backfill.py), and that it passes on to nobody: others that lack
it find that out as well. So after a partition each block comes to each node about once, by whatever way. What a peer
brings as asked for and was not asked of it is announced, or who is quick could keep it from those behind this node.

Meetings are SYNC_MS apart while there is anything to find, and rarer up to SYNC_MOST_MS where both sides say that
nothing is. At most one push and one meeting with a peer are under way; what comes up meanwhile shares the next, so a
slow peer costs nothing but its own delay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.errors import Fault, PeerFault
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.backfill import Ask, Backfill
from offgrid_node.protocol.ledger.beacon import Heard
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.commands import PUSH_BLOCKS_MAX, WANTED_MAX, PushBlocks, SyncBlocks
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.links import Links, Peer
from offgrid_node.protocol.ledger.meeting import Learnt, Meeting, answer_to
from offgrid_node.protocol.ledger.orphans import Orphans
from offgrid_node.protocol.ledger.outgoing import Outgoing
from offgrid_node.protocol.ledger.records import DIGEST_BYTES
from offgrid_node.protocol.ledger.spreading import Spreading
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.pace import SHARE, Paces, all_free
from offgrid_node.protocol.reconcile.symbols import KEY_BYTES
from offgrid_node.protocol.rng import Rng

SYNC_MS = 2_000
SYNC_MOST_MS = 256_000
ANCESTORS_MAX = 16  # that go along with a block asked for by name
LATE_ASK_MS = 1_000  # asks by name wait so long for blocks that are on their way already
STRANGERS_MET = 8  # so many of those who are up meet one that is new, which may have no ledger
WINDOWS_MAX = 64  # of symbols, made for one peer between two ticks
CALL_TIMEOUT_MS = 5_000
MEETING_BYTES = 120  # where nothing is different
MEETINGS_SHARE = 50  # of a slow road's time one part is for meetings while there is something to find


class Tag(msgspec.Struct, frozen=True):
    """Which of our calls has ended."""

    what: str
    node: str


class Gossip:
    """Peers alive, and what is under way to each."""

    def __init__(
        self,
        self_id: str,
        draft: Draft,
        epochs: Epochs,
        chains: Chains,
        orphans: Orphans,
        voice: Voice,
        paces: Paces = all_free,
    ) -> None:
        self._self_id, self._own, self._paces = self_id, node_id_bytes(self_id), paces
        self._met_ms: dict[str, int] = {}  # peers behind slow roads, and when each was met last
        self._draft, self._chains, self._orphans, self._voice = draft, chains, orphans, voice
        self._links = Links()
        self._backfill = Backfill(chains)
        self._out = Outgoing(chains)
        self._meetings: dict[str, Meeting | None] = {}  # under way, by peer; None: one of which nothing more comes
        self._due: dict[str, None] = {}  # peers to meet at the end of this step
        self._owed: dict[str, None] = {}  # peers to meet at the next tick
        self._spreading = Spreading(
            self._own, epochs, self._links, self._out, lambda node: self._owed.update({node: None})
        )
        self._strangers: dict[str, None] = {}  # that came up for the first time, and of whom no block is here
        self._been_up: set[str] = set()  # members
        self._genesis: common_pb2.Signed | None = None
        self._genesis_digest = b""
        self._tick_ms: int | None = None
        self._period_ms = SYNC_MS
        self._stirred = True  # since the last tick there was something to find

    def open(self, genesis: common_pb2.Signed, digest: bytes, now: Now) -> None:
        """There is something to tell: links are told, who tell theirs, and whoever this node waits for."""
        self._genesis, self._genesis_digest = genesis, digest
        self._tick_ms = now.mono_ms + SYNC_MS
        self._due.update(dict.fromkeys([*(node for node, _ in self._links.linked()), *self._unheard()]))

    # ---- questions

    def deadline_ms(self) -> int | None:
        if self._tick_ms is None:
            return None
        asks_ms = self._asks_ms()
        due = (self._tick_ms, asks_ms, self._backfill.deadline_ms(), self._out.deadline_ms())
        return min(at for at in due if at is not None)

    @property
    def up(self) -> list[str]:
        return self._links.up

    def is_silent(self, node: str) -> bool:
        """Whether it has answered that its economy is off."""
        peer = self._links.find(node)
        return peer is not None and peer.silent

    # ---- inputs

    def on_peer_up(self, node: str) -> None:
        if node == self._self_id:
            return
        self._links.on_up(node)
        peer = self._links.find(node)
        if peer is not None:
            peer.silent = peer.pushing = False  # whatever was under way may never end
        self._meetings.pop(node, None)
        if (peer is not None and peer.linked) or not self._voice.free or self._voice.unheard(node_id_bytes(node)):
            self._due[node] = None
        elif node not in self._been_up and not self._chains.author(node_id_bytes(node)).place:
            self._strangers[node] = None
        self._been_up.add(node)

    def on_peer_down(self, node: str) -> None:
        self._strangers.pop(node, None)
        self._met_ms.pop(node, None)
        self._links.on_down(node)
        self._backfill.on_down(node)
        self._meetings.pop(node, None)

    def on_time(self, now: Now, rng: Rng) -> None:
        self._due.update(dict.fromkeys(self._links.fill(rng)))
        self._due.update({node: None for node in self._strangers if rng.random() * len(self._links.up) < STRANGERS_MET})
        self._strangers.clear()
        if self._tick_ms is None:
            return
        if self._tick_ms <= now.mono_ms:
            self._tick(now, rng)
        asks_ms = self._asks_ms()
        if asks_ms is not None and asks_ms <= now.mono_ms:
            for node in self._orphans.take_asks(now.mono_ms):
                if self._links.is_up(node):
                    self._due[node] = None
                elif self._links.up:
                    self._due[rng.choice(self._links.up)] = None
        for ask in self._backfill.take_asks(now.mono_ms, self._links.up):
            self._ask(ask)
        for author in self._backfill.take_stalled():
            self._seek(author, rng)

    def on_sync(self, command: SyncBlocks, now: Now) -> ledger_pb2.SyncBlocksResponse:
        """Says what is here, and learns what is there."""
        question, peer = command.question, self._links.get(command.sender)
        if command.yours is not None:
            self._compare_own(command.sender, command.yours, command.epoch, now)
        if peer is not None:
            peer.has_genesis, peer.silent = True, False
            if command.link:
                self._links.accept(command.sender)
            self._offer_wanted(command.sender, peer, command.wanted)
            if question.shows or question.summary != self._chains.heads.summary(self._genesis_digest):
                peer.windows += 1
            if peer.windows > (2 if question.shows else 1) * WINDOWS_MAX:  # after symbols there is room to name heads
                return ledger_pb2.SyncBlocksResponse(yours=self._newest_of(command.sender))
        for author, height in question.heads.items():
            other = not question.all_heads and height == self._chains.heads.height(author)
            self._hear_of(command.sender, author, height, now, again=other)
        response = answer_to(self._chains.heads, question, self._genesis_digest)
        if not response.in_sync:
            self._stir(now)
        if not response.in_sync or self._chains.author(node_id_bytes(command.sender)).frozen:
            response.yours = self._newest_of(command.sender)
        return response

    def on_heads_heard(self, node: str, heard: Heard, now: Now) -> None:
        """What it has said to all tells where its heads and these differ: it is asked for the names of what it has, and
        shown what it lacks."""
        peer = self._links.get(node)
        if peer is None or node in self._meetings or heard.code is None or not self._may_meet(node, now, found=True):
            return
        meeting = self._meetings[node] = Meeting.overheard(self._chains.heads, self._genesis_digest, heard)
        self._met_ms[node] = now.mono_ms
        self.call(node, "SyncBlocks", meeting.show(heard), CALL_TIMEOUT_MS)

    def on_push(
        self, command: PushBlocks, held: Sequence[tuple[bytes, int]], taken: Sequence[CheckedBlock], now: Now, rng: Rng
    ) -> None:
        """What a peer brought. `held` were here already; `taken` are new, orphans that had waited for them included."""
        sender, words = command.sender, command.words
        peer = self._links.get(sender)
        brought = [block.place for block in command.blocks]
        if peer is not None:
            self._out.on_words(peer, words, now.mono_ms)
            self._out.ready(sender)
            if not words.asked and (brought or words.announced):
                self._links.accept(sender)
            for author, height in (*brought, *command.useless):
                peer.has(author, height)
            if not words.asked:
                twice = dict.fromkeys(author for author, _ in (*held, *command.useless))
                twice.pop(node_id_bytes(sender), None)
                peer.prune.update(twice)
        for author, height in words.announced.items():
            if peer is not None:
                peer.has(author, height)
            self._hear_of(sender, author, height, now, news=True)
        for author, height in brought:
            if not words.asked and height > self._chains.author(author).height + 1:
                self._hear_of(sender, author, height, now, news=True)
        direct = {block.digest for block in command.blocks} if not words.asked else set[bytes]()
        for block in taken:
            self._spreading.on_named(block)
            if block.digest in direct:
                self._spreading.pass_on(block, now.mono_ms, rng)
            elif not (words.asked and self._backfill.is_asked(sender, block.header.author)):
                self._spreading.announce(block, now.mono_ms, rng)  # it may say that it was asked and was not
        if words.asked:
            self._backfill.on_brought(sender, (*brought, *command.useless), news=len(taken), now_ms=now.mono_ms)
        for author in dict.fromkeys([author for author, _ in brought] + [block.header.author for block in taken]):
            self._backfill.on_block(author, now.mono_ms)

    def merely_ended(self, event: object, now: Now) -> bool:
        """Whether it is the end of a push after which there is nothing to do."""
        if not isinstance(event, Answered) or event.fault is not None or not isinstance(event.tag, Tag):
            return False
        peer = self._links.get(event.tag.node)
        if event.tag.what != "PushBlocks" or peer is None or peer.expects(now.mono_ms):
            return False
        peer.pushing = False
        return True

    def on_answered(self, tag: Tag, answer: Answered, now: Now) -> None:
        peer = self._links.get(tag.node)
        if peer is None:
            return
        if tag.what == "PushBlocks":
            peer.pushing = False
            if answer.fault is not None:
                self._owed[tag.node] = None
                self._backfill.on_fault(tag.node, now.mono_ms)
                self._stir(now)
        if answer.fault is not None:
            self._on_fault(tag.node, peer, answer.fault, now)
        if tag.what == "SyncBlocks" and tag.node in self._meetings:
            meeting = self._meetings.pop(tag.node)
            if isinstance(answer.reply, ledger_pb2.SyncBlocksResponse):
                peer.has_genesis, peer.silent = True, False
                if meeting is not None:
                    self._go_on(tag.node, meeting, answer.reply, now)
            if tag.node not in self._meetings and tag.node in self._owed:
                del self._owed[tag.node]
                self._due[tag.node] = None
        self._out.ready(tag.node)

    # ---- what is new

    def add_own(self, block: CheckedBlock, now: Now) -> None:
        """A block of this node, which this very batch makes durable."""
        self._backfill.on_block(self._own, now.mono_ms)
        self._spreading.tell(block, now.mono_ms)

    def on_ended(self, payer: bytes, now: Now, rng: Rng) -> None:
        """A payment out of that account has."""
        self._spreading.on_ended(payer, now.mono_ms, rng)

    def flush(self, now: Now, rng: Rng) -> None:
        """The end of a step: the calls that follow."""
        for node in self._due if self._genesis is not None else ():
            peer = self._links.get(node)
            if peer is not None and node in self._meetings:
                self._owed[node] = None  # once more when that has ended
            elif peer is not None:
                self._meet(node, peer, now, rng)
        self._due.clear()
        for node in self._out.take_ready(now.mono_ms, self._links):
            peer = self._links.get(node)
            if peer is None or peer.pushing or peer.silent or not peer.expects(now.mono_ms):
                continue
            request, size_ms = self._out.take_push(peer, now.mono_ms)
            if request is not None:
                peer.pushing = True
                self.call(node, "PushBlocks", request, CALL_TIMEOUT_MS + size_ms)

    # ---- inside: spreading

    def _hear_of(self, node: str, author: bytes, height: int, now: Now, *, news: bool = False,
                 again: bool = False) -> None:  # fmt: skip
        """That peer has the author's blocks up to there."""
        if self._backfill.on_offer(node, author, height, now.mono_ms, news=news, again=again) and not news:
            self._stir(now)

    def _seek(self, author: bytes, rng: Rng) -> None:
        """Somebody else may have what was not brought: its author first of all."""
        name = base32(author)
        if self._links.is_up(name):
            self._due[name] = None
        if self._links.up:
            self._due[rng.choice(self._links.up)] = None

    def _ask(self, ask: Ask) -> None:
        peer = self._links.peer(ask.node)
        peer.lacking.update((span.author, span) for span in ask.spans)
        peer.graft.update(dict.fromkeys(ask.graft))
        for author in ask.graft:
            peer.prune.pop(author, None)
        self._out.ready(ask.node)

    def _offer_wanted(self, node: str, peer: Peer, wanted: Iterable[bytes]) -> None:
        """As many as one push may carry, for each is read to find the one before it; the rest is asked for again."""
        places: dict[int, None] = {}
        for digest in wanted:
            if len(places) + len(peer.answers) >= PUSH_BLOCKS_MAX:
                break
            places.update(dict.fromkeys(self._chains.with_ancestors(digest, ANCESTORS_MAX)))
        peer.answers.extend(sorted(places))
        self._out.ready(node)

    # ---- inside: meeting

    def _tick(self, now: Now, rng: Rng) -> None:
        node = self._links.next_turn(rng)
        unheard = self._unheard()
        due = [*self._owed, *unheard] + ([node] if node is not None else [])
        early = {node: None for node in due if not self._may_meet(node, now)}
        self._due.update({node: None for node in due if node not in early})
        self._owed = {node: None for node in early if node in self._owed}
        for _, peer in self._links.known():
            peer.windows = 0
        calm = not self._stirred and not unheard
        self._period_ms = min(2 * self._period_ms, SYNC_MOST_MS) if calm else SYNC_MS
        self._stirred = False
        self._tick_ms = now.mono_ms + self._period_ms

    def _may_meet(self, node: str, now: Now, *, found: bool = False) -> bool:
        """Behind a slow road a peer is met more seldom: of its own blocks it tells at once, as ever. `found`: there is
        something to find."""
        pace, met_ms = self._paces(node), self._met_ms.get(node)
        if pace.free or met_ms is None:
            return True
        share = MEETINGS_SHARE if found or node in self._owed or self._stirred else SHARE
        return now.mono_ms >= met_ms + pace.apart_ms(MEETING_BYTES, share)

    def _unheard(self) -> list[str]:
        """Whom this node waits for to show what it holds of it: see voice.py."""
        if self._voice.may_witness:
            return []
        return [name for name in self._links.up if self._voice.unheard(node_id_bytes(name))]

    def _stir(self, now: Now) -> None:
        """There is something to find: the next tick comes soon."""
        self._stirred, self._period_ms = True, SYNC_MS
        if self._tick_ms is not None:
            self._tick_ms = min(self._tick_ms, now.mono_ms + SYNC_MS)

    def _asks_ms(self) -> int | None:
        asks_ms = self._orphans.deadline_ms()
        return asks_ms + LATE_ASK_MS if asks_ms is not None and self._backfill.busy else asks_ms

    def _meet(self, node: str, peer: Peer, now: Now, rng: Rng) -> None:
        meeting = self._meetings[node] = Meeting(self._chains.heads, self._genesis_digest, rng.randbytes(KEY_BYTES))
        self._met_ms[node] = now.mono_ms
        request = meeting.begin()
        request.yours, request.epoch, request.link = self._newest_of(node), self._voice.epoch, peer.chosen
        request.wanted.extend(self._orphans.ask_for(node, WANTED_MAX, now.mono_ms))
        if not peer.has_genesis and self._genesis is not None:
            request.ledger_genesis.CopyFrom(self._genesis)
            request.genesis_digest = self._genesis_digest
        self.call(node, "SyncBlocks", request, CALL_TIMEOUT_MS)

    def _go_on(self, node: str, meeting: Meeting, response: ledger_pb2.SyncBlocksResponse, now: Now) -> None:
        if not meeting.greeted:
            meeting.greeted = True
            own = response.yours or (self._newest_of(self._self_id) if response.in_sync else b"")
            self._compare_own(node, own, response.epoch, now)
        try:
            request, learnt = meeting.on_answer(response)
        except PeerFault:  # it moved meanwhile, or makes it up; another time
            self._stir(now)
            return
        if request is not None:
            self._meetings[node] = meeting
            self.call(node, "SyncBlocks", request, CALL_TIMEOUT_MS)
        elif learnt is not None:
            self._learn(node, learnt, now)

    def _learn(self, node: str, learnt: Learnt, now: Now) -> None:
        if not learnt.in_sync:
            self._stir(now)
        for author, height in learnt.theirs.items():
            self._hear_of(node, author, height, now, again=(author, height) in learnt.here)

    def _newest_of(self, node: str) -> bytes:
        """The newest block of its chain that is here; b"" for none."""
        author = self._chains.authors.get(node_id_bytes(node))
        return author.digest if author is not None and author.height else b""

    def _compare_own(self, node: str, shown: bytes, epoch: int, now: Now) -> None:
        """What the other holds of this node is nothing new, or it is asked for: see voice.py."""
        own = shown if len(shown) == DIGEST_BYTES else self._genesis_digest
        held = self._chains.holds(own)
        self._voice.on_shown(node_id_bytes(node), own, epoch, held=held, now_ms=now.mono_ms)
        if not held:
            self._orphans.want([own], node_id_bytes(node), node, now.mono_ms)

    def _on_fault(self, node: str, peer: Peer, fault: Fault, now: Now) -> None:
        """Whatever was under way is lost; anti-entropy finds out what is lacking."""
        lost = peer.lost()
        if fault.reason == "EconomyOff":
            peer.silent = True
            return
        if lost:
            self._owed[node] = None
            self._stir(now)
        if fault.reason == "OtherLedger":
            self._voice.notice(f"{node} has another ledger", about=node)
        elif fault.reason == "LedgerNotOpen":
            self._due[node] = None

    def call(self, node: str, method: str, request: Message, timeout_ms: int = CALL_TIMEOUT_MS) -> None:
        name = f"offgrid.v1.LedgerService/{method}"
        self._draft.send(Call("ledger", node, name, request, Tag(method, node), timeout_ms))
