"""What a broker thinks of a host: how its leases ended, as their cores say, and how long they took, as it sees itself.

Each core has one vote on a host, whatever it says and however often, and it weighs 1 at most. All of them stand beside
one neutral vote, so a host that nobody knows has 0.5 and one core, should it lie, can neither bring it below a half of
that nor put it last for all (SHUNNED_BELOW). For its own jobs it can: a host that broke leases of this very core gets
only what no other can do of it. What lies back counts less: half as much after HALF_LIFE_MS.

How long a lease took is compared with what the same core's jobs of the same kind take on average: it has the run in it,
of which a broker knows nothing, but in that all hosts are equal, and no word of the host's own is asked for. One sample
moves the mean by a sixteenth, and counts for LATENCY_MAX_MS at most.
"""

from __future__ import annotations

from collections import OrderedDict
from struct import Struct

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.jobs.bounds import PRICE_MAX
from offgrid_node.protocol.jobs.closing import BROKEN, DISAGREED, REFUSED, REFUTED, SERVED
from offgrid_node.protocol.jobs.post import Post

REPUTATION = "broker_reputation"  # "host/core": a Vote
# What an end weighs; others weigh nothing.
GOOD, BAD = {SERVED: 1.0}, {BROKEN: 4.0, REFUSED: 0.25, DISAGREED: 8.0, REFUTED: 4.0}
PRIOR = 2.0  # of good and bad together, half each: one end alone says little
FULL_VOTE_ENDS = 16.0
ENDS_REMEMBERED = 64.0  # good and bad together: beyond it older ones fade
HALF_LIFE_MS = 6 * 3_600_000
KEEP_MS = 2_000
LATENCY_MAX_MS = 1_000.0
LATENCY_SHARE = 1 / 16

UNKNOWN = 0.5
SHUNNED_BELOW = 0.25  # a host that is thought less of gets only what no other can do; it takes two cores for that
DISTRUSTED_BELOW, DISTRUSTED_BAD = 0.3, 8.0  # one core's vote, with so much against the host: its own jobs go elsewhere
DISTRUSTED_MAX = 64  # hosts, of one core
SHUNNED = 2 * PRICE_MAX  # in millionths: more than any ask
REPUTATION_MICRO = 1_000  # per million tokens, between a reputation of 1 and one of 0: the ask that hosts start with
LATENCY_MICRO_PER_MS = 1  # per million tokens

VOTES_MAX = 20_000  # of all cores on all hosts; the one that was heard of longest ago goes first
PACES_MAX = 1_024  # means that are kept, by core, kind and need

VoteKey = tuple[str, str]  # (host, core)
_ROW = Struct(">dddQ")


class Vote(msgspec.Struct):
    """Of one core on one host; weights as of `utc_ms`."""

    good: float = 0.0
    bad: float = 0.0
    late_ms: float = 0.0
    utc_ms: int = 0

    def fade(self, utc_ms: int) -> None:
        """A clock that goes back fades nothing, one that leaps ahead at most makes the host unknown."""
        passed = utc_ms - self.utc_ms
        if passed > 0:
            kept = 0.5 ** (passed / HALF_LIFE_MS)
            self.good, self.bad, self.late_ms = self.good * kept, self.bad * kept, self.late_ms * kept
        self.utc_ms = utc_ms

    @property
    def value(self) -> float:
        return (self.good + PRIOR / 2) / (self.good + self.bad + PRIOR)

    @property
    def weight(self) -> float:
        return min(1.0, (self.good + self.bad) / FULL_VOTE_ENDS)


