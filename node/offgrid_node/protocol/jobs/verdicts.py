"""Why each host would, or would not, get an order if it were cleared now: the book's answer to `offgrid job why`.

It asks what an auction asks (`clearing.py`), in the same order, and says the first thing that stands against a host.
Nothing is awarded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.book import Book, Standing
from offgrid_node.protocol.jobs.classes import Seat, with_barred
from offgrid_node.protocol.jobs.clearing import Group, first_and_price
from offgrid_node.protocol.jobs.orders import JobOrder
from offgrid_node.protocol.jobs.reputation import SHUNNED
from offgrid_node.protocol.jobs.requirements import parse
from offgrid_node.protocol.jobs.rules import DAY_MINUTES, clock

VERDICTS_MAX = 256
HOSTS_NAMED = 3  # to a core for whose job there is none
WHY_CHARS_MAX = 200  # of each of them: a call may bring many such orders


def explain(book: Book, order: JobOrder, group: Group) -> jobs_pb2.ExplainOrderResponse:
    """A verdict for each host of the book: the winner first, then by score, then those that cannot run it."""
    seats = book.seats(order)
    best: dict[str, Seat] = {}
    for seat in seats:
        if group.admits(seat):
            best.setdefault(seat.host, seat)
    winner, price_micro = first_and_price(seats, group)
    verdicts = [_verdict(standing, order, group, best.get(standing.host), winner) for standing in book]
    verdicts.sort(key=lambda each: (not each.wins, not each.able, each.score, each.host))
    return jobs_pb2.ExplainOrderResponse(verdicts=verdicts[:VERDICTS_MAX], price_micro=price_micro)


def against(seats: Iterable[Seat], order: JobOrder, group: Group) -> Iterator[str]:
    """What stands against the first few hosts, of such as offer what the order needs."""
    standings = {seat.host: seat.bid.standing for seat in islice(seats, HOSTS_NAMED)}
    for host, standing in standings.items():
        if why := next(_against(standing, order, group), ""):
            yield f"{host}: {why[:WHY_CHARS_MAX]}"


def _verdict(
    standing: Standing, order: JobOrder, group: Group, seat: Seat | None, winner: Seat | None
) -> jobs_pb2.HostVerdict:
    if seat is None:
        why = next(_against(standing, order, group), "its offers changed just now")
        return jobs_pb2.HostVerdict(host=standing.host, reason=why)
    verdict = jobs_pb2.HostVerdict(host=standing.host, able=True, score=seat.score, ask_micro=seat.bid.ask_micro)
    if winner is not None and winner.host == standing.host:
        verdict.wins = True
        verdict.reason = "the best score"
    elif not seat.bid.room:
        verdict.reason = f"no free slot: {len(standing.used)} of {standing.profile.slots} are in use"
    elif standing.host in group.tried:
        verdict.reason = "it had an earlier attempt of this job, or broke leases of this core: others go first"
    elif seat.score >= SHUNNED:
        verdict.reason = "it broke leases of several cores: others go first"
    elif winner is not None:
        verdict.reason = f"its score is {seat.score / 1e6:g}, the winner's {winner.score / 1e6:g}"
    return verdict


def _against(standing: Standing, order: JobOrder, group: Group) -> Iterator[str]:
    """What keeps a host from being able at all, the first thing first."""
    if not standing.alive:
        yield "it is not alive, or is no host any more"
    if standing.paused:
        yield "it takes no new work: its owner has switched it off"
    if order.avoid and standing.host in order.avoid:
        yield "the job avoids it"
    bids = [bid for bid in standing.bids if order.needs in bid.executors]
    if not bids:
        yield f"does not offer {order.needs}"
    bids = [bid for bid in bids if order.kind in bid.kinds]
    if not bids:
        yield f"takes no jobs of kind {order.kind}"
    why = parse(order.requirements).why_not(standing.profile)
    if why:
        yield why
    seats = [Seat(bid.score, bid.standing.host, bid.offer.offer_id, bid, barred) for bid, barred in with_barred(bids)]
    until_us = max((bid.offer.barred_until_us for bid in bids if order.core in bid.barred), default=None)
    bids = [seat.bid for seat in seats if seat.takes(order.core)]
    if not bids and until_us is not None:
        yield "this core has used up its day's quota there" + (f", until {_time_of(until_us)} UTC" if until_us else "")
    if not bids:
        yield "takes no jobs of this core"
    reserve = order.price_max_micro
    if reserve and all(bid.ask_micro > reserve for bid in bids):
        ask = min(bid.ask_micro for bid in bids)
        yield f"asks {ask / 1e6:g} per million tokens; the job pays {reserve / 1e6:g} at most"


def _time_of(utc_us: int) -> str:
    """Of the day: quotas begin anew within one."""
    return clock(utc_us // 60_000_000 % DAY_MINUTES)
