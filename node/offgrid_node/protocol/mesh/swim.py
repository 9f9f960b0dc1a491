"""Who is alive: SWIM (Das, Gupta, Motivala 2002) with suspicion, incarnations and refutation, as a pure object.

News about a node are ordered by (incarnation, liveness); the later in that order wins, and only the node itself raises
its incarnation. An incarnation starts at the durable boot counter, so that a restarted node outranks its former self.
What a node itself says over an authenticated call is believed before anybody's news, and who has only just said it is
not dead for hearsay: whoever comes back from a partition calls everybody dead. Suspects are probed every interval, so
that one that lives hears of it soon. The dead are probed too, so that a healed partition is noticed: the more often the
fewer are alive (as Serf does), for a node that hears nobody is itself the one that is lost. Who was not alive and is
heard is welcomed with the names of all who are (memberlist's push-pull): what was spread before it came is not said
again. Of whom it is told that they live while it holds them dead, it asks first. Who is slow itself is slow to judge
(Lifeguard, Dadgar et al. 2018): a node that was paused gives its suspects that time back, and one whose ticks come late
lets probes and suspicions take longer, for its peers may well share its machine. Who is reached over slow roads alone
is not probed while its beacons are heard (quiet.py): these show that it is there, and raise no incarnation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from offgrid_node.protocol.mesh.quiet import Quiet
from offgrid_node.protocol.rng import Rng

ALIVE, SUSPECT, DEAD = 1, 2, 3  # the values of offgrid.v1.Liveness; of one incarnation the greater wins
WATCHED = (ALIVE, SUSPECT)

BOOT_SHIFT = 20  # an incarnation is the boot counter followed by this many bits of refutations
INCARNATION_MAX = 2**62
BOOTS_AHEAD_MAX = 2**16  # hearsay of a later life is not believed; the node itself is, whenever it is heard
PROBES_PER_INTERVAL = 3  # members, and as many suspects
DEAD_PROBE_INTERVALS = 5  # at least one of the dead in so many, however many live
REDRAWS_PER_INTERVAL = (
    32  # in the stead of members to whom no road leads: that costs no message, but a turn of the node
)
SUSPICION_INTERVALS, SUSPICION_EXTRA_MS = 2, 300  # the latter for short intervals: a busy machine stalls as long
# Of a process that is surely gone, unless everybody's road to it is broken in the same way: enough to hear of that.
REFUSED_SUSPICION_INTERVALS = 0.5
LATELY_INTERVALS = 1.5  # whom we heard ourselves within this is but doubted when others call it dead
LAG_FACTOR = 4  # a question and its answer each wait for two busy nodes
LAG_LEFT = 0.75  # of a lag, an interval later, when the ticks come in time again
LAG_FREE_INTERVALS = 0.05  # every machine is so late now and then, and a probe waits ten times as long
NEWS_PER_MESSAGE = 16
WELCOME_PER_MESSAGE = 32  # who is alive, besides
NEWS_ACCEPTED_MAX = 64  # of one message
SPREAD_FACTOR = 3  # the paper's λ: a piece of news is sent λ·log2(n) times


class News(NamedTuple):
    """One claim about one node."""

    node_id: str
    liveness: int
    incarnation: int


class _Welcome(msgspec.Struct):
    """What one that is alive again is still to be told."""

    doubt: News | None  # of itself, for it to refute: others may hold it too
    told_up_to: str = ""  # who is alive, sorted


class _Peer(msgspec.Struct):
    liveness: int
    incarnation: int  # 0: never heard of
    suspect_until_ms: int
    heard_ms: int | None = None  # itself, by us


class Swim:
    """What one node believes about the others. Its caller sends the probes that `tick` asks for."""

    def __init__(self, self_id: str, boot: int, interval_ms: int, now_ms: int, quiet: Quiet | None = None) -> None:
        self.incarnation = boot << BOOT_SHIFT
        self._self_id = self_id
        self._quiet = quiet or Quiet()
        self._interval_ms = interval_ms
        self._suspicion_ms = SUSPICION_INTERVALS * interval_ms + SUSPICION_EXTRA_MS
        self._lag_ms = 0  # how late this node's own ticks come
        self._lately_ms = int(LATELY_INTERVALS * interval_ms)
        self._peers: dict[str, _Peer] = {}
        self._news: dict[str, tuple[News, int]] = {}  # what to spread about others, and how often it was sent
        self._changed: dict[str, None] = {}
        self._order: list[str] = []
        self._suspect_order: list[str] = []
        self._dead_order: list[str] = []
        self._fresh: dict[str, None] = {}  # to be probed like the others from the next interval on
        self._named: dict[str, None] = {}  # dead to us, and somebody says that they live
        self._welcomes: dict[str, _Welcome] = {}
        self._dead_share = 0.0  # of probes for the dead, left from intervals before
        self._redraws = 0
        self._next_tick_ms = now_ms
        self._due_ms: int | None = None

    # ---- questions

    def liveness(self, node_id: str) -> int:
        """ALIVE, SUSPECT or DEAD; 0 for a node that is not watched."""
        if node_id == self._self_id:
            return ALIVE
        peer = self._peers.get(node_id)
        return peer.liveness if peer else 0

    def incarnation_of(self, node_id: str) -> int:
        """0 when it was never heard of."""
        if node_id == self._self_id:
            return self.incarnation
        peer = self._peers.get(node_id)
        return peer.incarnation if peer else 0

    def boot_of(self, node_id: str) -> int:
        """Which of the node's lives this is; it grows when the node restarts."""
        return self.incarnation_of(node_id) >> BOOT_SHIFT

    def alive(self) -> list[str]:
        """The others that are alive, sorted."""
        return sorted(node_id for node_id, peer in self._peers.items() if peer.liveness == ALIVE)

    def deadline_ms(self) -> int:
        """When `tick` has something to do. Asked at every turn of the node, so it is not searched for each time."""
        if self._due_ms is None:
            suspects = (peer.suspect_until_ms for peer in self._peers.values() if peer.liveness == SUSPECT)
            self._due_ms = min(self._next_tick_ms, min(suspects, default=self._next_tick_ms))
        return self._due_ms

    def helpers(self, target: str, count: int, rng: Rng) -> list[str]:
        """Others, alive, that may probe `target` in our stead."""
        others = [node_id for node_id in self.alive() if node_id != target]
        return rng.sample(others, min(count, len(others)))

    # ---- inputs

    def watch(self, node_id: str, now_ms: int) -> None:
        """A member to watch: suspect until it is heard of, dead when it is not."""
        if node_id != self._self_id and node_id not in self._peers:
            self._peers[node_id] = _Peer(SUSPECT, 0, now_ms + self._suspicion_ms)
            self._fresh[node_id] = None
            self._due_ms = None
            self._changed[node_id] = None

    def forget(self, node_id: str) -> None:
        """It is no member any more."""
        self._peers.pop(node_id, None)
        self._due_ms = None
        self._quiet.forget(node_id)
        for book in (self._news, self._named, self._welcomes):
            book.pop(node_id, None)

    def tick(self, now_ms: int, rng: Rng) -> list[str]:
        """Lets suspicions run out and returns whom to probe now (none before the interval is over)."""
        self._due_ms = None
        late_ms = now_ms - self._next_tick_ms
        if late_ms > self._interval_ms:
            for peer in self._peers.values():
                peer.suspect_until_ms += late_ms
        for node_id, peer in self._peers.items():
            if peer.liveness == SUSPECT and peer.suspect_until_ms <= now_ms:
                self._set(node_id, peer, DEAD, peer.incarnation, now_ms)
        if late_ms < 0:
            return []
        self._note_lag(late_ms)
        self._next_tick_ms, self._redraws = now_ms + self._interval_ms, REDRAWS_PER_INTERVAL
        self._mix_in_fresh(rng)
        targets = self._draw(self._order, WATCHED, PROBES_PER_INTERVAL, rng)
        targets += self._draw(self._suspect_order, (SUSPECT,), PROBES_PER_INTERVAL, rng)
        return list(dict.fromkeys([*targets, *self._draw_dead(rng), *self._draw_slow(now_ms)]))

    def instead_of(self, node_id: str, rng: Rng) -> list[str]:
        """Whom to probe now, since no road leads to this one: nothing was sent."""
        if not self._redraws:
            return []
        self._redraws -= 1
        if self.liveness(node_id) == DEAD:
            return self._draw(self._dead_order, (DEAD,), 1, rng)
        return self._draw(self._order, WATCHED, 1, rng)

    def heard(self, node_id: str, incarnation: int, now_ms: int) -> None:
        """The node itself, over an authenticated call, says that it lives and in which incarnation."""
        peer = self._peers.get(node_id)
        if peer is None or not 0 < incarnation <= INCARNATION_MAX:
            return
        peer.heard_ms = now_ms
        if peer.liveness != ALIVE or incarnation >> BOOT_SHIFT > peer.incarnation >> BOOT_SHIFT:
            self._welcome(node_id, peer, incarnation)
        if peer.liveness != ALIVE or incarnation > peer.incarnation:
            self._set(node_id, peer, ALIVE, incarnation, now_ms)

    def on_beacon(self, node_id: str, incarnation: int, lasts_ms: int, now_ms: int) -> None:
        """The node is there, which is believed for so long; 0: it is asked. Of which incarnation it is, only so much is
        believed as of anybody's word, nothing where one is known; a slow one that tells of another life is asked."""
        peer = self._peers.get(node_id)
        if peer is None or not self._credible(News(node_id, ALIVE, peer.incarnation or incarnation)):
            return
        told, known = incarnation >> BOOT_SHIFT, peer.incarnation >> BOOT_SHIFT
        doubted = bool(told and known) and told != known
        self._quiet.on_beacon(node_id, lasts_ms, now_ms, doubted=doubted)
        if lasts_ms or not peer.incarnation:
            self.heard(node_id, peer.incarnation or incarnation, now_ms)
        elif peer.liveness == DEAD:
            self._named[node_id] = None

    def road_lost(self, node_id: str) -> None:
        """The open connection to it has ended."""
        self._quiet.road_lost(node_id)

    def silent(self, node_id: str, now_ms: int, *, refused: bool = False) -> None:
        """It answered neither us nor those who asked for us. `refused`: its machine did, and nobody listens there.
        Whose beacons are heard lives all the same: the road by which it was asked leads nowhere."""
        if not refused and self._quiet.lately_ms(node_id, now_ms):
            return
        peer = self._peers.get(node_id)
        if peer is not None and peer.liveness == ALIVE:
            self._set(node_id, peer, SUSPECT, peer.incarnation, now_ms)
        if refused and peer is not None and peer.liveness == SUSPECT:
            until_ms = now_ms + int(REFUSED_SUSPICION_INTERVALS * self._interval_ms)
            peer.suspect_until_ms, self._due_ms = min(peer.suspect_until_ms, until_ms), None

    def learn(self, news: Iterable[News], now_ms: int) -> None:
        """What others say. News about strangers are ignored, news about ourselves refuted."""
        for item in news:
            if not self._credible(item):
                continue
            if item.node_id == self._self_id:
                self._refute(item)
                continue
            peer = self._peers.get(item.node_id)
            if peer is None:
                continue
            liveness = SUSPECT if item.liveness == DEAD and self._heard_lately(peer, now_ms) else item.liveness
            if liveness != ALIVE and self._quiet.lately_ms(item.node_id, now_ms):
                continue  # its beacons are heard here
            if (item.incarnation, liveness) > (peer.incarnation, peer.liveness):
                self._set(item.node_id, peer, liveness, item.incarnation, now_ms)
            elif peer.liveness == DEAD and item[1:] == (ALIVE, peer.incarnation):
                self._named[item.node_id] = None

    # ---- outputs

    def news_for(self, target: str) -> list[News]:
        """What to tell `target` with the next message: ourselves, it when we doubt it, and the freshest news; before
        them, where it has come to life, a part of those who are alive."""
        told = [News(self._self_id, ALIVE, self.incarnation)]
        peer = self._peers.get(target)
        if peer is not None and peer.liveness != ALIVE and peer.incarnation:
            told.append(News(target, peer.liveness, peer.incarnation))
        return told + self._take_welcome(target) + self._take_news(target, NEWS_PER_MESSAGE - len(told))

    def _take_news(self, target: str, count: int) -> list[News]:
        told: list[News] = []
        limit = SPREAD_FACTOR * (len(self._peers) + 1).bit_length()
        for news, sent in sorted(self._news.values(), key=lambda entry: entry[1])[:count]:
            if news.node_id != target:
                told.append(news)
            if sent + 1 < limit:
                self._news[news.node_id] = (news, sent + 1)
            else:
                del self._news[news.node_id]
        return told

    def take_changed(self) -> list[str]:
        """Nodes whose liveness or boot has changed since the last call, in the order of the changes."""
        changed, self._changed = list(self._changed), {}
        return changed

    # ---- inside

    def _set(self, node_id: str, peer: _Peer, liveness: int, incarnation: int, now_ms: int) -> None:
        self._due_ms = None
        if peer.liveness != liveness or peer.incarnation >> BOOT_SHIFT != incarnation >> BOOT_SHIFT:
            self._changed[node_id] = None
        if liveness == SUSPECT and peer.liveness != SUSPECT:
            slow_ms = self._quiet.suspicion_ms(node_id)
            peer.suspect_until_ms = now_ms + self._suspicion_ms + LAG_FACTOR * self._lag_ms + slow_ms
        if peer.liveness == DEAD and liveness != DEAD:
            self._fresh[node_id] = None
            self._named.pop(node_id, None)
        peer.liveness, peer.incarnation = liveness, incarnation
        if incarnation:
            self._spread(News(node_id, liveness, incarnation))

    def _note_lag(self, late_ms: int) -> None:
        """What is longer than an interval is a pause, and given back."""
        late_ms = 0 if late_ms < LAG_FREE_INTERVALS * self._interval_ms else min(late_ms, self._interval_ms)
        self._lag_ms = max(late_ms, int(LAG_LEFT * self._lag_ms))

    def _heard_lately(self, peer: _Peer, now_ms: int) -> bool:
        return peer.heard_ms is not None and now_ms - peer.heard_ms <= self._lately_ms

    def _credible(self, item: News) -> bool:
        """Whether it is within bounds; a doubt must leave room to refute it."""
        highest = INCARNATION_MAX if item.liveness == ALIVE else INCARNATION_MAX - 1
        if not ALIVE <= item.liveness <= DEAD or not 0 < item.incarnation <= highest:
            return False
        return item.incarnation >> BOOT_SHIFT <= self.boot_of(item.node_id) + BOOTS_AHEAD_MAX

    def _refute(self, claim: News) -> None:
        if claim.liveness != ALIVE and claim.incarnation >= self.incarnation:
            self.incarnation = claim.incarnation + 1

    def _spread(self, news: News) -> None:
        self._news.pop(news.node_id, None)
        self._news[news.node_id] = (news, 0)

    def _welcome(self, node_id: str, peer: _Peer, incarnation: int) -> None:
        """It is heard and was not alive until now: what was spread meanwhile it may have missed."""
        doubted = peer.liveness != ALIVE and incarnation <= peer.incarnation
        self._welcomes[node_id] = _Welcome(News(node_id, peer.liveness, peer.incarnation) if doubted else None)

    def _take_welcome(self, target: str) -> list[News]:
        welcome = self._welcomes.get(target)
        if welcome is None:
            return []
        told, welcome.doubt = [welcome.doubt] if welcome.doubt else [], None
        living = [node_id for node_id in self.alive() if node_id > welcome.told_up_to and node_id != target]
        for node_id in living[:WELCOME_PER_MESSAGE]:
            told.append(News(node_id, ALIVE, self._peers[node_id].incarnation))
            welcome.told_up_to = node_id
        if len(living) <= WELCOME_PER_MESSAGE:
            del self._welcomes[target]
        return told

    def _mix_in_fresh(self, rng: Rng) -> None:
        """Into the round that is under way, anywhere, lest all probe one that comes at once (section 4.3)."""
        for node_id in self._fresh:
            if node_id not in self._order:
                self._order.insert(rng.randrange(0, len(self._order) + 1), node_id)
        self._fresh.clear()

    def _draw_dead(self, rng: Rng) -> list[str]:
        """Those first of whom somebody says that they live; all in all no more than of the living."""
        named = [node_id for node_id in self._named if not self._quiet.is_slow(node_id)][:PROBES_PER_INTERVAL]
        for node_id in named:
            del self._named[node_id]
        dead = sum(peer.liveness == DEAD for peer in self._peers.values())
        alive = sum(peer.liveness == ALIVE for peer in self._peers.values())
        share = self._dead_share + max(dead / (alive + 1), 1 / DEAD_PROBE_INTERVALS)
        count = min(int(share), PROBES_PER_INTERVAL)
        self._dead_share = min(share - count, 1.0) if dead else 0.0
        return named + self._draw(self._dead_order, (DEAD,), max(0, count - len(named)), rng)

    def _draw(self, order: list[str], wanted: tuple[int, ...], count: int, rng: Rng) -> list[str]:
        """The next `count` nodes in one of `wanted` states: round robin over a shuffled order (section 4.3)."""
        eligible = self._eligible(wanted, slow=False)
        drawn: list[str] = []
        while eligible and len(drawn) < min(count, len(eligible)):
            if not order:
                order.extend(eligible)
                rng.shuffle(order)
            node_id = order.pop()
            if node_id in eligible and node_id not in drawn:
                drawn.append(node_id)
        return drawn

    def _draw_slow(self, now_ms: int) -> list[str]:
        watched, dead = self._eligible(WATCHED, slow=True), self._eligible((DEAD,), slow=True)
        return self._quiet.take(watched, dead, now_ms) if watched or dead else []

    def _eligible(self, wanted: tuple[int, ...], *, slow: bool) -> dict[str, None]:
        """Sorted."""
        here = sorted(node_id for node_id, peer in self._peers.items() if peer.liveness in wanted)
        return {node_id: None for node_id in here if self._quiet.is_slow(node_id) == slow}