class Reputation:
    """Votes on hosts; rows are written now and then, and losing the last of them loses a few ends."""

    def __init__(self, post: Post, votes_max: int = VOTES_MAX) -> None:
        self._post, self._votes_max = post, votes_max
        self._votes: OrderedDict[VoteKey, Vote] = OrderedDict()
        self._on_host: dict[str, dict[str, Vote]] = {}
        self._distrusted: dict[str, dict[str, None]] = {}  # by core
        self._paces: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._unkept: dict[VoteKey, None] = {}
        self._keep_ms: int | None = None  # when their rows are written

    def load(self, rows: Rows) -> None:
        found = []
        for key, value in rows.scan(REPUTATION):
            host, _, core = key.decode().partition("/")
            found.append(((host, core), Vote(*_ROW.unpack(value))))
        for key_, vote in sorted(found, key=lambda each: each[1].utc_ms):
            self._keep(key_, vote)
            self._judge(key_[1], key_[0], vote)

    def on_wake(self, now: Now) -> None:
        """Writes the votes that have changed: of a busy host one row for thousands of ends."""
        if self._keep_ms is None or now.mono_ms < self._keep_ms:
            return
        for host, core in self._unkept:
            vote = self._votes[host, core]
            row = _ROW.pack(vote.good, vote.bad, vote.late_ms, max(0, vote.utc_ms))
            self._post.put_late(REPUTATION, f"{host}/{core}".encode(), row, now)
        self._unkept.clear()
        self._keep_ms = None

    # ---- questions

    def deadline_ms(self) -> int | None:
        return self._keep_ms

    def of(self, host: str) -> float:
        """0 to 1; UNKNOWN of a host that nobody has told of. As of the last time that it was told of."""
        votes = self._on_host.get(host)
        if not votes:
            return UNKNOWN
        weights = sum(vote.weight for vote in votes.values())
        return (UNKNOWN + sum(vote.weight * vote.value for vote in votes.values())) / (1.0 + weights)

    def distrusted(self, core: str) -> tuple[str, ...]:
        """Hosts that broke this core's own leases, lately and more than now and then."""
        return tuple(self._distrusted.get(core, ()))

    def late_ms(self, host: str) -> float:
        """How much longer its jobs take than their like elsewhere; below 0: less."""
        votes = self._on_host.get(host)
        return sum(vote.late_ms for vote in votes.values()) / len(votes) if votes else 0.0

    def handicap(self, host: str, now: Now) -> int:
        """What its score has on top of its ask, in millionths per million tokens. What is long past fades here."""
        for core, vote in self._on_host.get(host, {}).items():
            vote.fade(now.utc_us // 1_000)
            self._judge(core, host, vote)
        value = self.of(host)
        micro = round(REPUTATION_MICRO * (1 - value) + LATENCY_MICRO_PER_MS * self.late_ms(host))
        return micro + (SHUNNED if value < SHUNNED_BELOW else 0)

    # ---- what cores say

    def on_end(self, core: str, host: str, end: jobs_pb2.LeaseEnd.ValueType, now: Now) -> None:
        """How a lease of this core's ended at the host."""
        good, bad = GOOD.get(end, 0.0), BAD.get(end, 0.0)
        if not good and not bad:
            return
        vote = self._vote(core, host, now)
        vote.good, vote.bad = vote.good + good, vote.bad + bad
        total = vote.good + vote.bad
        if total > ENDS_REMEMBERED:
            vote.good, vote.bad = vote.good * ENDS_REMEMBERED / total, vote.bad * ENDS_REMEMBERED / total
        self._judge(core, host, vote)
        self._unkept[host, core] = None
        if self._keep_ms is None:
            self._keep_ms = now.mono_ms + KEEP_MS

    def on_served(self, core: str, host: str, kind: str, needs: str, took_ms: int, now: Now) -> None:
        """How long it took, from its award to its end."""
        pace = (core, kind, needs)
        mean = self._paces.get(pace, float(took_ms))
        self._paces[pace] = mean + LATENCY_SHARE * (took_ms - mean)
        self._paces.move_to_end(pace)
        if len(self._paces) > PACES_MAX:
            self._paces.popitem(last=False)
        late_ms = max(-LATENCY_MAX_MS, min(LATENCY_MAX_MS, took_ms - mean))
        vote = self._vote(core, host, now)
        vote.late_ms += LATENCY_SHARE * (late_ms - vote.late_ms)

    # ---- inside

    def _vote(self, core: str, host: str, now: Now) -> Vote:
        key = host, core
        vote = self._votes.get(key)
        if vote is None:
            vote = Vote(utc_ms=now.utc_us // 1_000)
            if (gone := self._keep(key, vote)) is not None:
                self._post.delete_late(REPUTATION, f"{gone[0]}/{gone[1]}".encode(), now)
        vote.fade(now.utc_us // 1_000)
        self._votes.move_to_end(key)
        return vote

    def _keep(self, key: VoteKey, vote: Vote) -> VoteKey | None:
        """What had to go for it."""
        self._votes[key] = vote
        self._on_host.setdefault(key[0], {})[key[1]] = vote
        if len(self._votes) <= self._votes_max:
            return None
        gone, _ = self._votes.popitem(last=False)
        self._unkept.pop(gone, None)
        votes = self._on_host[gone[0]]
        self._judge(gone[1], gone[0], Vote())
        del votes[gone[1]]
        if not votes:
            del self._on_host[gone[0]]
        return gone

    def _judge(self, core: str, host: str, vote: Vote) -> None:
        if vote.bad >= DISTRUSTED_BAD and vote.value < DISTRUSTED_BELOW:
            hosts = self._distrusted.setdefault(core, {})
            hosts[host] = None
            if len(hosts) > DISTRUSTED_MAX:
                del hosts[next(iter(hosts))]
        elif host in self._distrusted.get(core, ()):
            del self._distrusted[core][host]
            if not self._distrusted[core]:
                del self._distrusted[core]
