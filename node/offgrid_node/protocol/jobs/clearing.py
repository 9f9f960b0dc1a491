"""Who gets a job and what is paid for it: a sealed-bid auction over standing offers, per million tokens of job size.

score = ask + handicap; the lowest wins. A handicap is what the broker itself has seen of the host (`reputation.py`):
no host's ask has a part in it, its own least of all.

**The price** is the winner's critical value: the highest ask with which it would still have won (Vickrey 1961, Myerson
1981), so it does not depend on what the winner asked, and to ask for more or less than a job costs a host never pays.
That is the score of the best bid that lost, less the winner's handicap. The core's reserve caps it; a dearer host is
not able. **A host that stands alone is paid the reserve**: any other price that it might be paid would be a matter of
its own ask, and the next time it would ask for more. The reserve is the core's word of what the work is worth to it.

**Several jobs at once.** Orders that are alike are cleared together: the k best free slots win, and of slots of
different hosts all are paid the (k+1)-th best score; paying each the next one in line would make it pay to lose the
first job and win the last. A host that wins q of them is paid for the q best slots of *other* hosts that lost
(Vickrey, Clarke, Groves): its own slots do not compete with each other. Among winners the jobs go by host id, so that
no ask wins the larger one. With this no single-slot host gains by any ask but its cost, in one clearing (`soak
auctions`), nor does one of several slots that cost it the same. Over time nothing is promised: who expects dearer jobs
in a minute may wait.

What is equal in score goes to the host that is least busy, of the first few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from offgrid_node.protocol.jobs.book import Bid
from offgrid_node.protocol.jobs.bounds import PRICE_MAX
from offgrid_node.protocol.jobs.classes import Seat
from offgrid_node.protocol.jobs.orders import JobOrder

TIES_LOOKED = 16  # bids of one score that are compared by how busy their hosts are


class Group(NamedTuple):
    """What orders that are cleared together have in common; `tried` are hosts that had their jobs before."""

    core: str
    kind: str
    needs: str
    requirements: str
    price_max_micro: int
    avoid: tuple[str, ...]
    tried: tuple[str, ...] = ()

    @classmethod
    def of(cls, order: JobOrder, tried: tuple[str, ...] = ()) -> Group:
        return cls(order.core, *order[3:5], order.requirements, order.price_max_micro, order.avoid, tried)

    def admits(self, seat: Seat) -> bool:
        """Whether this bid could ever get such a job; its host may be busy."""
        reserve = self.price_max_micro
        return (
            (not reserve or seat.bid.ask_micro <= reserve)
            and (not (seat.bid.owners or seat.barred) or seat.takes(self.core))
            and seat.host not in self.avoid
        )


class Won(NamedTuple):
    """`price_micro` is per million tokens."""

    order: JobOrder
    bid: Bid
    price_micro: int


def clear(seats: Sequence[Seat], group: Group, orders: Sequence[JobOrder], now_ms: int) -> list[Won]:
    """Awards as many of the orders, first ones first, as there are free slots that fit; the slots are taken."""
    won: list[Seat] = []
    for _ in range(len(orders)):
        seat = _best(seats, group)
        if seat is None:
            break
        seat.bid.standing.take(seat.bid)
        won.append(seat)
    if len(won) > 1:
        won.sort(key=_by_host)
    prices: dict[str, int] = {}
    for seat in won:
        if seat.host not in prices:
            count = 1 if len(won) == 1 else sum(each.host == seat.host for each in won)
            prices[seat.host] = _price(seat, _losers(seats, group, seat.host, count), count, group)
    awards = [Won(orders[place], seat.bid, prices[seat.host]) for place, seat in enumerate(won)]
    for order, bid, _ in awards:
        bid.standing.hold(order.key, bid, now_ms)
    return awards


def first_and_price(seats: Sequence[Seat], group: Group) -> tuple[Seat | None, int]:
    """Who would get one such job now, and for how much; nothing is taken."""
    seat = _best(seats, group)
    return seat, 0 if seat is None else _price(seat, _losers(seats, group, seat.host, 1), 1, group)


def _by_host(seat: Seat) -> tuple[str, int]:
    """Asks have no part in who of the winners gets which job."""
    return seat.host, seat.offer_id


def _best(seats: Sequence[Seat], group: Group) -> Seat | None:
    """The bid that wins; hosts that had the job before win only if no other can."""
    tried = group.tried
    best, spare, looked = None, None, 0
    for seat in seats:
        if best is not None and (looked >= TIES_LOOKED or seat[0] != best[0]):
            break
        bid = seat[3]
        standing = bid.standing
        if standing.free <= 0 or bid.used >= bid.slots or not group.admits(seat):
            continue
        if tried and seat[1] in tried:
            spare = spare or seat
            continue
        looked += 1
        if best is None or standing.free > best[3].standing.free:
            best = seat
    return best or spare


def _losers(seats: Sequence[Seat], group: Group, winner: str, most: int) -> list[int]:
    """The best scores of free slots that other hosts have left; at most so many. Against a host that is new to the job,
    those that had it before do not compete."""
    tried = group.tried
    fresh_only = bool(tried) and winner not in tried
    scores: list[int] = []
    rooms: dict[str, int] = {}
    for seat in seats:
        bid = seat[3]
        host = seat[1]
        if bid.standing.free <= 0 or bid.used >= bid.slots or host == winner or not group.admits(seat):
            continue
        if fresh_only and host in tried:
            continue
        room = min(bid.slots - bid.used, rooms.get(host, bid.standing.free), most - len(scores))
        rooms[host] = rooms.get(host, bid.standing.free) - room
        scores += [seat[0]] * room
        if len(scores) >= most:
            break
    return scores


def _price(winner: Seat, losers: Sequence[int], count: int, group: Group) -> int:
    """Of each of the `count` jobs that it won. Where the core names no reserve, a host that stands alone is paid what
    it asks: then there is nothing else to pay."""
    reserve, ask = group.price_max_micro, winner.bid.ask_micro
    handicap = winner.score - ask
    alone = reserve or ask
    critical = [min(score - handicap, alone) if reserve or score > PRICE_MAX else score - handicap for score in losers]
    critical += [alone] * (count - len(critical))
    return max(ask, sum(critical) // count)
