"""Auctions with hosts that misreport: whether any ask but its cost ever pays a single-slot host.

Each round draws hosts with costs and handicaps, orders with sizes and a reserve, and one host that lies. The real
clearing runs twice on the same draw, with the lie and without it; the liar's gain is what it is paid for what it gets,
less what that costs it. Everybody else's lies are part of the draw: truth must be the best answer to whatever others
say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

import msgspec
from msgspec.structs import replace

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.book import Book, Standing
from offgrid_node.protocol.jobs.clearing import Group, clear
from offgrid_node.protocol.jobs.orders import JobOrder
from offgrid_node.protocol.jobs.reputation import SHUNNED

HOSTS_MAX, ORDERS_MAX = 8, 6
COSTS = (0, 100, 500, 900, 1_000, 1_000, 1_100, 2_000, 5_000)
LIES = (-1_000, -500, -101, -100, -1, 1, 99, 100, 500, 1_000, 10_000)
MARKUPS = (100, 500, 1_000, 2_000)
HANDICAPS = (0, 0, 250, 500, 500, 742, 1_000, SHUNNED)
CORE = "core"


class Seller(msgspec.Struct, frozen=True):
    """A host: what it asks and what its broker adds to that; `busy` or one that had the job before. `more` are the asks
    of further offers of its one slot."""

    host: str
    ask_micro: int
    handicap: int
    busy: bool
    tried: bool
    more: tuple[int, ...] = ()


class Auction(msgspec.Struct, frozen=True):
    """One draw. The liar is the first seller, and asks its cost here."""

    sellers: tuple[Seller, ...]
    sizes_tokens: tuple[int, ...]
    reserve_micro: int

    def gain_of_liar(self, ask_micro: int, *more: int) -> int:
        """Of the first seller, asking so, over what its work costs; in millionths of millionths."""
        cost_micro, liar = self.sellers[0].ask_micro, self.sellers[0].host
        sellers = (replace(self.sellers[0], ask_micro=ask_micro, more=more), *self.sellers[1:])
        return sum(
            (price_micro - cost_micro) * size_tokens
            for host, price_micro, size_tokens in _cleared(sellers, self)
            if host == liar
        )


def soak_auctions(seed: int, rounds: int, say: Callable[[str], None]) -> list[str]:
    """What was violated."""
    rng = Random(seed)  # noqa: S311 - to be repeatable
    broken: list[str] = []
    won = 0
    for number in range(rounds):
        auction, lies = draw(rng)
        truth = auction.gain_of_liar(auction.sellers[0].ask_micro)
        gain = auction.gain_of_liar(*lies)
        won += bool(truth or gain)
        if gain > truth:
            broken.append(f"round {number}: asking {lies} gains {gain}, the truth {truth}: {auction}")
        elif truth < 0:
            broken.append(f"round {number}: who asked its cost was paid less: {auction}")
    say(f"   {rounds} auctions; in {won} of them the host that may lie won with one ask or the other")
    for markup, share in waiting_pays(rng, rounds // 10):
        say(f"   not promised: of two brokers in turn, asking {markup:+} at the first gains {share:+.1%} on the truth")
    return broken


def waiting_pays(rng: Random, rounds: int) -> Iterator[tuple[int, float]]:
    """How much more than by its cost a host gets that asks so much more at one broker, and its cost at the next one
    when it went away with nothing: a slot that is sold now is not there for a dearer job later."""
    pairs = [(draw(rng)[0], draw(rng)[0]) for _ in range(rounds)]
    for markup in MARKUPS:
        truth = gain = 0
        for first, second in pairs:
            cost = first.sellers[0].ask_micro
            later = replace(second, sellers=(replace(second.sellers[0], ask_micro=cost), *second.sellers[1:]))
            spare = later.gain_of_liar(cost)
            truth += first.gain_of_liar(cost) or spare
            gain += first.gain_of_liar(cost + markup) or spare
        yield markup, (gain - truth) / max(1, truth)


def draw(rng: Random) -> tuple[Auction, tuple[int, ...]]:
    """An auction, and what the first seller may ask instead of its cost: in one offer or in several."""
    sellers = tuple(
        Seller(
            host=f"host-{number}",
            ask_micro=rng.choice((rng.choice(COSTS), rng.randrange(5_000))),
            handicap=rng.choice(HANDICAPS),
            busy=bool(number) and rng.random() < 0.2,
            tried=rng.random() < 0.1,
            more=_some(rng),
        )
        for number in rng.sample(range(HOSTS_MAX), rng.randint(1, HOSTS_MAX))
    )
    sellers = (replace(sellers[0], busy=False, more=()), *sellers[1:])
    sizes = tuple(rng.choice((1, 1_000, 1_000_000)) for _ in range(rng.randint(1, ORDERS_MAX)))
    reserve = rng.choice((1_000, 3_000, 10_000, 10_000_000))
    lie = max(0, sellers[0].ask_micro + rng.choice((rng.choice(LIES), rng.randint(-5_000, 10_000))))
    return Auction(sellers, sizes, reserve), (lie, *_some(rng))


def _some(rng: Random) -> tuple[int, ...]:
    """The asks of more offers; mostly there are none."""
    return tuple(rng.randrange(10_000) for _ in range(rng.choice((0, 0, 0, 1, 2))))


def _cleared(sellers: Sequence[Seller], auction: Auction) -> Iterator[tuple[str, int, int]]:
    """Host, price per million tokens and size of each job that found one, by the code that brokers run."""
    book = Book()
    for seller in sellers:
        standing = Standing(seller.host, jobs_pb2.HostProfile(slots=0 if seller.busy else 1), alive=True)
        standing.handicap = seller.handicap
        for offer_id, ask_micro in enumerate((seller.ask_micro, *seller.more), 1):
            standing.offers[offer_id] = jobs_pb2.Offer(
                offer_id=offer_id, executors=["wasm"], kinds=["compute"], ask_micro=ask_micro, slots=1, expiry_ms=1_000
            )
        standing.rebid()
        book.add(standing)
    orders = [
        JobOrder(CORE, f"j-{n}", 1, "compute", "wasm", size, 0, b"", 1_000, price_max_micro=auction.reserve_micro)
        for n, size in enumerate(auction.sizes_tokens)
    ]
    tried = tuple(seller.host for seller in sellers if seller.tried)
    for won in clear(book.seats(orders[0]), Group.of(orders[0], tried), orders, 0):
        yield won.bid.standing.host, won.price_micro, won.order.size_tokens
