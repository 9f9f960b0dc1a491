"""What the worker remembers of an object on its way; everything else about it is in its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from offgrid_node.protocol.objects.hosts import Hosts

RETRY_MS, RETRY_MAX_MS = 1_000, 60_000
RETRY_SHARE = 10  # of a slow road's time one part at most is for what was brought there in vain
MOVES_AT_ONCE, MOVE_PAUSE_MS = 4, 10_000  # epochs of one object
UNFIT_MS, UNFIT_MAX_MS = 500, 16_000  # one that did not give its part is not asked for another: doubling, at most
SPOILT_MAX = 2  # sums that were not the shard: then this node fetches the object, which finds out who gave other bytes
FAILING = 3  # tries in a row that failed: the host is not counted on any more


class Failed(msgspec.Struct):
    """A host's failures in a row; they count while it lives the life in which they happened."""

    times: int
    due_ms: int
    life: int


class Terms(msgspec.Struct, frozen=True):
    """What an epoch says of a parcel, shared by all whose epochs say the same."""

    weights: Mapping[str, int]
    layout: tuple[str, ...]  # the host of each shard; empty for copies
    promised_milli: int  # what must be lost before the object is, once all is acked


NO_TERMS = Terms({}, (), 0)


class Parcel(msgspec.Struct):
    """`size_bytes` is what a host needs for its part, nearly; `shards_total` is 0 for copies. `epoch` is 0 until the
    quorum is open; while it is `asking` for the next one, what is known of it is over. `held` says who has acked what
    of it. `flights` are Ships under way, with the epoch whose ack they will bring. One that is given up is remembered
    for these alone. `local`: this node has the sealed bytes, or else it may be `fetching` them.

    Else its hosts make from each other's what is missing: those that are `rebuilding`, with whose parts they add, each
    as often as it gives one. `former` is who held a shard before it was laid elsewhere, `unfit` until when a host is
    not asked for its part, and how often it did not give one, `suspects` who gave parts of sums that came out wrong,
    and how often. `unasked` are hosts that have been found to keep some of it, though they have acked none."""

    number: int
    object_id: str
    required_milli: int
    copies: int
    size_bytes: int
    durable: bool
    shards_needed: int = 1
    shards_total: int = 0
    local: bool = True
    given_up: bool = False
    epoch: int = 0
    asking: bool = False
    terms: Terms = NO_TERMS
    held: dict[str, tuple[int, ...]] = msgspec.field(default_factory=dict)
    flights: dict[str, int] = msgspec.field(default_factory=dict)
    failed: dict[str, Failed] = msgspec.field(default_factory=dict)
    fetching: bool = False
    rebuilding: dict[str, Counter[str]] = msgspec.field(default_factory=dict)
    former: dict[int, str] = msgspec.field(default_factory=dict)
    unfit: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    suspects: Counter[str] = msgspec.field(default_factory=Counter)
    spoilt: int = 0
    unasked: set[str] = msgspec.field(default_factory=set)
    journal: bool = False  # a segment of it, which waits for a fast road
    moves: int = 0  # epochs asked for since it is in memory
    move_ms: int = 0  # before then no further one, when there were many

    @property
    def coded(self) -> bool:
        return self.shards_total > 0

    @property
    def weights(self) -> Mapping[str, int]:
        return self.terms.weights

    @property
    def layout(self) -> tuple[str, ...]:
        return self.terms.layout

    @property
    def shards_held(self) -> int:
        """How many of those that are needed somebody has acked."""
        return len({shard for shards in self.held.values() for shard in shards})

    def lacks(self, node_id: str) -> bool:
        """Whether the node is to hold something that it has not acked."""
        mine = self.held.get(node_id, ())
        if not self.coded:
            return not mine
        return any(node == node_id and shard not in mine for shard, node in enumerate(self.layout))

    def may_move(self, now_ms: int) -> bool:
        """Whether the next epoch may be asked for; it counts as asked for then. The first few times at once, as hosts
        come one by one, and then now and again: each costs a signature and a row, and hosts may come and go for ever.
        """
        if self.moves >= MOVES_AT_ONCE and now_ms < self.move_ms:
            return False
        self.moves, self.move_ms = self.moves + 1, now_ms + MOVE_PAUSE_MS
        return True

    def moves_to(self, layout: Sequence[str]) -> None:
        """Its shards are to be laid so: who held what moves may have it still."""
        for shard, (before, after) in enumerate(zip(self.layout, layout, strict=True)):
            if before != after and shard in self.held.get(before, ()):
                self.former[shard] = before

    def distrust(self, node_id: str, unfit: str, spoilt: bool, now_ms: int) -> bool:
        """A rebuild at the node has failed. Whether that was for those who gave it parts: whom it was not told to ask
        it cannot blame."""
        asked = self.rebuilding.get(node_id, Counter())
        if unfit in asked:
            _, times = self.unfit.get(unfit, (0, 0))
            delay_ms = min(UNFIT_MAX_MS, UNFIT_MS << min(times, 10))
            self.unfit[unfit] = now_ms + delay_ms, times + 1
            return True
        if spoilt and asked:
            self.spoilt += 1
            self.suspects += asked
            return True
        return False

    def fails(self, node_id: str, now_ms: int, hosts: Hosts) -> None:
        """The same host is tried again after a delay that doubles."""
        life, before = hosts.lives(node_id), self.failed.get(node_id)
        times = before.times + 1 if before is not None and before.life == life else 1
        delay_ms = min(RETRY_MAX_MS, RETRY_MS << min(times - 1, 10))
        delay_ms = max(delay_ms, hosts.pace(node_id).apart_ms(self.size_bytes, RETRY_SHARE))
        self.failed[node_id] = Failed(times, now_ms + delay_ms, life)

    def waits(self, node_id: str, now_ms: int, hosts: Hosts) -> int | None:
        """Until when the host is left alone; None when it may be tried."""
        failed = self.failed.get(node_id)
        if failed is None or failed.life != hosts.lives(node_id) or failed.due_ms <= now_ms:
            return None
        return failed.due_ms

    def failing(self, hosts: Hosts) -> set[str]:
        return {n for n, failed in self.failed.items() if failed.times >= FAILING and failed.life == hosts.lives(n)}
